"""A training as a job of the workflow: the files it reads and writes, its checkpoints, its processes."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regnet.errors import ConfigError
from regnet.learning.checkpoints import Checkpoints, fingerprint
from regnet.learning.devices import pick_device
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.processes import launch, process_count, process_number
from regnet.learning.pyramid_training import read_volume, train_pyramid
from regnet.learning.training import COLUMNS, Trainer, train
from regnet.learning.weight_files import build, save_network
from regnet.synthesis.samples import SamplePool
from regnet.system.files import whole_file

KEPT_OUT_OF_FINGERPRINT = ("variants", "threads", "gpus", "checkpoint_minutes")
"""Keys of the config's ``training`` that change at most the last digits of a result: checkpoints stay valid if they change."""


@dataclass(frozen=True)
class PairFiles:
    """The files of the synthetic pairs of a split, as `SamplePool` takes them."""

    samples: tuple[str, ...]
    fixed: tuple[str, ...]
    moving: tuple[str, ...]


@dataclass(frozen=True)
class TrainingJob:
    """A training as a job of the workflow: what it reads, how it trains, and the files it writes.

    Attributes
    ----------
    variant
        One of `regnet.learning.networks.regnet.VARIANTS`.
    training, validation
        Files of the synthetic pairs.
    settings
        The config's ``training``.
    synthesis
        The config's ``synthesis``.
    spacing
        Working spacing of the network, in mm.
    window
        Lowest and highest HU that the network sees.
    seed
        Determines the initial weights and all that is drawn.
    facts
        Stored with the weights, beside what the training itself adds.
    threads
        CPU threads, of all processes together.
    gpus
        GPUs that the job was granted.
    code
        Source files; if one of them changes, checkpoints are not used.
    checkpoints
        Folder of the checkpoints. It is removed when the training is finished.
    events
        Folder of TensorBoard's event files.
    best, last, curves
        Files that are written: the weights with the smallest validation error, those after the last step, and the curves.
    start
        Weights to start from, as in `train`.
    """

    variant: str
    training: PairFiles
    validation: PairFiles
    settings: Mapping[str, Any]
    synthesis: Mapping[str, Any]
    spacing: float
    window: tuple[float, float]
    seed: int
    facts: Mapping[str, Any]
    threads: int
    gpus: int
    code: tuple[str, ...]
    checkpoints: str
    events: str
    best: str
    last: str
    curves: str
    start: str | None = None

    def run(self, processes: int = 1) -> None:
        """Train, in one process or in several that share the work, and write the files.

        Raises
        ------
        ConfigError
            If the processes cannot share a batch equally.
        RegNetError
            As `train` does, or if another process is still training into the same folder of checkpoints.
        """
        warmup = self.settings["warmup"] or {"batch": processes}
        for key, batch in (("training.batch", self.settings["batch"]), ("training.warmup.batch", warmup["batch"])):
            if batch % processes:
                raise ConfigError(f"{key}: found {batch}, expected a multiple of the number of GPUs, {processes}")
        checkpoints = Checkpoints(self.checkpoints, self._fingerprint(), self.settings["checkpoint_minutes"])
        with checkpoints.locked():
            launch(processes, _train_and_write, self, checkpoints)
            checkpoints.remove()

    def _fingerprint(self) -> dict[str, str]:
        settings = {key: value for key, value in self.settings.items() if key not in KEPT_OUT_OF_FINGERPRINT}
        facts = {"variant": self.variant, "training": settings, "seed": self.seed}
        facts |= {"synthesis": self.synthesis, "spacing": self.spacing, "window": self.window}
        data = [path for files in (self.training, self.validation) for path in (*files.samples, *files.fixed, *files.moving)]
        return fingerprint(facts, [*data, *([self.start] if self.start else [])], self.code)


def _train_and_write(job: TrainingJob, checkpoints: Checkpoints) -> None:
    torch.set_num_threads(max(1, job.threads // process_count()))
    training, validation = (
        SamplePool(files.samples, files.fixed, files.moving, job.window) for files in (job.training, job.validation)
    )
    trainer = train(
        job.variant,
        training,
        validation,
        job.settings,
        job.synthesis,
        spacing=job.spacing,
        seed=job.seed,
        device=pick_device(job.gpus),
        start=job.start,
        checkpoints=checkpoints,
        events=job.events,
    )
    _write(trainer, job, checkpoints)


@dataclass(frozen=True)
class PyramidJob:
    """A training of the feature pyramid as a rule asks for it; attributes as in `TrainingJob`.

    Attributes
    ----------
    training, validation
        Volumes that the rule ``prepare_crops`` wrote.
    settings
        The config's ``pyramid``, with ``precision`` and ``checkpoint_minutes`` of its ``training``.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    settings: Mapping[str, Any]
    window: tuple[float, float]
    seed: int
    facts: Mapping[str, Any]
    threads: int
    gpus: int
    code: tuple[str, ...]
    checkpoints: str
    events: str
    best: str
    last: str
    curves: str
    start: str | None = None
    spacing: None = None

    def run(self, processes: int = 1) -> None:
        """Train, in one process or in several that share the work, and write the files.

        Raises
        ------
        ConfigError
            If the processes cannot share a batch equally.
        RegNetError
            As `train_pyramid` does, or if another process is still training into the same folder of checkpoints.
        """
        if self.settings["batch"] % processes:
            found = self.settings["batch"]
            raise ConfigError(f"pyramid.batch: found {found}, expected a multiple of the number of GPUs, {processes}")
        settings = {key: value for key, value in self.settings.items() if key not in KEPT_OUT_OF_FINGERPRINT}
        facts = {"variant": RegNetPyramid.variant, "pyramid": settings, "seed": self.seed, "window": self.window}
        data = [*self.training, *self.validation, *([self.start] if self.start else [])]
        whole = fingerprint(facts, data, self.code)
        checkpoints = Checkpoints(self.checkpoints, whole, self.settings["checkpoint_minutes"])
        with checkpoints.locked():
            launch(processes, _train_and_write_pyramid, self, checkpoints)
            checkpoints.remove()


def _train_and_write_pyramid(job: PyramidJob, checkpoints: Checkpoints) -> None:
    torch.set_num_threads(max(1, job.threads // process_count()))
    training, validation = ([read_volume(path) for path in paths] for paths in (job.training, job.validation))
    device = pick_device(job.gpus)
    trainer = train_pyramid(
        training,
        validation,
        job.settings,
        window=job.window,
        seed=job.seed,
        device=device,
        start=job.start,
        checkpoints=checkpoints,
        events=job.events,
    )
    _write(trainer, job, checkpoints)


def _write(trainer: Trainer, job: TrainingJob | PyramidJob, checkpoints: Checkpoints) -> None:
    """Write the last and the best weights of a training and its curves, in the first of its processes."""
    if process_number() > 0:
        return
    facts: dict[str, Any] = {"spacing": job.spacing, "window": job.window}
    facts |= {"blocks_seen": trainer.blocks, "patches_seen": trainer.patches}
    facts["settings"] = checkpoints.fingerprint["settings"]
    save_network(trainer.network, job.last, **facts, **job.facts)
    best = build(trainer.network.variant)
    best.load_state_dict(trainer.best_weights)
    save_network(best, job.best, **facts, **job.facts)
    write_curves(trainer.rows, job.curves)


def write_curves(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Write the curves of a training as CSV, with the columns `COLUMNS`."""
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
