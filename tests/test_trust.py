"""Reading a file never runs code from it, and no name in a table or a config becomes a path to another place."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from made_cohorts import IMAGES, PAIRS, write_tables

from regnet.errors import ConfigError, InputError, RegNetError
from regnet.evaluation.long_tables import read_slices
from regnet.experiment.checking import read_config
from regnet.experiment.cohort import read_cohort
from regnet.experiment.schemas import check_config
from regnet.learning.checkpoints import Checkpoints
from regnet.learning.weight_files import load_network
from regnet.synthesis.pairs import SyntheticDVF
from regnet.synthesis.samples import Samples

NAMES = [
    "..",
    "../up",
    "/etc/passwd",
    "a/b",
    "a\\b",
    ".hidden",
    "-rf",
    "a b",
    "a'b",
    'a"b',
    "ü",
    "a\u202eb",
    "$(id)",
    "{pair}",
    "a;b",
    "*",
]


class Touching:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def trap(tmp_path):
    """An object with such a pickle; the test fails if the pickle is loaded."""
    path = tmp_path / "touched"
    pickle.loads(pickle.dumps(Touching(path)))
    assert path.exists()
    path.unlink()
    yield Touching(path)
    assert not path.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["image", "subject", "pair"])
def test_a_name_that_is_more_than_a_name_is_refused(field, name, tmp_path):
    old = {"image": "b1\tb\t", "subject": "b1\tb\t", "pair": "cd\tc1\t"}[field]
    new = {"image": f"{name}\tb\t", "subject": f"b1\t{name}\t", "pair": f"{name}\tc1\t"}[field]
    write_tables(tmp_path, IMAGES.replace(old, new), PAIRS.replace(old, new))
    with pytest.raises(InputError, match=f"{field}: found the text .*, expected a name of letters, digits"):
        read_cohort(tmp_path, tmp_path, made_by_workflow=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["experiment", "methods"])
def test_a_name_that_is_more_than_a_name_is_refused_in_the_config(field, name):
    config = read_config([])
    if field == "experiment":
        config["experiment"] = name
    else:
        config["methods"] = {**config["methods"], name: {"module": "demons"}}
    with pytest.raises(ConfigError, match=field):
        check_config(config)


def test_a_config_creates_no_objects(tmp_path):
    touched = tmp_path / "touched"
    (tmp_path / "bad.yaml").write_text(f"seed: !!python/object/apply:pathlib.Path.touch ['{touched}']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bad\.yaml: cannot be read as a config"):
        read_config([tmp_path / "bad.yaml"])
    assert not touched.exists()


def test_weights_hold_no_objects(trap, tmp_path):
    for name, write_to in (
        ("pickle", lambda path: path.write_bytes(pickle.dumps(trap))),
        ("torch", lambda path: torch.save(trap, path)),
    ):
        path = tmp_path / f"{name}.safetensors"
        write_to(path)
        with pytest.raises(InputError, match="cannot be read as weights of RegNet in safetensors"):
            load_network(path)


def test_a_checkpoint_holds_no_objects(trap, tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path / "checkpoints", {"settings": "a"}, minutes=10)
    checkpoints.save({"step": trap})
    assert checkpoints.load() is None
    assert "is damaged and not used" in caplog.text


@pytest.mark.parametrize("load", [Samples.load, SyntheticDVF.load, lambda path: read_slices(path, ["a"])])
def test_arrays_hold_no_objects(load, trap, tmp_path):
    objects = np.array([trap], dtype=object)
    names = ("centres", "displacements", "points", "vectors", "sigma", "scale", "size", "spacing", "origin", "direction", "a")
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names, objects))
    with pytest.raises(InputError, match=r"a\.npz: cannot be read"):
        load(tmp_path / "a.npz")


def test_messages_do_not_steer_the_terminal():
    text = str(RegNetError("found 'a\x1b]0;title\x07b\u202ec'"))
    assert json.dumps(text) == r'''"found 'a\\x1b]0;title\\x07b\\u202ec'"'''
