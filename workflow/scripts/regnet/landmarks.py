"""Landmarks: corresponding points in physical space, in elastix point files or in tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from regnet.conventions import AXES
from regnet.errors import InputError
from regnet.files import whole_file


def read_landmarks(path: str | Path) -> np.ndarray:
    """Read an elastix point file: ``point``, the number of points, then one ``x y z`` a line, in mm (LPS).

    A file whose name ends in ``.csv`` is read by `read_point_table` instead.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 3)``, columns x, y, z, in mm.

    Raises
    ------
    InputError
        If the file is missing, is not such a file, or holds another number of points than it says.
    """
    if Path(path).suffix == ".csv":
        return read_point_table(path)[1]
    try:
        lines = [line.split() for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a landmark file ({error})") from error
    if len(lines) < 3 or lines[0] != ["point"]:
        found = " ".join(lines[0]) if lines else "an empty file"
        raise InputError(f"{path}: starts with {found!r}, expected 'point', the number of points, then x y z in mm")
    try:
        count, points = int(lines[1][0]), np.array(lines[2:], float)
    except ValueError as error:
        raise InputError(f"{path}: expected three numbers x y z on each line after the second ({error})") from error
    if points.shape != (count, 3) or not np.isfinite(points).all():
        raise InputError(f"{path}: found an array of {points.shape} numbers, expected {count} finite points of 3 coordinates")
    return points


def read_point_table(path: str | Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Read a CSV table with the columns x, y and z, in mm (LPS), among any others.

    Returns
    -------
    table : pandas.DataFrame
        All columns as they stand in the file, as text.
    points : numpy.ndarray
        Shape ``(n, 3)``, columns x, y, z, in mm.

    Raises
    ------
    InputError
        If the file is missing, is not such a table, or has something else than finite numbers in these columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, na_filter=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    if not isinstance(table.index, pd.RangeIndex):
        # pandas then takes the first cells for an index, and all columns would be shifted.
        raise InputError(f"{path}: found rows with more cells than the header's {len(table.columns)}, expected as many")
    missing = [axis for axis in AXES if axis not in table.columns]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; found {found}, expected x, y and z in mm (LPS)")
    try:
        points = table[list(AXES)].to_numpy(float)
    except ValueError as error:
        raise InputError(f"{path}: expected a number in each row of x, y and z ({error})") from error
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise InputError(f"{path}, row {row + 2}: found {', '.join(table.loc[row, list(AXES)])}, expected finite numbers")
    return table, points


def read_landmark_pair(fixed: str | Path, moving: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the corresponding landmarks of a pair: two arrays ``(n, 3)``, x, y, z in mm; row i corresponds to row i.

    Raises
    ------
    InputError
        As `read_landmarks`, and if the files hold different numbers of points.
    """
    points = read_landmarks(fixed), read_landmarks(moving)
    if len(points[0]) != len(points[1]):
        raise InputError(f"{moving}: found {len(points[1])} landmarks, expected {len(points[0])} as in {fixed}")
    return points


def write_landmarks(points: np.ndarray, path: str | Path) -> None:
    """Write points ``(n, 3)``, x, y, z in mm (LPS), as an elastix point file."""
    with whole_file(path) as partial:
        partial.write_text(format_landmarks(points))


def format_landmarks(points: np.ndarray) -> str:
    """The text of an elastix point file of points ``(n, 3)``, x, y, z in mm (LPS)."""
    rows = "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in points)
    return f"point\n{len(points)}\n{rows}"
