"""A training as a job of the workflow: the files it reads and writes, its checkpoints, its processes."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regnet.conventions import job_seed
from regnet.errors import ConfigError
from regnet.learning.checkpoints import Checkpoints, fingerprint
from regnet.learning.devices import device_name, pick_device
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.processes import launch, process_count, process_number
from regnet.learning.pyramid_training import read_volume, train_pyramid
from regnet.learning.training import COLUMNS, Trainer, train
from regnet.learning.weight_files import build, load_network, save_network
from regnet.synthesis.samples import SamplePool
from regnet.system.files import whole_file, write_json
from regnet.system.machine import write_machine

KEPT_OUT_OF_FINGERPRINT = ("variants", "threads", "gpus", "checkpoint_minutes")
"""Keys of the config's ``training`` that change at most the last digits of a result: checkpoints stay valid if they change."""


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """A training as a job of the workflow: what it reads, how it trains, and the files it writes.

    Attributes
    ----------
    settings
        How to train, by the keys of the config.
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
        Weights to start from; None for random ones.
    spacing
        Working spacing of the network, in mm; None for one that works at any.
    """

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
    spacing: float | None = None

    def run(self, processes: int = 1) -> None:
        """Train, in one process or in several that share the work, and write the files.

        Raises
        ------
        ConfigError
            If the processes cannot share a batch equally.
        RegNetError
            As the training does, or if another process is still training into the same folder of checkpoints.
        """
        for key, batch in self._batches(processes).items():
            if batch % processes:
                raise ConfigError(f"{key}: found {batch}, expected a multiple of the number of GPUs, {processes}")
        checkpoints = Checkpoints(self.checkpoints, self._fingerprint(), self.settings["checkpoint_minutes"])
        with checkpoints.locked():
            launch(processes, _train_and_write, self, checkpoints)
            checkpoints.remove()

    def _fingerprint(self) -> dict[str, str]:
        return fingerprint(self._determining(), [*self._data(), *([self.start] if self.start else [])], self.code)

    @property
    def _own_settings(self) -> dict[str, Any]:
        return {key: value for key, value in self.settings.items() if key not in KEPT_OUT_OF_FINGERPRINT}

    @abstractmethod
    def _batches(self, processes: int) -> dict[str, int]:
        """The sizes of the batches by the keys of the config that give them."""

    @abstractmethod
    def _determining(self) -> dict[str, Any]:
        """The settings that determine the result."""

    @abstractmethod
    def _data(self) -> list[str]:
        """The files with the data."""

    @abstractmethod
    def train(self, checkpoints: Checkpoints) -> Trainer:
        """Train in this process, alone or beside others."""


@dataclass(frozen=True)
class PairFiles:
    """The files of the synthetic pairs of a split, as `SamplePool` takes them."""

    samples: tuple[str, ...]
    fixed: tuple[str, ...]
    moving: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingJob(Job):
    """A training of RegNet or one of its variants; the other attributes as in `Job`.

    Attributes
    ----------
    variant
        One of `regnet.learning.networks.regnet.VARIANTS`.
    training, validation
        Files of the synthetic pairs.
    synthesis
        The config's ``synthesis``.
    """

    variant: str
    training: PairFiles
    validation: PairFiles
    synthesis: Mapping[str, Any]
    spacing: float

    def _batches(self, processes: int) -> dict[str, int]:
        warmup = self.settings["warmup"] or {"batch": processes}
        return {"training.batch": self.settings["batch"], "training.warmup.batch": warmup["batch"]}

    def _determining(self) -> dict[str, Any]:
        settings = {"variant": self.variant, "training": self._own_settings, "seed": self.seed}
        return settings | {"synthesis": self.synthesis, "spacing": self.spacing, "window": self.window}

    def _data(self) -> list[str]:
        return [path for files in (self.training, self.validation) for path in (*files.samples, *files.fixed, *files.moving)]

    def train(self, checkpoints: Checkpoints) -> Trainer:
        """As in `Job`."""
        training, validation = (
            SamplePool(files.samples, files.fixed, files.moving, self.window) for files in (self.training, self.validation)
        )
        return train(
            self.variant,
            training,
            validation,
            self.settings,
            self.synthesis,
            spacing=self.spacing,
            seed=self.seed,
            device=pick_device(self.gpus),
            start=self.start,
            checkpoints=checkpoints,
            events=self.events,
        )


@dataclass(frozen=True, kw_only=True)
class PyramidJob(Job):
    """A training of the feature pyramid; the other attributes as in `Job`.

    Attributes
    ----------
    training, validation
        Volumes that the rule ``prepare_crops`` wrote.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]

    def _batches(self, processes: int) -> dict[str, int]:
        return {"pyramid.batch": self.settings["batch"]}

    def _determining(self) -> dict[str, Any]:
        return {"variant": RegNetPyramid.variant, "pyramid": self._own_settings, "seed": self.seed, "window": self.window}

    def _data(self) -> list[str]:
        return [*self.training, *self.validation]

    def train(self, checkpoints: Checkpoints) -> Trainer:
        """As in `Job`."""
        training, validation = ([read_volume(path) for path in paths] for paths in (self.training, self.validation))
        return train_pyramid(
            training,
            validation,
            self.settings,
            window=self.window,
            seed=self.seed,
            device=pick_device(self.gpus),
            start=self.start,
            checkpoints=checkpoints,
            events=self.events,
        )


def _train_and_write(job: Job, checkpoints: Checkpoints) -> None:
    """Train; write the last and the best weights and the curves, in the first of the processes."""
    torch.set_num_threads(max(1, job.threads // process_count()))
    trainer = job.train(checkpoints)
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


def job_arguments(rule: Any, variant: str) -> dict[str, Any]:
    """What Snakemake's object in the script of a training says of the attributes that all jobs have."""
    params, inputs, outputs = rule.params, rule.input, rule.output
    return {
        "settings": params.training,
        "window": tuple(params.window),
        "seed": job_seed(params.seed, "train", variant),
        "facts": {"seed": params.seed},
        "threads": rule.threads,
        "gpus": rule.resources.gpu,
        "code": tuple(inputs.code),
        "checkpoints": params.checkpoints,
        "events": params.events,
        **{name: outputs[name] for name in ("best", "last", "curves")},
        "start": inputs.start or None,
    }


def run_job(rule: Any, job: Job) -> None:
    """Run the job of a script of Snakemake on all GPUs it has, and write what is known of the weights and of the machine."""
    job.run(processes=max(1, min(job.gpus, torch.cuda.device_count())))
    write_json(rule.output.facts, load_network(job.best)[1])
    write_machine(rule.output.machine, device_name(job.gpus, job.threads))
