"""A training as a job of the workflow: if killed, it resumes without a trace, and two processes do the work of one."""

import dataclasses
import multiprocessing
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from regnet.errors import ConfigError, InputError
from regnet.evaluation.long_tables import read_table
from regnet.learning.networks.regnet import RegNet
from regnet.learning.training_job import PairFiles, PyramidJob, TrainingJob
from regnet.learning.weight_files import load_network
from regnet.presentation.figures.training import COUNTED, CURVES
from regnet.synthesis.samples import Samples

# A pair of textures is replaced before each step.
WARMUP = {"steps": 3, "batch": 2, "block": 1, "size": 56, "volumes": 2, "maximum": 2, "renew_every": 1}
SETTINGS = {
    **{"batch": 2, "epochs": 3, "steps_per_epoch": 3, "optimizer": "muon", "learning_rate": 0.003, "schedule": "cosine"},
    **{"decay": 1.25, "rise": 2, "freeze_after": 7, "flips": True, "noise_sd": 5, "precision": "auto"},
    **{"fresh": None, "checkpoint_minutes": 1e-9, "warmup": WARMUP},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The files of a pair of noise volumes with random displacements: what the network learns does not matter here."""
    folder, rng = tmp_path_factory.mktemp("pair"), np.random.default_rng(0)
    for name in ("fixed", "moving"):
        np.save(folder / f"{name}.npy", rng.integers(-1000, 0, (60, 60, 60), np.int16))
    displacements = rng.normal(size=(5, 1, 1, 1, 3)).astype(np.float32)
    Samples(rng.integers(20, 40, (5, 3)).astype(np.int32), displacements).save(folder / "samples.npz")
    return PairFiles(*((str(folder / name),) for name in ("samples.npz", "fixed.npy", "moving.npy")))


@pytest.fixture
def job(pair, tmp_path):
    """A function that returns a training with its files in a folder of the given name."""

    def in_folder(name, **settings):
        folder = tmp_path / name
        names = {"checkpoints": "checkpoints", "events": "events", "curves": "training.csv"}
        names |= {"best": "model.safetensors", "last": "last.safetensors"}
        return TrainingJob(
            variant="regnet_1scale",
            training=pair,
            validation=pair,
            settings={**SETTINGS, **settings},
            synthesis={},
            spacing=2.0,
            window=(-1000, 400),
            seed=1,
            facts={"seed": 2017},
            threads=1,
            gpus=0,
            code=(__file__,),
            **{key: str(folder / name) for key, name in names.items()},
        )

    return in_folder


def start(job):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["regnet.learning.training"])
    process = processes.Process(target=job.run)
    process.start()
    return process


def newest(job):
    """The number of the newest checkpoint, 0 if there is none."""
    return max((int(path.stem) for path in Path(job.checkpoints).glob("[0-9]*.checkpoint")), default=0)


def kill_after(job, number):
    """Start a training, and kill it at a random moment after checkpoint `number` exists."""
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(job):
    """With frozen normalization: otherwise each CPU process has the batch statistics of its own share (GPUs share them).

    Both optimizers are at work, Muon in the warm-up and Adam after it, and all losses and validation errors agree too.
    """
    slow = {"freeze_after": 0, "learning_rate": 1e-4}
    settings = {"precision": "float32", "optimizer": "adam", "epochs": 1, "steps_per_epoch": 2, **slow}
    settings["warmup"] = {**WARMUP, **slow, "steps": 2}
    one, two = job("one", **settings), job("two", **settings)
    one.run()
    two.run(processes=2)
    torch.manual_seed(one.seed)
    start, *ends = (
        parameters_to_vector(network.parameters()).detach()
        for network in (RegNet(one.variant), *(load_network(each.last)[0] for each in (one, two)))
    )
    # Adam makes a full step of a gradient that is only rounding: compare all weights together.
    assert (ends[1] - ends[0]).norm() < 0.1 * (ends[0] - start).norm()
    curves = [read_table(each.curves, CURVES) for each in (one, two)]
    assert all(curves[0][name].dtype == float for name in CURVES if name not in COUNTED)
    assert curves[0]["validation_mae"].isna().tolist() == [True, False]
    columns = [name for name in curves[0] if name not in ("stage", "seconds")]
    np.testing.assert_allclose(curves[1][columns], curves[0][columns], rtol=1e-3)


@pytest.fixture
def pyramid_job(tmp_path):
    """The same for a training of the feature pyramid, on a small volume."""
    rng = np.random.default_rng(0)
    lungs = np.zeros((70, 66, 68), np.uint8)
    lungs[20:50, 20:50, 20:50] = 1
    volume = {"hu": rng.integers(-1000, 0, lungs.shape, np.int16), "lungs": lungs, "spacing": 2.0}
    np.savez(tmp_path / "volume.npz", **volume)
    settings = {"batch": 2, "epochs": 2, "steps_per_epoch": 2, "optimizer": "muon", "learning_rate": 1e-3, "rise": 1}
    settings |= {"appearance": None, "sliding": 0.0, "precision": "float32", "checkpoint_minutes": 1e-9}

    def in_folder(name, **changes):
        folder = tmp_path / name
        names = {"checkpoints": "checkpoints", "events": "events", "curves": "training.csv"}
        names |= {"best": "model.safetensors", "last": "last.safetensors"}
        return PyramidJob(
            training=(str(tmp_path / "volume.npz"),),
            validation=(str(tmp_path / "volume.npz"),),
            settings={**settings, **changes},
            window=(-1000, 400),
            seed=1,
            facts={"seed": 2017},
            threads=1,
            gpus=0,
            code=(__file__,),
            **{key: str(folder / name) for key, name in names.items()},
        )

    return in_folder


@pytest.mark.slow
def test_a_killed_training_of_the_pyramid_ends_with_the_same_bytes(pyramid_job):
    killed = pyramid_job("killed")
    kill_after(killed, 1)
    assert run(killed) == run(pyramid_job("undisturbed"))


@pytest.mark.slow
def test_two_processes_train_the_pyramid(pyramid_job):
    """Each weighs the lungs of its own crops, so that two do not take the very steps of one."""
    one, two = (pyramid_job(name, epochs=1) for name in ("one", "two"))
    one.run()
    two.run(processes=2)
    curves = [read_table(each.curves, CURVES) for each in (one, two)]
    assert curves[1]["patches"].tolist() == curves[0]["patches"].tolist()
    np.testing.assert_allclose(curves[1]["loss"], curves[0]["loss"], rtol=0.3)
    np.testing.assert_allclose(curves[1]["validation_mae"], curves[0]["validation_mae"], rtol=0.3)
    weights = [parameters_to_vector(load_network(each.last)[0].parameters()).detach() for each in (one, two)]
    assert 0 < (weights[1] - weights[0]).norm() < 0.1 * weights[0].norm()


@pytest.mark.slow
def test_a_training_of_the_pyramid_goes_on_from_given_weights(pyramid_job):
    """It counts what those have seen, and its crops are as hard as they get."""
    first = pyramid_job("first", epochs=1)
    first.run()
    second = dataclasses.replace(pyramid_job("second", epochs=1, learning_rate=1e-9), start=first.best)
    second.run()
    before, after = (load_network(each.best) for each in (first, second))
    assert after[1]["blocks_seen"] == 2 * before[1]["blocks_seen"] == 8
    weights = [parameters_to_vector(network.parameters()).detach() for network, _ in (before, after)]
    torch.testing.assert_close(weights[1], weights[0], atol=1e-5, rtol=0)


def test_a_batch_of_the_pyramid_that_cannot_be_shared_is_refused(pyramid_job):
    with pytest.raises(ConfigError, match=r"pyramid\.batch: found 3, expected a multiple of the number of GPUs, 2"):
        pyramid_job("three", batch=3).run(processes=2)


def test_a_batch_that_cannot_be_shared_is_refused(job):
    with pytest.raises(ConfigError, match=r"training\.batch: found 3, expected a multiple of the number of GPUs, 2"):
        job("three", batch=3).run(processes=2)


def test_an_empty_table_of_samples_is_refused(job, tmp_path):
    Samples(np.empty((0, 3), np.int32), np.empty((0, 1, 1, 1, 3), np.float32)).save(tmp_path / "empty.npz")
    empty = job("empty")
    files = dataclasses.replace(empty.training, samples=(str(tmp_path / "empty.npz"),))
    with pytest.raises(InputError, match=r"empty\.npz: the table of samples is empty"):
        dataclasses.replace(empty, training=files).run()


def test_other_weights_to_start_from_change_the_fingerprint(job, tmp_path):
    start = tmp_path / "start.safetensors"
    start.write_bytes(b"one")
    finetuning = dataclasses.replace(job("finetune", mode="finetune", weights=str(start)), start=str(start))
    before = finetuning._fingerprint()
    assert before == finetuning._fingerprint()
    start.write_bytes(b"two")
    assert [part for part, digest in finetuning._fingerprint().items() if digest != before[part]] == ["data"]
    assert job("finetune", mode="scratch")._fingerprint()["settings"] != before["settings"]


def test_weights_name_the_settings_they_were_trained_with(job):
    one = job("one", warmup=None, epochs=1)
    one.run()
    assert load_network(one.best)[1]["settings"] == one._fingerprint()["settings"]
    assert job("two", warmup=None, epochs=2)._fingerprint()["settings"] != one._fingerprint()["settings"]
