"""The training loop: an optional warm-up on textures, then the synthetic pairs (section 2.2.2)."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regnet.conventions import AXES
from regnet.errors import InputError, RegNetError
from regnet.learning.batches import BatchSource, Feed, Prefetch, SyntheticPairs
from regnet.learning.checkpoints import Checkpoints
from regnet.learning.devices import trains_in_bfloat16
from regnet.learning.fresh_pairs import FreshPairs
from regnet.learning.monitoring import EventFiles, Progress
from regnet.learning.networks.interface import parameter_count
from regnet.learning.networks.regnet import RegNet
from regnet.learning.optimizers import StageOptimizer
from regnet.learning.processes import parallel, process_count, process_number, share, share_buffers, summed
from regnet.learning.textures import TEXTURES, TexturePairs
from regnet.learning.weight_files import load_network
from regnet.synthesis.samples import SamplePool

log = logging.getLogger(__name__)

COLUMNS = (
    *("stage", "epoch", "step", "blocks", "patches", "seconds", "learning_rate"),
    *(f"{error}{axis}" for error in ("loss", "validation_mae", "validation_zero_field") for axis in ("", "_x", "_y", "_z")),
)
"""Columns of the curves. Loss and errors are in mm, summed over x, y and z, and for each axis. Blocks are counted over all
stages, including those that the weights to start from had seen. Patches are the outputs in them: a block of k^3 outputs is k^3
overlapping patches."""

# The warm-up is a single epoch, and the rate decays only after one: it stays constant.
WARMUP = {"optimizer": "muon", "learning_rate": 0.003, "schedule": "decay", "decay": 1.25, "rise": 30, "freeze_after": None}
"""How the warm-up trains, in the keys of the config's ``training``."""


def mean_absolute_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """Means over points of ``|dx|``, ``|dy|`` and ``|dz|``, for ``(n, 3, k, k, k)``; their sum is the chapter's MAE."""
    return (predicted.float() - target).abs().mean(dim=(0, 2, 3, 4))


def mean_absolute_loss(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The chapter's loss, and its parts along x, y and z, in voxels."""
    errors = mean_absolute_errors(predicted, target)
    return errors.sum(), errors


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
    are noise: once the running statistics have settled, the network learns faster with these. The layers at low resolution keep
    the statistics of their batch. They are the longest path from the images to the joint layers: without normalization, the
    steps of the optimizer add up there and drive feature after feature below 0, where no gradient reaches it any more.
    """
    for module in (*network.original.modules(), *network.joint.modules()):
        if isinstance(module, nn.BatchNorm3d | nn.SyncBatchNorm):
            module.eval()


@dataclass
class Trainer:
    """One network in training: its optimizer, its curves and the best weights so far.

    Attributes
    ----------
    network
        The network that is trained, on its device.
    device
        Where the network is.
    spacing
        Working spacing of the network in mm: outputs are in voxels, curves in mm.
    bfloat16
        Whether convolutions run in bfloat16.
    checkpoints
        Where the state is written every few minutes; None for nowhere.
    events
        The curves for TensorBoard; None for none.
    objective
        Takes the outputs and what a batch holds besides the images. Returns the loss that is minimized, and the errors along x,
        y and z that the curves show.
    rows
        The curves so far, one row per epoch, with the columns `COLUMNS`.
    best
        The smallest validation error in mm, and the weights that had it, on the CPU.
    blocks, patches
        How many the network has seen: over all stages and processes, and before this training.
    finished
        Names of the stages that are done.
    interrupted
        State of the stage in which the checkpoint was written, until that stage continues.
    started
        When the training began, in seconds of a monotonic clock; after an interruption, as if there had been none.
    """

    network: nn.Module
    device: torch.device
    spacing: float
    bfloat16: bool
    checkpoints: Checkpoints | None = None
    events: EventFiles | None = None
    objective: Callable[..., tuple[Tensor, Tensor]] = mean_absolute_loss
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, dict[str, Tensor]] = (math.inf, {})
    blocks: int = 0
    patches: int = 0
    finished: list[str] = field(default_factory=list)
    interrupted: dict[str, Any] | None = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._called = parallel(self.network, self.device)

    @property
    def best_weights(self) -> dict[str, Tensor]:
        """The weights with the smallest validation error."""
        return self.best[1]

    def predict(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """Apply the network in its working precision."""
        return self._apply(self.network, fixed, moving)

    def _apply(self, network: nn.Module, fixed: Tensor, moving: Tensor) -> Tensor:
        layout: dict[str, Any] = {"device": self.device, "memory_format": self.network.memory_format}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            return network(fixed.to(**layout), moving.to(**layout))

    def run_stage(
        self,
        stage: str,
        source: BatchSource,
        settings: Mapping[str, Any],
        epochs: int,
        steps_per_epoch: int,
        validate: Callable[[], tuple[Tensor, Tensor]] | None,
    ) -> None:
        """Train for some epochs with a new optimizer, or continue where this stage was interrupted; validate after each.

        With several processes, each takes its share of every batch, and gradients and errors are averaged over them.

        Parameters
        ----------
        stage
            Name of the stage.
        source
            Where the batches come from, the same in all processes.
        settings
            The config's ``training`` or ``training.warmup``.
        epochs, steps_per_epoch
            Length of the stage.
        validate
            Returns the errors of the network and of a field of zeros, as `Trainer.validate` does; None for no validation.

        Raises
        ------
        RegNetError
            If the loss or the validation error is not finite.
        """
        optimizer = StageOptimizer(self.network, settings["optimizer"])
        steps, first = epochs * steps_per_epoch, 0
        losses: list[Tensor] = []
        if self.interrupted:
            first, losses = self._resume(self.interrupted, optimizer, source)
        progress = Progress(stage, first, steps, self.patches)
        for step in range(first, steps):
            epoch = step // steps_per_epoch
            self.network.train()
            if settings["freeze_after"] is not None and step >= settings["freeze_after"]:
                freeze_normalization(self.network)
            rate = learning_rate(settings, step, steps, epoch)
            optimizer.set_learning_rate(rate)
            batch = source.batch()
            fixed, moving, *truth = (tensor[share()].to(self.device) for tensor in batch)
            loss, errors = self.objective(self._apply(self._called, fixed, moving), *truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(summed(errors.detach() / process_count()))
            self.blocks += len(batch[0])
            self.patches += batch[2][:, 0].numel()
            done = step + 1
            if progress.due():
                loss = float(self._mean_loss(stage, done, losses[-20:]).sum())
                progress.log(done, self.patches, loss, self.rows[-1]["validation_mae"] if self.rows else math.nan)
                if self.events:
                    self.events.add(stage, self.patches, {"loss_of_20_steps": loss})
            if done % steps_per_epoch == 0:
                loss, losses = self._mean_loss(stage, done, losses), []
                share_buffers(self.network)
                self._end_epoch(stage, epoch + 1, done, rate, loss, validate)
            if self.checkpoints and process_number() == 0 and (not losses or self.checkpoints.due()):
                self.checkpoints.save(self._state(stage, done, losses, optimizer, source))
        self.finished.append(stage)

    def validate(self, feed: Feed, batch: int) -> tuple[Tensor, Tensor]:
        """The mean errors of the network, and those of a field of zeros, over all samples: each x, y, z in mm."""
        self.network.eval()
        total = torch.zeros(2, 3, dtype=torch.float64)
        batches = np.array_split(np.arange(len(feed)), -(-len(feed) // batch))
        with torch.inference_mode():
            for chosen in batches[share()]:
                fixed, moving, target = feed.cut(chosen)
                predicted = self.predict(fixed, moving)
                errors = [mean_absolute_errors(field, target) for field in (predicted, torch.zeros_like(target))]
                total += len(chosen) * torch.stack(errors).cpu()
        error, zero_field = self.spacing * summed(total.to(self.device)).cpu() / len(feed)
        return error, zero_field

    def log_responding_features(self, feed: Feed, batch: int) -> None:
        """Log how many features of each resolution respond to some samples; warn if fewer than half do.

        Parameters
        ----------
        feed
            The samples.
        batch
            How many of them are used.
        """
        self.network.eval()
        fixed, moving, _ = feed.cut(np.arange(min(batch, len(feed))))
        with torch.inference_mode():
            counts = self.network.responding_features(fixed.to(self.device), moving.to(self.device))
        for resolution, (responding, features) in counts.items():
            log.info("%s resolution: %d of %d features respond", resolution, responding, features)
            if 2 * responding < features:
                log.warning("few features respond at %s resolution (docs/training.md#normalization-that-settles)", resolution)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; its stage continues when `run_stage` is called for it.

        Raises
        ------
        InputError
            If the checkpoint is of another variant.
        """
        if state["variant"] != self.network.variant:
            raise InputError(f"checkpoint: found weights of {state['variant']}, expected {self.network.variant}")
        self.network.load_state_dict(state["network"])
        self.best = state["best"]
        self.rows = state["rows"]
        self.blocks, self.patches = state["blocks"], state["patches"]
        self.finished = state["finished"]
        self.interrupted = state["stage"]
        self.started = time.monotonic() - state["seconds"]
        torch.set_rng_state(state["random"])

    def _state(
        self, stage: str, step: int, losses: Sequence[Tensor], optimizer: StageOptimizer, source: BatchSource
    ) -> dict[str, Any]:
        """All that `load_state_dict` and `_go_on` need to go on from here."""
        if losses:
            self._mean_loss(stage, step, losses)
        running = {"name": stage, "step": step, "optimizer": optimizer.state_dict(), "source": source.state_dict()}
        running["losses"] = torch.stack(list(losses)) if losses else torch.empty(0, len(AXES))
        return {
            "variant": self.network.variant,
            "network": self.network.state_dict(),
            "best": self.best,
            "rows": self.rows,
            "blocks": self.blocks,
            "patches": self.patches,
            "finished": self.finished,
            "stage": running,
            "seconds": time.monotonic() - self.started,
            "random": torch.get_rng_state(),
        }

    def _resume(self, state: Mapping[str, Any], optimizer: StageOptimizer, source: BatchSource) -> tuple[int, list[Tensor]]:
        """Restore the interrupted stage; returns the number of steps done, and the losses of the current epoch."""
        self.interrupted = None
        optimizer.load_state_dict(state["optimizer"])
        source.load_state_dict(state["source"])
        log.info("%s continues after step %d", state["name"], state["step"])
        return state["step"], list(state["losses"].to(self.device))

    def _mean_loss(self, stage: str, step: int, losses: Sequence[Tensor]) -> Tensor:
        """The mean loss of some steps along x, y and z, in mm."""
        mean = self.spacing * torch.stack(list(losses)).mean(dim=0).cpu()
        if not mean.isfinite().all():
            raise RegNetError(
                f"{stage}, step {step}: the loss is {float(mean.sum())}, expected a finite number of mm; "
                "a smaller learning_rate, a longer rise or precision float32 may help"
            )
        return mean

    def _end_epoch(
        self,
        stage: str,
        epoch: int,
        step: int,
        rate: float,
        loss: Tensor,
        validate: Callable[[], tuple[Tensor, Tensor]] | None,
    ) -> None:
        """End an epoch: validate, add a row to the curves, and keep the weights if they are the best."""
        unknown = torch.full((len(AXES),), math.nan)
        error, zero_field = validate() if validate else (unknown, unknown)
        total = float(error.sum())
        if validate and not math.isfinite(total):
            raise RegNetError(f"{stage}, epoch {epoch}: the validation MAE is {total}, expected a finite number of mm")
        errors = [value for axes in (loss, error, zero_field) for value in (float(axes.sum()), *axes.tolist())]
        seconds = round(time.monotonic() - self.started, 1)
        values = (stage, epoch, step, self.blocks, self.patches, seconds, rate, *errors)
        row = dict(zip(COLUMNS, values, strict=True))
        self.rows.append(row)
        shown = {"loss": loss, "validation MAE": error, "zero field": zero_field} if validate else {"loss": loss}
        log.info("%s epoch %d: %s", stage, epoch, "; ".join(f"{name} {_in_mm(axes)}" for name, axes in shown.items()))
        if self.events:
            first = COLUMNS.index("learning_rate")
            curves = {name: row[name] for name in COLUMNS[first:] if math.isfinite(row[name])}
            self.events.add(stage, self.patches, curves)
        if validate and total < self.best[0]:
            weights = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
            self.best = total, weights


def _in_mm(errors: Tensor) -> str:
    """Errors along x, y and z, for the log."""
    axes = ", ".join(f"{axis} {error:.2f}" for axis, error in zip(AXES, errors.tolist(), strict=True))
    return f"{float(errors.sum()):.3f} mm ({axes})"


def train(
    variant: str,
    training: SamplePool,
    validation: SamplePool,
    settings: Mapping[str, Any],
    synthesis: Mapping[str, Any],
    *,
    spacing: float,
    seed: int,
    device: torch.device,
    start: str | Path | None = None,
    checkpoints: Checkpoints | None = None,
    events: str | Path | None = None,
) -> Trainer:
    """Train one variant from scratch, from the weights of an earlier training, or from a checkpoint.

    Parameters
    ----------
    variant
        One of `regnet.learning.networks.regnet.VARIANTS`.
    training, validation
        Samples of the synthetic pairs of the training and of the validation images.
    settings
        The config's ``training``.
    synthesis
        The config's ``synthesis``, for pairs that are made during training.
    spacing
        Working spacing of the network, in mm.
    seed
        Determines the initial weights and all that is drawn.
    device
        Where to train.
    start
        Weights to start from, of the same variant, for ``training.mode: finetune``; None to start from random ones.
    checkpoints
        Where the state is written after each epoch and every few minutes; None for nowhere.
    events
        Folder for TensorBoard's event files; None for none.

    Returns
    -------
    Trainer
        With the last weights in ``network`` and the best ones in ``best``.

    Raises
    ------
    InputError
        If the weights to start from cannot be read, or are of another variant.
    RegNetError
        If the loss is not finite.
    """
    torch.manual_seed(seed)
    network = RegNet(variant)
    facts: dict[str, Any] = {}
    if start:
        network, facts = load_network(start, variant=variant)
        log.info("starting from %s, trained at %g mm", start, facts["spacing"])
    network = network.to(device, memory_format=torch.channels_last_3d)
    bfloat16 = trains_in_bfloat16(settings["precision"], device)
    log.info("%s: %d parameters, %s", variant, parameter_count(network), "bfloat16" if bfloat16 else "float32")
    log.info("%d training and %d validation blocks", len(training), len(validation))
    state = checkpoints.load() if checkpoints else None
    trainer = Trainer(network, device, spacing, bfloat16, checkpoints)
    trainer.blocks, trainer.patches = facts.get("blocks_seen", 0), facts.get("patches_seen", 0)
    if state:
        trainer.load_state_dict(state)
    if events and process_number() == 0:
        trainer.events = EventFiles(events, trainer.patches)

    if settings["warmup"] and "warmup" not in trainer.finished:
        warmup = {**WARMUP, **TEXTURES, **settings["warmup"]}
        textures = TexturePairs(warmup, torch.Generator().manual_seed(seed))
        trainer.run_stage("warmup", textures, warmup, 1, warmup["steps"], None)
    steps = settings["steps_per_epoch"] or -(-len(training) // settings["batch"])
    if settings["fresh"]:
        options = {"spacing": spacing, "steps_per_epoch": steps, "seed": seed, "device": device}
        pairs: BatchSource = FreshPairs(training, settings, synthesis, **options)
    else:
        feed = Feed(training, device)
        pairs = SyntheticPairs(feed, settings, np.random.default_rng(seed))
        if feed.reads_files:
            pairs = Prefetch(pairs)
    validation_feed = Feed(validation, device)

    def validate() -> tuple[Tensor, Tensor]:
        return trainer.validate(validation_feed, settings["batch"])

    trainer.run_stage("training", pairs, settings, settings["epochs"], steps, validate)
    trainer.log_responding_features(validation_feed, settings["batch"])
    if trainer.events:
        trainer.events.close()
    return trainer
