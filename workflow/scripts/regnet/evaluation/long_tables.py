"""The long tables and slices in ``results/<experiment>/evaluation``: their columns, and how they are written and read.

Tables have one row per landmark and method, per point and network variant, or per pair and method. The tables and figures that
people look at are made from these files alone, so this module needs neither images nor torch.
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
    "regnet_pyramid": "RegNet Pyramid",
    "regnet_refined": "RegNet Refined",
    "demons": "Demons",
    "syn": "SyN",
    "greedy": "Greedy",
    "convexadam": "ConvexAdam",
}
"""Display names of methods and network variants in tables and figures; any other method keeps its own name."""


def method_name(method: str) -> str:
    """The display name of a method or network variant."""
    return METHOD_NAMES.get(method, method)


FREQUENCIES = ("low", "medium", "high")
"""Spatial frequencies of the synthetic fields, in the order of the chapter."""


def components(*names: str) -> list[str]:
    """The columns ``name_x``, ``name_y``, ``name_z`` of each of the names."""
    return [f"{name}_{axis}" for name in names for axis in AXES]


def vector_columns(name: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of `components`, filled from vectors ``(n, 3)``, x, y, z."""
    return dict(zip(components(name), vectors.T, strict=True))


def corresponding_points(**arrays: np.ndarray) -> list[np.ndarray]:
    """Return the arrays as float ``(n, 3)``, x, y, z.

    Raises
    ------
    ValueError
        If they are not all ``(n, 3)``; the message names the first that is not.
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
"""Columns and types of the landmark table; lengths in mm, points in LPS, `landmark` counts the landmarks of a pair from 0.
``error_snapped`` is the distance between the voxel nearest to the mapped point and the voxel nearest to the moving landmark, on
the grid of the moving image as the cohort gives it."""

POINT_COLUMNS = {
    **dict.fromkeys(("variant", "split", "image", "moving", "frequency"), str),
    "point": int,
    **dict.fromkeys((*components("point", "displacement", "predicted"), "mae", *components("mae")), float),
}
"""Columns and types of the table of points in synthetic pairs; lengths in mm, points in LPS."""

REGULARITY_COLUMNS = {
    **dict.fromkeys(("method", "pair"), str),
    "voxels": int,
    **dict.fromkeys(("min", "p1", "p5", "median", "p95", "p99", "max", "folded", "sd_log"), float),
}
"""Columns and types of the table of Jacobian determinants of the whole transform in the lungs, one row per method and pair.
``folded`` is the fraction of voxels whose determinant is at most 0, ``sd_log`` the standard deviation of the natural logarithm
of the others."""

RUN_COLUMNS = {**dict.fromkeys(("method", "pair"), str), **dict.fromkeys(("seconds", "memory_mb"), float)}
"""Columns and types of the table of registration jobs: wall-clock time, and the peak resident memory of the process in MB
(2^20 bytes), without GPU memory."""

FIELD_ERROR_COLUMNS = {
    **dict.fromkeys(("method", "pair"), str),
    "voxels": int,
    **dict.fromkeys(("mean", "sd", "p5", "p25", "median", "p75", "p95", "p99", "max", *components("mean")), float),
}
"""Columns and types of the table of errors of the whole field in the lungs, where the true DVF is known:
``||T(x) - T_true(x)||`` in mm, and in ``mean_x`` ... the means of its absolute components; one row per method and pair."""

MAY_BE_UNKNOWN = ("sd_log", "memory_mb")
"""Columns whose number may be missing, written ``nan``: a field may fold everywhere, a job may be too short to be
measured."""

DISTRIBUTION_COLUMNS = {"kind": str, "quantity": str, "lower": float, "upper": float, "fraction": float}
"""Columns and types of the table of distributions of synthetic fields: the fraction between two limits. The fractions of a kind
and quantity add up to 1. ``magnitude`` is ``||u||`` in mm and ``determinant`` the Jacobian determinant, both of all voxels;
``wavelength``, in mm, is that of the Fourier components, weighted by their power."""

SUMMARY_COLUMNS = {
    "kind": str,
    **dict.fromkeys(("fields", "voxels"), int),
    **dict.fromkeys((f"magnitude_{name}" for name in ("mean", "median", "p95", "max")), float),
    **dict.fromkeys((f"wavelength_{name}" for name in ("p5", "median", "p95")), float),
    **dict.fromkeys((f"determinant_{name}" for name in ("min", "p1", "median", "p99", "max")), float),
    "folded": float,
}
"""Columns and types of the summary of synthetic fields, one row per kind; lengths in mm. ``folded`` is the fraction of
voxels whose Jacobian determinant is at most 0."""


def collect(frames: Iterable[pd.DataFrame], columns: Mapping[str, type]) -> pd.DataFrame:
    """Stack tables of errors, in order, into one with `columns` (of a table above); without frames it has no rows."""
    empty = pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in columns.items()})
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True)[list(columns)] if filled else empty


def write_errors(errors: pd.DataFrame, path: str | Path) -> None:
    """Write a table of errors as CSV, with all digits; never leaves a partial file."""
    with whole_file(path) as partial:
        errors.to_csv(partial, index=False, lineterminator="\n", na_rep="nan")


def read_errors(path: str | Path, columns: Mapping[str, type]) -> pd.DataFrame:
    """Read a CSV table of errors with `columns`, which are those of a table above; it may have no rows and further columns.

    Raises
    ------
    InputError
        If the file is missing, is cut off, is not a CSV table, lacks a column, or has a value of the wrong type.
    """
    refuse_truncated_table(path)
    try:
        header = pd.read_csv(path, nrows=0).columns
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; found {', '.join(header)}")
    try:
        # Only "nan" in these columns counts as missing: an empty number is an error, and a pair may be called "NA".
        missing_values = {column: ["nan"] for column in MAY_BE_UNKNOWN if column in columns}
        options = {"na_values": missing_values, "keep_default_na": False, "na_filter": bool(missing_values)}
        return pd.read_csv(path, usecols=list(columns), dtype=dict(columns), **options)[list(columns)]
    except ValueError as error:
        raise InputError(f"{path}: a value does not fit its column ({error})") from error


def read_table(path: str | Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a CSV table with at least `columns`: one made from long tables, or the curves of a training.

    A number may be missing: its cell is then empty or ``nan``.

    Raises
    ------
    InputError
        If the file is missing, is cut off, is not a CSV table, or lacks a column.
    """
    refuse_truncated_table(path)
    text = {name: str for name in ("evaluation", "method", "other", "level")}
    try:
        # Names are read as they are: a method may be called "nan".
        missing_values = {name: ["", "nan"] for name in columns if name not in text}
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=missing_values)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; found {', '.join(table)}")
    return table


BENCHMARK_COLUMNS = ("s", "max_rss", "cpu_time")
"""The columns used of Snakemake's benchmark files: wall-clock time in s, peak resident memory in MiB, CPU time in s."""


def read_benchmark(path: str | Path) -> dict[str, float]:
    """Read the time and memory of a job, `BENCHMARK_COLUMNS`, from the file of Snakemake's ``benchmark``; means over repeats.

    Memory and CPU time are NaN if the job ended before Snakemake first measured it.

    Raises
    ------
    InputError
        If the file is missing, is cut off or is not a benchmark file.
    """
    refuse_truncated_table(path)
    try:
        table = pd.read_csv(path, sep="\t", na_values=["-"])
        return {column: float(table[column].mean()) for column in BENCHMARK_COLUMNS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        expected = f"expected a benchmark file of Snakemake with the columns {', '.join(BENCHMARK_COLUMNS)}"
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}), {expected}") from error


def save_slices(path: str | Path, slices: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz``; never leaves a partial file."""
    with whole_file(path) as partial:
        # For the types any of the names could be allow_pickle.
        np.savez_compressed(partial, **slices)  # type: ignore[arg-type]


def read_slices(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file, in their order in the file.

    Raises
    ------
    InputError
        If the file is missing, is not an ``.npz`` file, or lacks one of the arrays `names`.
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
