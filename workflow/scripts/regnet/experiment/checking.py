"""Check everything that an experiment is given before its first job: the config, the tables, and the files they name."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from regnet.errors import ConfigError
from regnet.experiment.cohort import Cohort, read_cohort
from regnet.experiment.schemas import check_config
from regnet.registration.methods import check_methods

BASE_CONFIG = "config/config.yaml"
"""The config into which all others are merged, relative to the folder of the workflow."""

TEMPLATE_KEY = "__use_yte__"
"""The key that makes a config a template of YTE: Snakemake then runs the Python code between its values."""

MAXIMUM_VALUES = 100_000
"""How many values a config file may have; the largest one of this project has some hundreds."""

NO_YAML = "Config file is not valid JSON or YAML. In case of YAML, make sure to not mix whitespace and tab indentation."
"""What Snakemake says of a config that it cannot read."""


def checked_cohort(config: Mapping[str, Any], files: bool = True, voxels: bool = False) -> Cohort:
    """Check config, tables and files, and return the cohort.

    Parameters
    ----------
    config
        The complete config, with overlays merged.
    files
        Whether to check the files that the tables name. Those of a phantom, which the workflow makes, are never checked.
    voxels
        Whether to read every voxel of these files, which is slow but finds truncated files.

    Raises
    ------
    ConfigError, InputError
        With a line for each problem.
    """
    check_config(config)
    check_methods(config["methods"])
    is_phantom = config["phantom"] is not None
    spacing = config["regnet"]["spacing"] or config["resampling"]["spacing"]

    def inspect(images: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
        # Imported here, as Snakemake's jobs do not check files again and need not wait for ITK.
        from regnet.experiment.inspection import file_problems

        return file_problems(images, pairs, spacing, config["synthesis"]["smallest_size"], voxels)

    return read_cohort(config["cohort"], config["data_root"], is_phantom, inspect if files and not is_phantom else None)


def read_config(configfiles: Sequence[str | Path], entries: Sequence[str] = ()) -> dict[str, Any]:
    """Read a config as Snakemake does: `BASE_CONFIG`, then the files of ``--configfile``, then the entries of ``--config``.

    Unlike Snakemake it runs no code: a file with the key `TEMPLATE_KEY` is refused.

    Raises
    ------
    ConfigError
        If a file is missing, is not JSON or YAML with keys, or is a template, or if an entry is not ``key=value``; if Snakemake
        is not installed.
    """
    try:
        # Snakemake's functions merge a config exactly as a run does. They take a second to import.
        from snakemake.cli import parse_config
        from snakemake.utils import update_config
    except ModuleNotFoundError as error:
        install = "to install it: pip install '.[workflow]'"
        raise ConfigError(f"snakemake: not installed, expected for this command; {install}") from error

    config: dict[str, Any] = {}
    for path in (BASE_CONFIG, *configfiles):
        update_config(config, _read_file(path))
    try:
        update_config(config, parse_config(list(entries)))
    except ValueError as error:
        raise ConfigError(f"--config: {error}") from error
    return config


def refuse_templates(configfiles: Iterable[str | Path]) -> None:
    """Refuse config files whose values Snakemake takes from code in the file, by its template language YTE.

    Raises
    ------
    ConfigError
        For the first file with the key `TEMPLATE_KEY`, and for one that cannot be read as a config.
    """
    for path in configfiles:
        # Snakemake reads a pipe only once, and only as JSON, which is no template.
        if Path(path).is_file():
            _read_file(path)


def _read_file(path: str | Path) -> dict[str, Any]:
    """The keys of a config file, JSON or YAML, as Snakemake reads one that is no template."""
    hint = ", run this in the folder of the workflow" if path == BASE_CONFIG else ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        try:
            config = json.loads(text)
        except ValueError:
            config = yaml.safe_load(text)
        if not isinstance(config, dict):
            raise ValueError("Config file must be given as JSON or YAML with keys at top level.")
        _refuse_too_many_values(config)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = NO_YAML if isinstance(error, yaml.YAMLError) else " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read as a config ({reason}){hint}") from error
    # Snakemake drops the key where its value is false, and then reads the rest as it is.
    if config.pop(TEMPLATE_KEY, None):
        raise ConfigError(f"{path}: found the key {TEMPLATE_KEY}, with which a config runs code, expected values alone")
    return config


def _refuse_too_many_values(config: dict[str, Any]) -> None:
    """Raise `ValueError` if a config has more than `MAXIMUM_VALUES`: with anchors of YAML a few lines stand for billions."""
    waiting: list[Any] = [config]
    for number in count(1):
        if not waiting:
            return
        if number > MAXIMUM_VALUES:
            raise ValueError(f"found more than {MAXIMUM_VALUES} values, expected fewer")
        value = waiting.pop()
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def describe(cohort: Cohort) -> str:
    """Describe a cohort in words: the numbers of its images and pairs."""
    splits = cohort.images["split"].value_counts()
    parts = ", ".join(f"{splits[split]} {split}" for split in ("train", "validation", "test") if split in splits)
    pairs, with_landmarks = len(cohort.test_pairs()), len(cohort.pairs_with_landmarks())
    return f"{len(cohort.images)} images ({parts}); test pairs: {pairs}, with landmarks: {with_landmarks}"
