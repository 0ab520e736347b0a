"""Estimate before a run what it takes: jobs, core hours, GPU hours and disk space, from costs measured per voxel.

The costs come from the benchmark files and the disk space of the default run on an AMD EPYC. Hours are right within a factor of
about two; docs/benchmarks.md compares a plan with a run.
"""

import math
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from regnet.errors import ConfigError
from regnet.experiment.cohort import Cohort
from regnet.images.volumes import read_grid
from regnet.learning.networks.regnet import RegNet
from regnet.registration.methods import configured, starts_from
from regnet.synthesis.samples import OUTPUT_STRIDE, window_size

STARTING = 3.0
"""Core seconds that every job takes to start Snakemake and Python and to import packages."""

PER_MEGAVOXEL = {
    "segment_lungs": 0.5,
    "resample": 0.7,
    "synthesize": 2.5,
    "sample_patches": 0.3,
    "evaluate_regularity": 0.5,
    "evaluate_fields": 0.5,
    "viewer": 3.0,
}
"""Further core seconds per million voxels of an image at the working spacing of the rule."""

PHANTOM_SECONDS = 17.0
"""Core seconds of one subject of the embedded cohort at scale 1; the spacing hardly matters."""

FIELD_STATISTICS_SECONDS = 1.2
"""Core seconds per synthetic DVF."""

ELASTIX_SECONDS = {"affine": 0.0015, "bspline": 0.008}
"""Core seconds of an iteration of elastix, which samples 2,000 to 5,000 points whatever the size of the images."""

CROP_SECONDS = 1.1
"""Core seconds that a training of the feature pyramid spends on a crop."""

PYRAMID_SECONDS = 2.0
"""Core seconds of the feature pyramid per million voxels that it sees."""

OTHER_METHOD_SECONDS = 5.0
"""Core seconds per million voxels of methods that work on whole volumes: demons, SyN, greedy, ConvexAdam, a user's own."""

CORE_FLOPS = 1e11
"""Floating point operations per second of a core in training and inference (bfloat16, AVX-512)."""

DISK_BYTES_PER_VOXEL = {"image": 1.45, "synthetic": 2.0, "viewer": 1.65}
"""Bytes written per voxel: a resampled CT with its mask, compressed; a synthetic volume; a page of the viewer, for
each of its methods, up to `VIEWER_BYTES`."""

BYTES_PER_VECTOR = 24.0
"""Bytes of a displacement in a transform: three float64 per point of a field, or per control point of a B-spline."""

AROUND_GRID = 1.5
"""Ratio of all control points of a B-spline to those inside the image."""

VIEWER_BYTES = 15e6
"""Largest size of a page of the viewer."""

SYNTHETIC_VOLUMES = 8
"""Volumes per image in ``synthetic/``: two moving and six fixed. Those that are not used for training are removed during the
run, after their last use."""

PHANTOM_BYTES, PHANTOM_MM3 = 33e6, 15.3e6
"""Bytes of a subject of the embedded cohort at scale 1 (two scans, landmarks, the true DVF); volume of one of its images."""

SHOWN_RULES = 6
"""How many rules a plan lists, those with the most jobs first."""

SHOWN_LINES = 12
"""How many lines of a reason of Snakemake are shown."""

_ERROR = re.compile(r"[\w.]*(Error|Exception)\b")
"""The start of a line that names an error."""

_STATS = re.compile(r"^(\w+) +(\d+)$", re.MULTILINE)


@dataclass
class Plan:
    """What a run takes.

    Attributes
    ----------
    jobs
        Number of jobs still to run, by rule.
    core_hours
        Core hours of a complete run, by rule, without the operations of `gpu_flop`.
    gpu_flop
        Floating point operations of training and inference, by rule. They run on a GPU if there is one, otherwise on the cores.
    kept, removed
        Bytes on disk, by kind of file, of files that a run keeps and of files that it removes before it ends.
    """

    jobs: dict[str, int]
    core_hours: dict[str, float] = field(default_factory=dict)
    gpu_flop: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    removed: dict[str, float] = field(default_factory=dict)


def remaining_jobs(configfiles: Sequence[str], entries: Sequence[str]) -> dict[str, int]:
    """Count the jobs of each rule that Snakemake would run now, by a dry run in the current folder.

    Parameters
    ----------
    configfiles, entries
        The arguments of ``--configfile`` and ``--config``, as for `regnet.experiment.checking.read_config`.

    Raises
    ------
    ConfigError
        If the dry run fails, with the reason that its output gives.
    """
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "all", "--nolock"]
    command += ["--configfile", *configfiles] if configfiles else []
    command += ["--config", *entries] if entries else []
    process = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    output = process.stdout + process.stderr
    if process.returncode:
        raise ConfigError(f"snakemake --dry-run: {_reason(output) or f'exit status {process.returncode}'}")
    jobs = {rule: int(count) for rule, count in _STATS.findall(output)}
    jobs.pop("total", None)
    return jobs


def _reason(output: str) -> str:
    """Why Snakemake failed, in one line: from the first error in its output on; without one, the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # Which profile it uses stands on stderr, and many reasons on stdout.
    lines = [line for line in lines if not line.startswith("Using ")]
    first = next((number for number, line in enumerate(lines) if _ERROR.match(line)), len(lines) - 1)
    return " ".join(lines[max(first, 0) :][:SHOWN_LINES])


def image_volumes(config: Mapping[str, Any], cohort: Cohort) -> dict[str, float]:
    """The volume of each image in mm^3: from the headers of the files, or that of a typical phantom if the workflow makes it.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    if config["phantom"] is not None:
        return dict.fromkeys(cohort.images.index, PHANTOM_MM3 * config["phantom"]["scale"] ** 3)
    grids = {name: read_grid(path) for name, path in cohort.images["path"].items()}
    return {name: math.prod(grid.size) * math.prod(grid.spacing) for name, grid in grids.items()}


def plan_run(config: Mapping[str, Any], cohort: Cohort, volumes: Mapping[str, float], jobs: Mapping[str, int]) -> Plan:
    """Estimate what the run of a config takes.

    Parameters
    ----------
    config, cohort
        The checked config, with all defaults, and its cohort.
    volumes
        The result of `image_volumes`: the volume of each image in mm^3.
    jobs
        The result of `remaining_jobs`.
    """
    plan = Plan(dict(jobs))
    images, network = _spacings(config)
    # On the grid of the baselines and on that of the network.
    sizes = {mm: {name: volume / mm**3 / 1e6 for name, volume in volumes.items()} for mm in (images, network)}
    _add_images(plan, config, cohort, sizes)
    _add_networks(plan, config, cohort, sizes[network])
    _add_methods(plan, config, cohort, sizes)
    _add_results(plan, config, cohort, sizes[images])
    return plan


def describe(plan: Plan, gpu_tflops: float) -> str:
    """Describe a plan in lines for the terminal.

    Parameters
    ----------
    gpu_tflops
        Speed of the GPU in these networks, in 10^12 floating point operations per second.
    """
    total = sum(plan.jobs.values())
    lines = [
        f"jobs to run      {total:,}",
        *(f"  {rule:<21}{count:,.0f}" for rule, count in _largest(plan.jobs)[:SHOWN_RULES]),
    ]
    flop, core_hours = sum(plan.gpu_flop.values()), sum(plan.core_hours.values())
    on_cpu = flop / CORE_FLOPS / 3600
    lines += [
        f"core hours       {_number(core_hours)} with a GPU, {_number(core_hours + on_cpu)} without",
        *(f"  {rule:<21}{_number(hours)}" for rule, hours in _largest(plan.core_hours)),
        f"GPU hours        {_number(flop / gpu_tflops / 1e12 / 3600)} at {gpu_tflops:g} TFLOP/s",
        *(f"  {rule:<21}{_number(part / gpu_tflops / 1e12 / 3600)}" for rule, part in _largest(plan.gpu_flop)),
    ]
    kept, removed = sum(plan.kept.values()), sum(plan.removed.values())
    lines += [
        f"disk             {_bytes(kept + removed)} at most, {_bytes(kept)} in the end",
        *(f"  {files:<21}{_bytes(size)}" for files, size in _largest(plan.kept)),
        *(f"  {files:<21}{_bytes(size)}, removed during the run" for files, size in _largest(plan.removed)),
    ]
    return "".join(f"{line}\n" for line in lines)


@cache
def block_flop(variant: str, block: int) -> float:
    """Floating point operations of a forward pass of one window with ``block^3`` outputs."""
    with torch.device("meta"):
        network, side = RegNet(variant).eval(), window_size(block)
        window = torch.empty(1, 1, side, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(window, window)
    return counter.get_total_flops()


_Sizes = Mapping[str, float]
"""Million voxels of each image on one grid."""


def _spacings(config: Mapping[str, Any]) -> tuple[float, float]:
    """The spacing of the baselines' grid and that of the network's, in mm."""
    spacing = config["resampling"]["spacing"]
    return spacing, config["regnet"]["spacing"] or spacing


def _is_trained(config: Mapping[str, Any]) -> bool:
    return config["training"]["mode"] != "released"


def _synthesized(config: Mapping[str, Any], cohort: Cohort) -> list[str]:
    """The images of which the workflow makes synthetic pairs."""
    return [name for name, split in cohort.images["split"].items() if _is_trained(config) or split != "train"]


def _fixed(cohort: Cohort) -> list[str]:
    """The fixed image of each test pair."""
    return cohort.pairs.loc[cohort.test_pairs(), "fixed"].tolist()


def _add_images(plan: Plan, config: Mapping[str, Any], cohort: Cohort, sizes: Mapping[float, _Sizes]) -> None:
    """Add the embedded cohort, masks, resampled images and synthetic volumes."""
    if config["phantom"] is not None:
        subjects, scale = cohort.images["subject"].nunique(), config["phantom"]["scale"] ** 3
        _add_seconds(plan, "phantom", subjects * (STARTING + PHANTOM_SECONDS * scale))
        plan.kept["cohort"] = subjects * PHANTOM_BYTES * scale
    images, network = (sizes[spacing] for spacing in _spacings(config))
    without_mask = cohort.images.index[cohort.images["mask"] == ""]
    _add_seconds(plan, "segment_lungs", _per_voxel("segment_lungs", [images[name] for name in without_mask]))
    for grid in sizes.values():
        _add_seconds(plan, "resample", _per_voxel("resample", grid.values()))
    plan.kept["images"] = sum(sum(grid.values()) for grid in sizes.values()) * 1e6 * DISK_BYTES_PER_VOXEL["image"]
    voxels = [network[name] for name in _synthesized(config, cohort)]
    for rule in ("synthesize", "sample_patches"):
        _add_seconds(plan, rule, _per_voxel(rule, voxels))
    trained = [network[name] for name in cohort.images.index[cohort.images["split"] != "test"] if _is_trained(config)]
    per_megavoxel = SYNTHETIC_VOLUMES * 1e6 * DISK_BYTES_PER_VOXEL["synthetic"]
    plan.kept["synthetic volumes"] = per_megavoxel * sum(trained)
    plan.removed["synthetic volumes"] = per_megavoxel * (sum(voxels) - sum(trained))


def _add_networks(plan: Plan, config: Mapping[str, Any], cohort: Cohort, sizes: _Sizes) -> None:
    """Add training, its evaluation, and registration with the network."""
    training, patches = config["training"], config["patches"]
    counts = {split: 6 * len(cohort.images_of(split)) for split in ("train", "validation", "test")}
    steps = training["steps_per_epoch"] or counts["train"] * patches["per_pair"] / training["batch"]
    blocks = training["epochs"] * steps * training["batch"]
    evaluated = {split: count * patches["evaluation_per_pair"] for split, count in counts.items()}
    for variant in training["variants"]:
        forward = block_flop(variant, patches["evaluation_block"])
        if _is_trained(config):
            # A step runs forward, and backward with respect to weights and features; the validation only forward.
            flop = 3 * blocks * block_flop(variant, patches["block"])
            if warmup := training["warmup"]:
                flop += 3 * warmup["steps"] * warmup["batch"] * block_flop(variant, warmup["block"])
            plan.gpu_flop["train"] = (
                plan.gpu_flop.get("train", 0) + flop + training["epochs"] * evaluated["validation"] * forward
            )
        points = evaluated["validation"] + (evaluated["test"] if variant == "regnet" else 0)
        plan.gpu_flop["evaluate_synthetic"] = plan.gpu_flop.get("evaluate_synthetic", 0) + points * forward
    regnet, stages = config["regnet"], config["regnet"]["stages"]
    _, base = _spacings(config)
    # The lungs take up about a quarter of a CT.
    share = 1 if regnet["region"] == "image" else 0.3
    outputs = sum(
        share * sizes[fixed] * 1e6 * (base / stage) ** 3 * regnet["passes"] * regnet["mirrors"]
        for fixed in _fixed(cohort)
        for stage in stages or [base]
    )
    per_output = block_flop("regnet", 32) / 32**3
    plan.gpu_flop["register_regnet"] = outputs * per_output / regnet["stride"] ** 3
    _add_seconds(plan, "register_regnet", len(_fixed(cohort)) * 2 * STARTING)


def _add_methods(plan: Plan, config: Mapping[str, Any], cohort: Cohort, sizes: Mapping[float, _Sizes]) -> None:
    """Add registration with all other methods, and the disk space of all transforms."""
    images, network = _spacings(config)
    seconds, stored = 0.0, 0.0
    methods = configured(config["methods"])
    for name, settings in methods.items():
        for fixed in _fixed(cohort):
            voxels = sizes[network if name == "regnet" else images][fixed]
            vectors = voxels * 1e6 / (config["regnet"]["stride"] ** 3 if name == "regnet" else 1)
            if settings["module"] == "pyramid":
                seen = voxels * sum((images / spacing) ** 3 for spacing in settings["spacings"])
                seconds += STARTING + seen * PYRAMID_SECONDS
                vectors = seen * 1e6 / OUTPUT_STRIDE**3
            elif settings["module"] == "elastix":
                kind = "affine" if name == "affine" else "bspline"
                iterations = settings.get("resolutions", 3) * settings.get("iterations", 1000)
                seconds += 2 * STARTING + iterations * ELASTIX_SECONDS[kind] + voxels * PER_MEGAVOXEL["resample"]
                in_a_cell = (settings.get("grid_spacing", 10) / images) ** 3
                vectors = 0 if name == "affine" else AROUND_GRID * voxels * 1e6 / in_a_cell
            elif name != "regnet":
                seconds += STARTING + voxels * OTHER_METHOD_SECONDS
            # A transform holds the one that it starts from, too.
            held = sum(starts_from(other, methods) == name for other in methods) if name not in ("affine", "regnet") else 0
            stored += vectors * BYTES_PER_VECTOR * (1 + held)
        if settings["module"] == "pyramid" and settings["weights"] is None:
            training = config["pyramid"]
            crops = training["batch"] * training["epochs"] * training["steps_per_epoch"]
            _add_seconds(plan, "train_pyramid", STARTING + crops * CROP_SECONDS)
    _add_seconds(plan, "register", seconds)
    plan.kept["transforms"] = stored


def _add_results(plan: Plan, config: Mapping[str, Any], cohort: Cohort, sizes: _Sizes) -> None:
    """Add evaluation, tables, figures and viewers."""
    voxels, methods = [sizes[fixed] for fixed in _fixed(cohort)], len(configured(config["methods"]))
    for rule in ("evaluate_regularity", *(["evaluate_fields"] if config["phantom"] is not None else [])):
        _add_seconds(plan, rule, _per_voxel(rule, [methods * part for part in voxels]))
    _add_seconds(plan, "evaluate_landmarks", STARTING * len(cohort.pairs_with_landmarks()))
    _add_seconds(plan, "viewer", _per_voxel("viewer", voxels))
    if _is_trained(config):
        fields = 6 * len(_synthesized(config, cohort))
        _add_seconds(plan, "field_statistics", STARTING + FIELD_STATISTICS_SECONDS * fields)
    rest = sum(count for rule, count in plan.jobs.items() if rule not in plan.core_hours and rule not in plan.gpu_flop)
    _add_seconds(plan, "tables, figures, pages", STARTING * rest)
    plan.kept["viewers"] = sum(min(VIEWER_BYTES, DISK_BYTES_PER_VOXEL["viewer"] * methods * part * 1e6) for part in voxels)


def _per_voxel(rule: str, megavoxels: Collection[float]) -> float:
    """Core seconds of a rule that runs one job per image."""
    return STARTING * len(megavoxels) + PER_MEGAVOXEL[rule] * sum(megavoxels)


def _add_seconds(plan: Plan, rule: str, seconds: float) -> None:
    plan.core_hours[rule] = plan.core_hours.get(rule, 0) + seconds / 3600


def _largest(parts: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted((item for item in parts.items() if item[1] > 0), key=lambda item: -item[1])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
