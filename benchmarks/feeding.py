"""Batches for the network: a Python loop over patches, as in version 0.1.0, and ours, beside the training step that uses them.

The cohort has the chapter's size: 120 synthetic pairs of 350 x 250 x 320 voxels on 40 moving images, 252,000 patches. Its
volumes are empty (sparse files): feeding takes as long as with full ones that are in the system's file cache.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from regnet.learning.batches import Feed, SyntheticPairs, flip
from regnet.learning.devices import has_fast_bfloat16
from regnet.learning.networks.regnet import RegNet
from regnet.learning.training import Trainer
from regnet.synthesis.samples import HU_PER_UNIT, SamplePool, Samples

SHAPE = (320, 250, 350)
PAIRS, PAIRS_PER_MOVING, PER_PAIR = 120, 3, 2100
WINDOW = (-1000, 400)
BATCH = 256
BATCHES = 4
STEP_BATCH = 64
SETTINGS = {"batch": BATCH, "flips": True, "noise_sd": 5}


def make_cohort(folder: Path) -> None:
    """Write the volumes and the samples; some windows reach a little beyond the volume."""
    rng = np.random.default_rng(0)
    for number in range(PAIRS):
        lower, upper = 22, np.array(SHAPE[::-1]) - 22
        centres = rng.integers(lower, upper, (PER_PAIR, 3)).astype(np.int32)
        Samples(centres, rng.uniform(-8, 8, (PER_PAIR, 1, 1, 1, 3)).astype(np.float32)).save(folder / f"{number}.npz")
    for number in range(PAIRS + PAIRS // PAIRS_PER_MOVING):
        np.lib.format.open_memmap(folder / f"{number}.npy", mode="w+", dtype=np.int16, shape=SHAPE)


def open_cohort(folder: Path) -> SamplePool:
    """The pool of all pairs: volumes 0 ... 119 are fixed images, the others moving ones."""
    fixed = [folder / f"{number}.npy" for number in range(PAIRS)]
    moving = [folder / f"{PAIRS + number // PAIRS_PER_MOVING}.npy" for number in range(PAIRS)]
    return SamplePool([folder / f"{number}.npz" for number in range(PAIRS)], fixed, moving, WINDOW)


def loop_over_patches(folder: Path, threads: int) -> float:
    """Cut patch after patch, normalize, draw noise for each voxel, mirror, as version 0.1.0 did."""
    torch.set_num_threads(threads)
    pool, rng = open_cohort(folder), np.random.default_rng(0)
    volumes = [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(len(pool.volumes))]
    order = rng.permutation(len(pool))

    def windows(numbers: np.ndarray, centres: np.ndarray) -> Tensor:
        cut = np.empty((len(numbers), 1, 54, 54, 54), np.int16)
        for window, number, centre in zip(cut, numbers, centres, strict=True):
            first = centre[::-1] - 27
            index = [np.clip(start + np.arange(54), 0, size - 1) for start, size in zip(first, SHAPE, strict=True)]
            window[0] = volumes[number][np.ix_(*index)]
        normalized = (np.clip(cut, *WINDOW).astype(np.float32) - WINDOW[0]) / HU_PER_UNIT
        return torch.from_numpy(normalized) + 5 / HU_PER_UNIT * torch.from_numpy(rng.standard_normal(cut.shape, np.float32))

    def batch(number: int) -> None:
        chosen = order[BATCH * number : BATCH * (number + 1)]
        pairs, centres = pool.pair[chosen], pool.centres[chosen]
        targets = torch.from_numpy(pool.displacements[chosen]).movedim(-1, 1)
        fixed, moving = windows(pool.fixed[pairs], centres), windows(pool.moving[pairs], centres)
        flip((fixed, moving, targets), tuple(np.flatnonzero(rng.integers(0, 2, 3)).tolist()))

    return _seconds_per_patch(batch)


def feeding(folder: Path, threads: int) -> float:
    """The same with `SyntheticPairs`, as in training."""
    torch.set_num_threads(threads)
    pairs = SyntheticPairs(Feed(open_cohort(folder)), SETTINGS, np.random.default_rng(0))
    return _seconds_per_patch(lambda _: pairs.batch())


def _seconds_per_patch(batch: Callable[[int], object]) -> float:
    def batches() -> None:
        for number in range(1, BATCHES + 1):
            batch(number)

    batch(0)
    return harness.timed(batches) / (BATCHES * BATCH)


def training_step(folder: Path, threads: int) -> float:
    """Forward and backward pass on a batch already in memory; batches of 64, as in `config/chapter.yaml`."""
    return _steps(folder, threads, fed=False)


def training_step_fed(folder: Path, threads: int) -> float:
    """The same, with feeding of each batch, as in a real training."""
    return _steps(folder, threads, fed=True)


def _steps(folder: Path, threads: int, fed: bool) -> float:
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = RegNet("regnet").to(device, memory_format=torch.channels_last_3d)
    trainer = Trainer(network, device, 1.0, bfloat16=has_fast_bfloat16(device))
    feed = Feed(open_cohort(folder), device)
    pairs = SyntheticPairs(feed, {**SETTINGS, "batch": STEP_BATCH}, np.random.default_rng(0))
    ready = pairs.batch()

    def steps(count: int) -> None:
        for _ in range(count):
            fixed, moving, target = pairs.batch() if fed else ready
            network.zero_grad()
            (trainer.predict(fixed, moving) - target).abs().sum(dim=1).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    steps(1)
    count = 100 if device.type == "cuda" else 3
    return harness.timed(lambda: steps(count)) / (count * STEP_BATCH)


def main() -> None:
    """Compare, and write ``results/benchmarks/feeding.csv``; seconds are those of one patch."""
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_cohort(folder)
        functions = {
            "loop over patches": loop_over_patches,
            "feeding": feeding,
            "training step": training_step,
            "training step, fed": training_step_fed,
        }
        table = harness.compare({way: partial(function, folder, threads) for way, function in functions.items()}, repeats=3)
    per_second = pd.Series(1 / table["seconds"], name="patches_per_second")
    harness.save("feeding", table.assign(patches_per_second=per_second))


if __name__ == "__main__":
    main()
