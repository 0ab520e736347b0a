"""Everything about an experiment that can be wrong before the first job: the config, the tables, and the files they name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from regnet.errors import ConfigError
from regnet.experiment.cohort import Cohort, read_cohort
from regnet.experiment.schemas import check_config
from regnet.registration.methods import check_methods

BASE_CONFIG = "config/config.yaml"
"""The config onto which all others are merged, relative to the folder of the workflow."""


def checked_cohort(config: Mapping[str, Any], files: bool = True, voxels: bool = False) -> Cohort:
    """The cohort of a config, after config, tables and files have been checked.

    Parameters
    ----------
    config
        The whole config, overlays merged.
    files
        Whether to look into the files that the tables name; not for a phantom, which the workflow makes.
    voxels
        Whether to read every voxel of them: slow, and finds files that are cut off, too.

    Raises
    ------
    ConfigError, InputError
        With a line for each problem.
    """
    check_config(config)
    check_methods(config["methods"])
    is_phantom = config["phantom"] is not None
    spacing = config["regnet"]["spacing"] or config["resampling"]["spacing"]

    def look(images: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
        # Here, as the processes of Snakemake's jobs, which do not look again, need not wait for ITK.
        from regnet.experiment.inspection import file_problems

        return file_problems(images, pairs, spacing, config["synthesis"]["smallest_size"], voxels)

    return read_cohort(config["cohort"], config["data_root"], is_phantom, look if files and not is_phantom else None)


def read_config(configfiles: Sequence[str | Path], entries: Sequence[str] = ()) -> dict[str, Any]:
    """The config that Snakemake makes of ``--configfile`` and ``--config``, on top of `BASE_CONFIG`.

    Raises
    ------
    ConfigError
        If a file is missing or no YAML with keys, or an entry is not ``key=value``.
    """
    # Snakemake's own, so that both read the same; here, as they take a second to import.
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
    """How much there is in a cohort, in words."""
    splits = cohort.images["split"].value_counts()
    parts = ", ".join(f"{splits[split]} {split}" for split in ("train", "validation", "test") if split in splits)
    pairs, measured = len(cohort.test_pairs()), len(cohort.pairs_with_landmarks())
    return f"{len(cohort.images)} images ({parts}); test pairs: {pairs}, with landmarks: {measured}"
