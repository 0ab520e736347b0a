"""The training loop: an optional warm-up on textures, then the synthetic pairs (section 2.2.2). Only torch and numpy."""

import copy
import csv
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regnet.devices import has_fast_bfloat16
from regnet.errors import RegNetError
from regnet.files import whole_file
from regnet.network import OUTPUT_STRIDE, RegNet, parameter_count, window_size
from regnet.optimizers import StageOptimizer
from regnet.patches import HU_PER_UNIT, WINDOW_BEFORE, SamplePool
from regnet.textures import random_field, random_texture, warp

log = logging.getLogger(__name__)

COLUMNS = (
    *("stage", "epoch", "step", "blocks", "patches", "seconds", "learning_rate"),
    *("loss", "validation_mae", "validation_zero_field"),
)
"""Columns of the curves. Loss and errors are in mm, summed over x, y and z. Blocks are counted over all stages, and patches as
the outputs in them: a block of k^3 outputs is k^3 overlapping patches."""

PROGRESS_SECONDS = 15
"""How often the log gets a line while a stage runs."""

Batch = tuple[Tensor, Tensor, Tensor]


def pick_device(granted_gpus: int) -> torch.device:
    """CUDA if the job was granted a GPU and one is there, else the CPU; says which in the log."""
    if granted_gpus > 0 and torch.cuda.is_available():
        log.info("device: %s (torch %s)", torch.cuda.get_device_name(), torch.__version__)
        return torch.device("cuda")
    reason = "no GPU was granted" if granted_gpus == 0 else "no CUDA device is there"
    log.info("device: CPU with %d threads, as %s (torch %s)", torch.get_num_threads(), reason, torch.__version__)
    return torch.device("cpu")


def mean_absolute_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over points of ``|dx| + |dy| + |dz|``: the chapter's MAE, for ``(n, 3, k, k, k)``."""
    return (predicted.float() - target).abs().sum(dim=1).mean()


def flip(batch: Batch, axes: tuple[int, ...]) -> Batch:
    """Mirror windows and targets along some of the axes x = 0, y = 1, z = 2; the displacement along them changes sign."""
    if not axes:
        return batch
    dims = [4 - axis for axis in axes]
    sign = torch.ones(3, device=batch[2].device)
    sign[list(axes)] = -1
    fixed, moving, target = (tensor.flip(dims) for tensor in batch)
    return fixed, moving, target * sign.view(1, 3, 1, 1, 1)


def learning_rate(settings: Mapping[str, Any], step: int, steps: int, epoch: int) -> float:
    """The learning rate of one step.

    ``decay``: divided by ``settings["decay"]`` after each epoch [chapter]. ``cosine``: half a cosine from the full rate to a
    fiftieth of it. Both may begin with a linear rise over the first ``settings["rise"]`` steps.
    """
    rate = settings["learning_rate"] * min(1, (step + 1) / max(1, settings["rise"]))
    if settings["schedule"] == "decay":
        return rate / settings["decay"] ** epoch
    return rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def freeze_normalization(network: RegNet) -> None:
    """Let batch normalization use its running statistics from now on, as in inference, until ``network.train()`` is called.

    Blocks of neighbouring outputs are cheap, but few fit a batch, and statistics over few windows of very different anatomy
    are noise: the network learns faster without, once the running statistics have settled.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.eval()


class TexturePairs:
    """An endless supply of blocks from procedural texture pairs, renewed one after the other (docs/training.md).

    Parameters
    ----------
    settings
        The config's ``training.warmup``; lengths in voxels.
    generator
        Source of the random numbers, on the CPU.
    """

    def __init__(self, settings: Mapping[str, Any], generator: torch.Generator) -> None:
        self.settings = settings
        self.generator = generator
        self.drawn = 0
        self.pairs = [self._pair() for _ in range(settings["volumes"])]

    def _pair(self) -> Batch:
        size = self.settings["size"]
        moving = random_texture(size, self.settings["texture_sigma"], self.generator)
        low, high = self.settings["field_sigma"]
        sigma = float(torch.empty(1).uniform_(low, high, generator=self.generator))
        field = random_field(size, sigma, self.settings["maximum"], self.generator)
        return warp(moving, field), moving, field

    def batch(self) -> Batch:
        """The next windows of fixed and moving textures, and the displacements at their outputs."""
        if self.drawn and self.drawn % self.settings["renew_every"] == 0:
            self.pairs[self.drawn // self.settings["renew_every"] % len(self.pairs)] = self._pair()
        self.drawn += 1
        block = self.settings["block"]
        side = window_size(block)
        windows = []
        for _ in range(self.settings["batch"]):
            fixed, moving, field = self.pairs[int(torch.randint(len(self.pairs), (1,), generator=self.generator))]
            first = torch.randint(self.settings["size"] - side + 1, (3,), generator=self.generator).tolist()
            voxels = (0, slice(None), *(slice(start, start + side) for start in first))
            # An output lies between two voxels on each axis: its displacement is the mean of the two.
            pairs = (0, slice(None), *(slice(start + WINDOW_BEFORE, start + side - WINDOW_BEFORE) for start in first))
            target = torch.nn.functional.avg_pool3d(field[pairs], OUTPUT_STRIDE)
            windows.append((fixed[voxels], moving[voxels], target))
        return tuple(torch.stack(tensors) for tensors in zip(*windows, strict=True))


class SyntheticPairs:
    """Blocks from the synthetic pairs of a cohort, each drawn once before any is drawn again, mirrored and with noise.

    Parameters
    ----------
    pool
        The samples.
    settings
        The config's ``training``: ``batch``, ``flips`` and ``noise_sd`` (HU) are used.
    rng
        Source of the random numbers.
    """

    def __init__(self, pool: SamplePool, settings: Mapping[str, Any], rng: np.random.Generator) -> None:
        self.pool = pool
        self.settings = settings
        self.rng = rng
        self.order = np.empty(0, int)

    def batch(self) -> Batch:
        """The next windows of fixed and moving images, and the displacements at their outputs."""
        count = self.settings["batch"]
        while len(self.order) < count:
            self.order = np.concatenate([self.order, self.rng.permutation(len(self.pool))])
        chosen, self.order = self.order[:count], self.order[count:]
        fixed, moving, target = (torch.from_numpy(array) for array in self.pool.cut(chosen))
        noise = self.settings["noise_sd"] / HU_PER_UNIT
        for window in (fixed, moving):
            window += noise * torch.from_numpy(self.rng.standard_normal(window.shape, np.float32))
        if not self.settings["flips"]:
            return fixed, moving, target
        return flip((fixed, moving, target), tuple(np.flatnonzero(self.rng.integers(0, 2, 3)).tolist()))


@dataclass
class Trainer:
    """One network in training: its optimizer, its curves and the best weights so far.

    Attributes
    ----------
    network
        The network that is trained, on its device.
    spacing
        Working spacing of the network in mm: outputs are in voxels, curves in mm.
    device
        Where the network is.
    bfloat16
        Whether convolutions run in bfloat16.
    rows
        The curves so far, one row per epoch, with the columns `COLUMNS`.
    best
        The smallest validation error in mm, and the weights that had it.
    blocks, patches
        How many the network has seen, over all stages.
    started
        When the training began, in seconds of a monotonic clock.
    """

    network: RegNet
    device: torch.device
    spacing: float
    bfloat16: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, dict[str, Tensor]] | None = None
    blocks: int = 0
    patches: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """The weights with the smallest validation error."""
        return self.best[1]

    def predict(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """Apply the network in its working precision."""
        layout = {"device": self.device, "memory_format": torch.channels_last_3d}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.network(fixed.to(**layout), moving.to(**layout))

    def run_stage(
        self,
        stage: str,
        next_batch: Callable[[], Batch],
        settings: Mapping[str, Any],
        epochs: int,
        steps_per_epoch: int,
        validate: Callable[[], tuple[float, float]] | None,
    ) -> None:
        """Train for some epochs with a fresh optimizer; validate after each.

        Raises
        ------
        RegNetError
            If the loss or the validation error is not finite.
        """
        optimizer = StageOptimizer(self.network, settings["optimizer"])
        steps, step, reported = epochs * steps_per_epoch, 0, time.monotonic()
        begun, blocks_before = time.monotonic(), self.blocks
        for epoch in range(epochs):
            self.network.train()
            losses = []
            for _ in range(steps_per_epoch):
                if settings["freeze_after"] is not None and step >= settings["freeze_after"]:
                    freeze_normalization(self.network)
                rate = learning_rate(settings, step, steps, epoch)
                optimizer.set_learning_rate(rate)
                fixed, moving, target = next_batch()
                loss = mean_absolute_error(self.predict(fixed, moving), target.to(self.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                step += 1
                self.blocks += len(fixed)
                self.patches += target[:, 0].numel()
                if time.monotonic() - reported > PROGRESS_SECONDS:
                    reported = time.monotonic()
                    elapsed = reported - begun
                    log.info(
                        "%s step %d / %d, loss %.2f mm, %.0f blocks/s, %.0f s left",
                        stage,
                        step,
                        steps,
                        float(torch.stack(losses[-20:]).mean()) * self.spacing,
                        (self.blocks - blocks_before) / elapsed,
                        elapsed / step * (steps - step),
                    )
            mean_loss = float(torch.stack(losses).mean()) * self.spacing
            if not math.isfinite(mean_loss):
                raise RegNetError(f"{stage}, epoch {epoch + 1}: the loss is {mean_loss}, expected a finite number of mm")
            error, zero_field = validate() if validate else (math.nan, math.nan)
            if validate and not math.isfinite(error):
                raise RegNetError(f"{stage}, epoch {epoch + 1}: the validation MAE is {error}, expected a finite number of mm")
            self._keep(stage, epoch + 1, step, rate, mean_loss, error, zero_field)

    def validate(self, pool: SamplePool, batch: int) -> tuple[float, float]:
        """The MAE of the network and that of a field of zeros over all samples of a pool, in mm."""
        self.network.eval()
        total = torch.zeros(2)
        with torch.inference_mode():
            for chosen in np.array_split(np.arange(len(pool)), -(-len(pool) // batch)):
                fixed, moving, target = (torch.from_numpy(array) for array in pool.cut(chosen))
                predicted = self.predict(fixed, moving).cpu()
                errors = [mean_absolute_error(field, target) for field in (predicted, torch.zeros_like(target))]
                total += len(chosen) * torch.stack(errors)
        error, zero_field = (self.spacing * total / len(pool)).tolist()
        return error, zero_field

    def _keep(self, stage: str, epoch: int, step: int, rate: float, loss: float, error: float, zero_field: float) -> None:
        seconds = time.monotonic() - self.started
        values = (stage, epoch, step, self.blocks, self.patches, round(seconds, 1), rate, loss, error, zero_field)
        self.rows.append(dict(zip(COLUMNS, values, strict=True)))
        log.info(
            "%s epoch %d: loss %.3f mm, validation MAE %.3f mm (zero field %.3f mm)", stage, epoch, loss, error, zero_field
        )
        if math.isfinite(error) and (self.best is None or error < self.best[0]):
            self.best = error, copy.deepcopy(self.network.state_dict())


def train(
    variant: str,
    training: SamplePool,
    validation: SamplePool,
    settings: Mapping[str, Any],
    *,
    spacing: float,
    seed: int,
    device: torch.device,
) -> Trainer:
    """Train one variant from scratch.

    Parameters
    ----------
    variant
        One of `regnet.network.VARIANTS`.
    training, validation
        Samples of the synthetic pairs of the training and of the validation images.
    settings
        The config's ``training``.
    spacing
        Working spacing of the network, in mm.
    seed
        Fixes the initial weights and everything that is drawn.
    device
        Where to train.

    Returns
    -------
    Trainer
        With the last weights in ``network`` and the best ones in ``best``.

    Raises
    ------
    RegNetError
        If the loss is not finite.
    """
    torch.manual_seed(seed)
    network = RegNet(variant).to(device, memory_format=torch.channels_last_3d)
    bfloat16 = settings["precision"] == "bfloat16" or (settings["precision"] == "auto" and has_fast_bfloat16(device))
    trainer = Trainer(network, device, spacing, bfloat16)
    log.info("%s: %d parameters, %s", variant, parameter_count(network), "bfloat16" if bfloat16 else "float32")
    log.info("%d training and %d validation blocks", len(training), len(validation))

    warmup = settings["warmup"]
    if warmup:
        textures = TexturePairs(warmup, torch.Generator().manual_seed(seed))
        trainer.run_stage("warmup", textures.batch, warmup, 1, warmup["steps"], None)
    pairs = SyntheticPairs(training, settings, np.random.default_rng(seed))
    steps = settings["steps_per_epoch"] or -(-len(training) // settings["batch"])

    def validate() -> tuple[float, float]:
        return trainer.validate(validation, settings["batch"])

    trainer.run_stage("training", pairs.batch, settings, settings["epochs"], steps, validate)
    return trainer


def write_curves(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Write the curves of a training as CSV, with the columns `COLUMNS`."""
    with whole_file(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
