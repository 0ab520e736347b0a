"""Defaults of the inference against the configs that show them."""

from dataclasses import asdict
from pathlib import Path

import pytest

from regnet.experiment.checking import read_config
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.released import PYRAMID_SETTINGS, PYRAMID_SPACINGS, REGNET_SETTINGS

CONFIG = Path(__file__).parents[2] / "config"


def inference_of(*configs):
    """The inference settings in the section ``regnet`` of the default config and the given overlays."""
    keys = read_config([CONFIG / config for config in configs])["regnet"]
    return {name: keys[name] for name in asdict(InferenceSettings())}


def test_the_defaults_are_those_of_config_yaml():
    assert inference_of() == asdict(InferenceSettings())


def test_the_real_pair_is_registered_as_the_command_does_by_default():
    assert inference_of("lung_followup.yaml") == asdict(REGNET_SETTINGS)


@pytest.mark.parametrize("config", ["config.yaml", "lung_followup.yaml"])
def test_the_pyramid_is_applied_as_the_command_does_by_default(config):
    row = read_config([CONFIG / config])["methods"]["regnet_pyramid"]
    assert (row["spacings"], row["smoothing"]) == (list(PYRAMID_SPACINGS), PYRAMID_SETTINGS.smoothing)
    assert InferenceSettings(smoothing=PYRAMID_SETTINGS.smoothing) == PYRAMID_SETTINGS
