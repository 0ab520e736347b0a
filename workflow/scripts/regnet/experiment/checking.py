"""Check everything that an experiment is given before its first job: the config, the tables, and the files they name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from regnet.errors import ConfigError
from regnet.experiment.cohort import Cohort, read_cohort
from regnet.experiment.schemas import check_config
from regnet.registration.methods import check_methods

BASE_CONFIG = "config/config.yaml"
"""The config into which all others are merged, relative to the folder of the workflow."""


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

    Raises
    ------
    ConfigError
        If a file is missing or is not YAML with keys, or an entry is not ``key=value``.
    """
    # Snakemake's functions read a config exactly as a run does. They take a second to import.
    from snakemake.cli import parse_config
    from snakemake.common.configfile import load_configfile
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import update_config

    config: dict[str, Any] = {}
    for path in (BASE_CONFIG, *configfiles):
        try:
            update_config(config, load_configfile(str(path)))
        except (WorkflowError, OSError, UnicodeDecodeError) as error:
            hint = ", run this in the folder of the workflow" if path == BASE_CONFIG else ""
            raise ConfigError(f"{path}: cannot be read as a config ({' '.join(str(error).split())}){hint}") from error
    try:
        update_config(config, parse_config(list(entries)))
    except ValueError as error:
        raise ConfigError(f"--config: {error}") from error
    return config


def describe(cohort: Cohort) -> str:
    """Describe a cohort in words: the numbers of its images and pairs."""
    splits = cohort.images["split"].value_counts()
    parts = ", ".join(f"{splits[split]} {split}" for split in ("train", "validation", "test") if split in splits)
    pairs, with_landmarks = len(cohort.test_pairs()), len(cohort.pairs_with_landmarks())
    return f"{len(cohort.images)} images ({parts}); test pairs: {pairs}, with landmarks: {with_landmarks}"
