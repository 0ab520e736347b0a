"""Checkpoints: one that is damaged, or of another training, is not used."""

import os
import shutil

import pytest
import torch

from regnet.errors import InputError, RegNetError
from regnet.learning.checkpoints import Checkpoints, fingerprint
from regnet.learning.networks.regnet import RegNet
from regnet.learning.training import Trainer

STATE = {"step": 7, "weights": torch.arange(3.0)}


@pytest.fixture
def folder(tmp_path):
    """A folder with two checkpoints, of the steps 1 and 7."""
    written = Checkpoints(tmp_path / "checkpoints", {"settings": "a", "data": "b"}, minutes=10)
    for step in (1, 7):
        written.save({**STATE, "step": step})
    return written.folder


def load(folder, **changes):
    return Checkpoints(folder, {"settings": "a", "data": "b", **changes}, minutes=10).load()


def test_the_newest_checkpoint_comes_back(folder):
    state = load(folder)
    assert state["step"] == 7
    assert torch.equal(state["weights"], STATE["weights"])


@pytest.mark.parametrize("keep", [0, 30, -1, "a bit"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(folder, keep, caplog):
    path = folder / "000002.checkpoint"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= keep == "a bit"
    path.write_bytes(content if keep == "a bit" else content[:keep])
    assert load(folder)["step"] == 1
    assert "000002.checkpoint is damaged and not used" in caplog.text


def test_a_checkpoint_cannot_run_code(folder, caplog):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(folder / "harm"),)

    Checkpoints(folder, {"settings": "a", "data": "b"}, minutes=10).save({"step": Harm()})
    assert load(folder) is None
    assert "000003.checkpoint is damaged" in caplog.text
    assert not (folder / "harm").exists()


def test_a_checkpoint_of_another_training_is_not_used_and_is_removed(folder, caplog):
    assert load(folder, settings="other") is None
    assert caplog.text.count("is not used: it was written with other settings") == 2
    other = Checkpoints(folder, {"settings": "other", "data": "b"}, minutes=10)
    other.save(STATE)
    assert [path.name for path in folder.iterdir()] == ["000003.checkpoint"]


def test_settings_data_and_code_make_the_fingerprint(tmp_path):
    paths = [tmp_path / name for name in ("samples.npz", "fixed.npy", "training.py")]

    def current(settings):
        return fingerprint(settings, paths[:2], paths[2:])

    for path in paths:
        path.write_text("before", encoding="utf-8")
    first = current({"batch": 2})
    assert current({"batch": 2}) == first
    others = [current({"batch": 3})]
    for path in paths:
        path.write_text("behind", encoding="utf-8")
        others.append(current({"batch": 2}))
    changed = [[part for part in first if other[part] != first[part]] for other in others]
    assert changed == [["settings"], ["data"], ["data"], ["data", "code"]]


def test_a_copy_of_the_data_has_the_same_fingerprint(tmp_path):
    (tmp_path / "fixed.npy").write_bytes(b"volume")
    (tmp_path / "copied").mkdir()
    copy = shutil.copyfile(tmp_path / "fixed.npy", tmp_path / "copied" / "fixed.npy")
    os.utime(copy, (0, 0))
    assert fingerprint({}, [copy], []) == fingerprint({}, [tmp_path / "fixed.npy"], [])


def test_no_two_trainings_in_one_folder(folder):
    checkpoints = Checkpoints(folder, {}, minutes=10)
    with checkpoints.locked(), pytest.raises(RegNetError, match="another process is still training"), checkpoints.locked():
        pass


def test_a_checkpoint_of_another_variant_is_refused():
    trainer = Trainer(RegNet("regnet"), torch.device("cpu"), 2.0, bfloat16=False)
    with pytest.raises(InputError, match="found weights of regnet_early, expected regnet"):
        trainer.load_state_dict({"variant": "regnet_early"})
