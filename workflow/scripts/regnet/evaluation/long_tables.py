"""The long tables and the slices of ``results/<experiment>/evaluation``: what they hold, how they are written and read.

Tables have one row per landmark and method, per point and network variant, or per pair and method. All that people look at,
tables and figures, is made of these files alone, so this module needs neither images nor torch.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from regnet.conventions import AXES
from regnet.errors import InputError
from regnet.system.files import NPZ_ERRORS, refuse_truncated_table, whole_file

METHOD_NAMES = {
    "affine": "Affine",
    "bspline_1r": "B-spline 1R",
    "bspline_3r": "B-spline 3R",
    "bspline_best": "B-spline best",
    "regnet": "RegNet",
    "regnet_1scale": "RegNet 1Scale",
    "regnet_early": "RegNet Early",
    "demons": "Demons",
    "syn": "SyN",
    "greedy": "Greedy",
    "convexadam": "ConvexAdam",
}
"""How tables and figures write methods and network variants; any other method is written as it is named."""


def method_name(method: str) -> str:
    """How tables and figures write a method or network variant."""
    return METHOD_NAMES.get(method, method)


FREQUENCIES = ("low", "medium", "high")
"""Spatial frequencies of the synthetic fields, in the order of the chapter."""


def components(*names: str) -> list[str]:
    """The columns ``name_x``, ``name_y``, ``name_z`` of each of the names."""
    return [f"{name}_{axis}" for name in names for axis in AXES]


def vector_columns(name: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of `components` with vectors ``(n, 3)``, x, y, z."""
    return dict(zip(components(name), vectors.T, strict=True))


def corresponding_points(**arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays as float ``(n, 3)``, x, y, z.

    Raises
    ------
    ValueError
        If they are not all ``(n, 3)``; it names the one that is not.
    """
    count = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        if np.shape(array) != (count, 3):
            raise ValueError(f"{name}: shape {np.shape(array)}, expected {(count, 3)}: x, y, z of each point")
    return [np.asarray(array, float) for array in arrays.values()]


LANDMARK_COLUMNS = {
    **dict.fromkeys(("method", "pair"), str),
    "landmark": int,
    **dict.fromkeys((*components("fixed", "moving", "mapped"), "error", *components("error"), "error_snapped"), float),
    "within_capture_range": bool,
}
"""Columns of the landmark table and what they hold; lengths in mm, points in LPS, `landmark` counts rows from 0.
``error_snapped`` is the distance between the voxels of the moving image, as the cohort gives it, nearest to the mapped point
and to the landmark there."""

POINT_COLUMNS = {
    **dict.fromkeys(("variant", "split", "image", "moving", "frequency"), str),
    "point": int,
    **dict.fromkeys((*components("point", "displacement", "predicted"), "mae", *components("mae")), float),
}
"""Columns of the table of points in synthetic pairs and what they hold; lengths in mm, points in LPS."""

REGULARITY_COLUMNS = {
    **dict.fromkeys(("method", "pair"), str),
    "voxels": int,
    **dict.fromkeys(("min", "p1", "p5", "median", "p95", "p99", "max", "folded", "sd_log"), float),
}
"""Columns of the table of Jacobian determinants of the whole transform in the lungs, one row per method and pair. ``folded``
is the fraction of voxels whose determinant is at most 0, ``sd_log`` the standard deviation of the natural logarithm of the
others."""

RUN_COLUMNS = {**dict.fromkeys(("method", "pair"), str), **dict.fromkeys(("seconds", "memory_mb"), float)}
"""Columns of the table of registration jobs: wall-clock time, and the peak of the resident memory of the process in MB (2^20
bytes); what a GPU holds is not in it."""

FIELD_ERROR_COLUMNS = {
    **dict.fromkeys(("method", "pair"), str),
    "voxels": int,
    **dict.fromkeys(("mean", "sd", "p5", "p25", "median", "p75", "p95", "p99", "max", *components("mean")), float),
}
"""Columns of the table of errors of the whole field in the lungs, where the true DVF is known: ``||T(x) - T_true(x)||`` in mm,
and under ``mean_x`` ... the means of its absolute components; one row per method and pair."""

MAY_BE_UNKNOWN = ("sd_log", "memory_mb")
"""Columns whose number may be missing, written ``nan``: of a field that folds everywhere, of a job too short to be looked
at."""

DISTRIBUTION_COLUMNS = {"kind": str, "quantity": str, "lower": float, "upper": float, "fraction": float}
"""Columns of the table of distributions of synthetic fields: what fraction lies between two limits; those of a kind and
quantity add up to 1. ``magnitude`` is ``||u||`` in mm and ``determinant`` the Jacobian determinant, of all voxels;
``wavelength``, in mm, is that of the Fourier components, weighted with their power."""

SUMMARY_COLUMNS = {
    "kind": str,
    **dict.fromkeys(("fields", "voxels"), int),
    **dict.fromkeys((f"magnitude_{name}" for name in ("mean", "median", "p95", "max")), float),
    **dict.fromkeys((f"wavelength_{name}" for name in ("p5", "median", "p95")), float),
    **dict.fromkeys((f"determinant_{name}" for name in ("min", "p1", "median", "p99", "max")), float),
    "folded": float,
}
"""Columns of the summary of synthetic fields, one row per kind; lengths in mm. ``folded`` is the fraction of voxels whose
Jacobian determinant is at most 0."""


def collect(frames: Iterable[pd.DataFrame], columns: Mapping[str, type]) -> pd.DataFrame:
    """Stack tables of errors, in order, into one with `columns`, those of one of the tables above; no frames, no rows."""
    empty = pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in columns.items()})
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True)[list(columns)] if filled else empty


def write_errors(errors: pd.DataFrame, path: str | Path) -> None:
    """Write a table of errors as CSV, with all digits; never leaves half a file."""
    with whole_file(path) as partial:
        errors.to_csv(partial, index=False, lineterminator="\n", na_rep="nan")


def read_errors(path: str | Path, columns: Mapping[str, type]) -> pd.DataFrame:
    """Read a CSV table of errors with `columns`, those of one of the tables above; it may have no rows, and more columns.

    Raises
    ------
    InputError
        If the file is missing, is cut off, is not a CSV table, lacks a column, or holds something else than the column's type.
    """
    refuse_truncated_table(path)
    try:
        found = pd.read_csv(path, nrows=0).columns
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; found {', '.join(found)}")
    try:
        # Nothing else counts as missing: an empty number is an error, and a pair named "NA" is a name.
        unknown = {column: ["nan"] for column in MAY_BE_UNKNOWN if column in columns}
        options = {"na_values": unknown, "keep_default_na": False, "na_filter": bool(unknown)}
        return pd.read_csv(path, usecols=list(columns), dtype=dict(columns), **options)[list(columns)]
    except ValueError as error:
        raise InputError(f"{path}: a value does not fit its column ({error})") from error


def read_table(path: str | Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a CSV table with at least `columns`, one made of long tables or the curves of a training; a number may be missing,
    its cell empty or ``nan``.

    Raises
    ------
    InputError
        If the file is missing, is cut off, is not a CSV table, or lacks a column.
    """
    refuse_truncated_table(path)
    text = {name: str for name in ("evaluation", "method", "other", "level")}
    try:
        # Names stay as they are: a method may be called "nan".
        unknown = {name: ["", "nan"] for name in columns if name not in text}
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=unknown)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; found {', '.join(table)}")
    return table


BENCHMARK_COLUMNS = ("s", "max_rss", "cpu_time")
"""Columns of Snakemake's benchmark files that are used: seconds of wall clock, MiB, seconds of CPU time."""


def read_benchmark(path: str | Path) -> dict[str, float]:
    """What a job took, from the file that Snakemake's ``benchmark`` leaves: `BENCHMARK_COLUMNS`, means if it ran repeatedly.

    Memory and CPU time are NaN if the job ended before Snakemake first looked at it.

    Raises
    ------
    InputError
        If the file is missing, is cut off or is no such file.
    """
    refuse_truncated_table(path)
    try:
        table = pd.read_csv(path, sep="\t", na_values=["-"])
        return {column: float(table[column].mean()) for column in BENCHMARK_COLUMNS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        expected = f"expected a benchmark file of Snakemake with the columns {', '.join(BENCHMARK_COLUMNS)}"
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}), {expected}") from error


def save_slices(path: str | Path, slices: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz``; never leaves half a file."""
    with whole_file(path) as partial:
        np.savez_compressed(partial, **slices)


def read_slices(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file, in their order in the file.

    Raises
    ------
    InputError
        If the file is missing, is no such file, or lacks one of the arrays `names`.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            slices = {name: archive[name] for name in archive.files}
    except (*NPZ_ERRORS, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as an npz file ({error})") from error
    missing = [name for name in names if name not in slices]
    if missing:
        raise InputError(f"{path}: lacks the arrays {', '.join(missing)}; found {', '.join(slices) or 'none'}")
    return slices
