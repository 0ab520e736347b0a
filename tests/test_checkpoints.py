"""Checkpoints: a training that is killed goes on as if it had not been, and a file that is not as it has to be is not used."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from regnet import checkpoints as module
from regnet.checkpoints import Checkpoints, fingerprint
from regnet.errors import InputError, RegNetError
from regnet.network import RegNet
from regnet.patches import Samples
from regnet.training import PairFiles, Trainer, TrainingJob

WARMUP = {
    **{"steps": 3, "batch": 2, "block": 1, "optimizer": "muon", "learning_rate": 0.003, "schedule": "cosine", "decay": 1.25},
    **{"rise": 2, "freeze_after": None, "size": 56, "volumes": 2, "renew_every": 1, "texture_sigma": 1.5},
    **{"field_sigma": [20, 40], "maximum": 2},
}
SETTINGS = {
    **{"batch": 2, "epochs": 3, "steps_per_epoch": 3, "optimizer": "muon", "learning_rate": 0.003, "schedule": "cosine"},
    **{"decay": 1.25, "rise": 2, "freeze_after": 4, "flips": True, "noise_sd": 5, "precision": "auto"},
    **{"checkpoint_minutes": 1e-9, "warmup": WARMUP},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The files of a pair of noise volumes with noise for displacements: what is learnt does not matter here."""
    folder, rng = tmp_path_factory.mktemp("pair"), np.random.default_rng(0)
    for name in ("fixed", "moving"):
        np.save(folder / f"{name}.npy", rng.integers(-1000, 0, (60, 60, 60), np.int16))
    displacements = rng.normal(size=(5, 1, 1, 1, 3)).astype(np.float32)
    Samples(rng.integers(20, 40, (5, 3)).astype(np.int32), displacements).save(folder / "samples.npz")
    return PairFiles(*((str(folder / name),) for name in ("samples.npz", "fixed.npy", "moving.npy")))


@pytest.fixture
def job(pair, tmp_path):
    """A function that gives a training which leaves its files in a folder of the given name."""

    def in_folder(name, **settings):
        folder = tmp_path / name
        names = {"checkpoints": "checkpoints", "events": "events", "curves": "training.csv"}
        names |= {"best": "model.safetensors", "last": "last.safetensors"}
        return TrainingJob(
            variant="regnet_1scale",
            training=pair,
            validation=pair,
            settings={**SETTINGS, **settings},
            spacing=2.0,
            window=(-1000, 400),
            seed=1,
            facts={"seed": 2017},
            threads=1,
            gpus=0,
            code=(module.__file__,),
            **{key: str(folder / name) for key, name in names.items()},
        )

    return in_folder


def start(job):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["regnet.training"])
    process = processes.Process(target=job.run)
    process.start()
    return process


def newest(job):
    """The number of the newest checkpoint, 0 if there is none."""
    return max((int(path.stem) for path in Path(job.checkpoints).glob("[0-9]*.checkpoint")), default=0)


def kill_after(job, number):
    """Start a training and kill it at a random moment after it, or one before it, has written a checkpoint."""
    process = start(job)
    while newest(job) < number:
        assert process.is_alive()
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.2))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def run(job):
    process = start(job)
    process.join()
    assert process.exitcode == 0
    return [Path(path).read_bytes() for path in (job.best, job.last)]


def test_a_killed_training_ends_with_the_same_bytes(job):
    """Killed in the warm-up, in the first epoch and in a later one, perhaps while it writes; the newest file damaged once."""
    killed = job("killed")
    for number in (1, 4, 8):
        kill_after(killed, number)
    assert len(list(Path(killed.checkpoints).glob("[0-9]*.checkpoint"))) <= 3
    damaged = Path(killed.checkpoints, f"{newest(killed):06d}.checkpoint")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert run(killed) == run(job("undisturbed"))
    assert not Path(killed.checkpoints).exists()


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


def test_a_checkpoint_of_another_training_is_not_used_and_goes(folder, caplog):
    assert load(folder, settings="other") is None
    assert caplog.text.count("is not used: it is of other settings") == 2
    other = Checkpoints(folder, {"settings": "other", "data": "b"}, minutes=10)
    other.save(STATE)
    assert [path.name for path in folder.iterdir()] == ["000003.checkpoint"]


def test_settings_data_and_code_make_the_fingerprint(tmp_path):
    paths = [tmp_path / name for name in ("samples.npz", "fixed.npy", "training.py")]

    def now(settings):
        return fingerprint(settings, [paths[0]], [paths[1]], [paths[2]])

    for path in paths:
        path.write_text("before")
    first = now({"batch": 2})
    assert now({"batch": 2}) == first
    others = [now({"batch": 3})]
    for path in paths:
        path.write_text("after it")
        others.append(now({"batch": 2}))
    changed = [[part for part in first if other[part] != first[part]] for other in others]
    assert changed == [["settings"], ["data"], ["data"], ["data", "code"]]


def test_no_two_trainings_in_one_folder(folder):
    checkpoints = Checkpoints(folder, {}, minutes=10)
    with checkpoints.locked(), pytest.raises(RegNetError, match="another process is still training"), checkpoints.locked():
        pass


def test_a_checkpoint_of_another_variant_is_refused():
    trainer = Trainer(RegNet("regnet"), torch.device("cpu"), 2.0, bfloat16=False)
    with pytest.raises(InputError, match="found weights of regnet_early, expected regnet"):
        trainer.load_state_dict({"variant": "regnet_early"})
