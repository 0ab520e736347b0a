"""The examples in docstrings do what they say."""

import doctest
import importlib

import pytest

EXAMPLES = {
    "images.volumes": ("read_ct", "Grid"),
    "images.transforms": ("field_transform", "compose"),
    "images.landmarks": ("read_landmarks",),
    "synthesis.random_fields": ("draw_field",),
    "learning.weight_files": ("load_network",),
    "learning.inference": ("DenseNetwork.predict",),
    "registration.run": ("register_pair",),
    "registration.regnet": ("register",),
    "evaluation.landmark_errors": ("pair_errors",),
    "images.inverse": ("invert",),
    "api": ("register",),
}
"""The functions and classes of each module that show how they are used."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name):
    module = importlib.import_module(f"regnet.{name}")
    shown = {test.name.removeprefix(f"regnet.{name}.") for test in doctest.DocTestFinder().find(module) if test.examples}
    assert set(EXAMPLES[name]) <= shown
    assert doctest.testmod(module).failed == 0
