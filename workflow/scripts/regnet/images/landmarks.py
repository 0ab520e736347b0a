"""Landmarks: corresponding points in physical space, in the usual file formats."""

import csv
import io
import json
import re
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from regnet.conventions import AXES
from regnet.errors import InputError
from regnet.images.landmark_formats import LANDMARK_FORMATS, SLICER_FORMATS, VOXEL_FORMATS
from regnet.images.volumes import Grid, read_image
from regnet.system.files import whole_file

MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)

NO_POINTS = "found no points, expected at least one"

FCSV_HEADER = (
    "# Markups fiducial file version = 4.11\n"
    "# CoordinateSystem = {system}\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
)

FCSV_COLUMNS = ("id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc", "associatedNodeID")

FCSV_STATUS = 14
"""The cell of a row that holds the status of the point. 3D Slicer 5 writes it and does not name it among the columns."""

NOT_SET = {"0": "undefined", "1": "preview", "3": "missing"}
"""Status of points in ``.fcsv`` that are not set: 3D Slicer writes coordinates for them too, which mean nothing (its
vtkMRMLMarkupsNode, PositionStatus; 2 is "defined")."""

LARGEST = 1e9
"""No coordinate in mm is larger."""

LABEL_COLUMNS = ("label", "name", "landmark", "id")
"""Columns of a table that may label its points; the first one that the table has does so."""

TO_LPS = {"LPS": (1, 1, 1), "RAS": (-1, -1, 1), "1": (1, 1, 1), "0": (-1, -1, 1)}
"""Factors that turn points of 3D Slicer into LPS; until version 4.10 it wrote a number for the coordinate system."""


def read_landmarks(path: str | Path, image: str | Path | Grid | None = None) -> np.ndarray:
    """Read landmarks in any of the formats of `LANDMARK_FORMATS`, recognized by the suffix and the first line.

    Parameters
    ----------
    path
        The file.
    image
        The image of the landmarks, or its grid. An image is only read if the file holds voxel numbers.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 3)``, columns x, y, z, in mm (LPS).

    Raises
    ------
    InputError
        If the file is missing, is in none of the formats, holds numbers that are not finite, or does not hold as many points
        as it says; if 3D Slicer marked points as not set; if it holds voxel numbers and no image is given, or they lie outside
        the image.

    Examples
    --------
    A file with voxel numbers is read together with the grid of its image.

    >>> import tempfile
    >>> grid = Grid(size=(9, 9, 9), spacing=(1.0, 1.0, 2.5), origin=(0.0, 0.0, -30.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "landmarks.txt")
    ...     write_landmarks(np.array([[4.0, 5.0, -25.0]]), path, "index", grid)
    ...     print(path.read_text(encoding="utf-8"))
    ...     read_landmarks(path, grid).tolist()
    index
    1
    4.0000 5.0000 2.0000
    <BLANKLINE>
    [[4.0, 5.0, -25.0]]
    """
    path = Path(path)
    kind = landmark_kind(path)
    if kind == "table":
        return read_point_table(path)[1]
    if kind == "fcsv":
        return _read_fcsv(path)[1]
    if kind == "markups":
        return _read_markups(path)[1]
    numbers = read_numbers(path)
    if numbers.shape[1] != 3:
        raise InputError(f"{path}: found {numbers.shape[1]} numbers in each row, expected x, y and z")
    if kind not in VOXEL_FORMATS:
        return numbers
    if image is None:
        raise InputError(f"{path}: found voxel numbers ({LANDMARK_FORMATS[kind]}), expected points in mm, as no image is given")
    grid = image if isinstance(image, Grid) else Grid.of(read_image(image))
    indices = _dirlab_indices(numbers, grid) if kind == "dirlab" else numbers
    points = grid.points(indices)
    outside = grid.distances_outside(points) > 0
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        voxel = ", ".join(f"{number:g}" for number in numbers[row])
        raise InputError(
            f"{path}: found landmark {row + 1} at ({voxel}), expected voxel numbers in an image of {grid.size} voxels "
            f"({LANDMARK_FORMATS[kind]})"
        )
    return points


def refuse_points_outside(points: np.ndarray, grid: Grid, path: str | Path, image: str | Path) -> None:
    """Raise `InputError` if landmarks ``(n, 3)`` in mm (LPS), read from `path`, lie outside the grid of `image`."""
    distances = grid.distances_outside(points)
    outside = np.flatnonzero(distances > 0)
    if not len(outside):
        return
    farthest = int(np.argmax(distances))
    rows = ", ".join(str(row + 1) for row in outside[:5]) + (", ..." if len(outside) > 5 else "")
    point = ", ".join(f"{value:g}" for value in points[farthest])
    raise InputError(
        f"{path}: found {len(outside)} of {len(points)} landmarks outside {image} (rows {rows}), row {farthest + 1} "
        f"by {distances[farthest]:.1f} mm, at ({point}); expected points in that image, in mm (LPS), not voxels"
    )


def landmark_kind(path: str | Path) -> str:
    """The kind of a landmark file, a key of `LANDMARK_FORMATS`.

    Raises
    ------
    InputError
        If the file cannot be read as text, or its first line fits no kind.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".fcsv"):
        return "fcsv"
    if name.endswith(".json"):
        return "markups"
    lines = _lines(path)
    first = lines[0] if lines else ""
    if name.endswith(".csv"):
        return "learn2reg" if first and all(map(_is_number, first.split(","))) else "table"
    if name.endswith(".pts"):
        return "pts"
    if first.strip() in ("point", "index"):
        return first.strip()
    if len(first.split()) == 3 and all(map(_is_number, first.split())):
        return "dirlab"
    start = f"starts with {first[:80]!r}" if first else "is an empty file"
    raise InputError(
        f"{path}: {start}, expected 'point', the number of points, then x y z in mm, or another kind of landmark file"
    )


def read_numbers(path: str | Path) -> np.ndarray:
    """The numbers in a landmark file of kind point, index, pts, dirlab or learn2reg, as they are in the file: ``(n, m)``.

    Raises
    ------
    InputError
        If the file has no rows, rows of different lengths, numbers that are not finite, or not as many rows as it says.
    """
    path = Path(path)
    kind, lines = landmark_kind(path), _lines(path)
    count = None
    if kind in ("point", "index"):
        count, lines = lines[1].strip() if len(lines) > 1 else "", lines[2:]
    elif kind == "pts":
        lines = [line for line in lines if not line.startswith("#")]
    rows = [line.split("," if kind == "learn2reg" else None) for line in lines]
    for point, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            found = f"found {len(row)} numbers for point {point} and {len(rows[0])} for point 1"
            raise InputError(f"{path}: {found}, expected three numbers x y z for each point")
    try:
        numbers = np.array(rows, float)
    except ValueError as error:
        raise InputError(f"{path}: expected three numbers x y z for each point ({error})") from error
    if not len(rows):
        raise InputError(f"{path}: {NO_POINTS}")
    is_wrong = numbers.ndim != 2 or not np.isfinite(numbers).all()
    if is_wrong or (count is not None and (count != str(len(numbers)) or numbers.shape[1] != 3)):
        points = "finite points" if count is None else f"{count} finite points"
        raise InputError(f"{path}: found an array of {numbers.shape} numbers, expected {points} of 3 coordinates")
    return numbers


def read_point_table(path: str | Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Read a CSV table with the columns x, y and z, in mm (LPS), and any others.

    Returns
    -------
    table : pandas.DataFrame
        All columns as they are in the file, as text, without blanks after the commas and around the names of columns.
    points : numpy.ndarray
        Shape ``(n, 3)``, columns x, y, z, in mm.

    Raises
    ------
    InputError
        If the file is missing, is not such a table, or has anything but finite numbers in these columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, na_filter=False, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    if not isinstance(table.index, pd.RangeIndex):
        # pandas then takes the first cells for an index, which shifts all columns.
        raise InputError(f"{path}: found rows with more cells than the header, expected {len(table.columns)}")
    table.columns = table.columns.str.strip()
    missing = [axis for axis in AXES if axis not in table.columns]
    if missing:
        columns = ", ".join(" ".join(str(column).split()) for column in table.columns)
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; found {columns}, expected x, y and z in mm (LPS)")
    try:
        points = table[list(AXES)].to_numpy(float)
    except ValueError as error:
        raise InputError(f"{path}: expected a number in each row of x, y and z ({error})") from error
    if not np.isfinite(points).all():
        row = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise InputError(f"{path}, row {row + 2}: found {', '.join(table.loc[row, list(AXES)])}, expected finite numbers")
    if not len(points):
        raise InputError(f"{path}: {NO_POINTS}")
    return table, points


def read_landmark_pair(
    fixed: str | Path, moving: str | Path, images: Sequence[str | Path | Grid | None] = (None, None)
) -> tuple[np.ndarray, np.ndarray]:
    """Read the corresponding landmarks of a pair: two arrays ``(n, 3)``, x, y, z in mm; row i corresponds to row i.

    The rows are those of the fixed file. Where both files have labels, the moving points are put into the order of the fixed
    ones (`corresponding_rows`); otherwise row i of one file corresponds to row i of the other.

    Parameters
    ----------
    fixed, moving
        Landmark files, each in any format of `read_landmarks`.
    images
        The fixed and the moving image, or their grids, for files with voxel numbers.

    Raises
    ------
    InputError
        As in `read_landmarks` and `corresponding_rows`.
    """
    points = read_landmarks(fixed, images[0]), read_landmarks(moving, images[1])
    return points[0], points[1][corresponding_rows(fixed, moving, *map(len, points))]


def corresponding_rows(fixed: str | Path, moving: str | Path, fixed_count: int, moving_count: int) -> np.ndarray:
    """Which row of one landmark file corresponds to each row of another.

    Points correspond by their labels; by the numbers that their labels end in, if all labels of a file are otherwise alike
    (``fixed-1``, ``moving-1``); or row by row, if a file has no labels, or has those that 3D Slicer gives by itself (``F-1``,
    ``F-2``, ...) and shares none of them, nor its numbers, with the other file; or if both are numbered like that, from 0 or 1.

    Parameters
    ----------
    fixed, moving
        Landmark files, which `read_landmarks` reads.
    fixed_count, moving_count
        Their numbers of points.

    Returns
    -------
    numpy.ndarray
        Shape ``(n,)``: the row of `moving` for each row of `fixed`, counted from 0.

    Raises
    ------
    InputError
        If the numbers of points differ, or both files have labels that do not correspond.
    """
    labels = [read_labels(path) for path in (fixed, moving)]
    if fixed_count != moving_count:
        found = f"{moving}: found {moving_count} landmarks, expected {fixed_count} as in {fixed}"
        raise InputError(found + _only_in(fixed, moving, *(names or [] for names in labels)))
    rows = np.arange(fixed_count)
    # One label for all points tells nothing.
    ours, theirs = (names if names and (len(rows) == 1 or len(set(names)) > 1) else [""] * len(rows) for names in labels)
    # A point without a label corresponds to any that the other file has in its row alone.
    differ = [
        row
        for row, (first, second) in enumerate(zip(ours, theirs, strict=True))
        if first != second and (first or second in ours) and (second or first in theirs)
    ]
    if not differ:
        return rows
    numbers = [_trailing_numbers(names) for names in (ours, theirs)]
    same: list[tuple[Sequence[Hashable], Sequence[Hashable]]] = [(ours, theirs), (numbers[0], numbers[1])]
    for keys, others in same:
        places = {key: row for row, key in enumerate(others)}
        if len(set(keys)) == len(rows) and set(keys) == places.keys():
            return np.array([places[key] for key in keys])
    automatic = [names in (list(rows), list(rows + 1)) for names in numbers]
    are_apart = set(ours).isdisjoint(theirs) and set(numbers[0]).isdisjoint(numbers[1])
    if all(automatic) or (any(automatic) and are_apart):
        return rows
    row = differ[0]
    raise InputError(
        f"{moving}: found the label {theirs[row]!r} for point {row + 1}, which is {ours[row]!r} in {fixed}"
        f"{_only_in(fixed, moving, ours, theirs)}; expected the same labels in both files, each once, in any order, "
        "or none, if row by row the points correspond"
    )


def read_labels(path: str | Path) -> list[str] | None:
    """The labels of the points of a landmark file, "" for a point without one; None if the file has no labels.

    Files of 3D Slicer have labels, and tables with one of the columns `LABEL_COLUMNS`.

    Raises
    ------
    InputError
        As in `read_landmarks`.
    """
    path = Path(path)
    kind = landmark_kind(path)
    if kind == "fcsv":
        return _read_fcsv(path)[0]
    if kind == "markups":
        return _read_markups(path)[0]
    if kind != "table":
        return None
    table, _ = read_point_table(path)
    columns = {column.lower(): column for column in reversed(table.columns)}
    chosen = next((columns[name] for name in LABEL_COLUMNS if name in columns), None)
    return None if chosen is None else table[chosen].str.strip().tolist()


def write_landmarks(
    points: np.ndarray,
    path: str | Path,
    kind: str = "point",
    grid: Grid | None = None,
    system: str = "LPS",
    labels: Sequence[str] | None = None,
) -> None:
    """Write points ``(n, 3)``, x, y, z in mm (LPS), to a landmark file; arguments and errors as in `format_landmarks`."""
    text = format_landmarks(points, kind, grid, system, labels)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def format_landmarks(
    points: np.ndarray,
    kind: str = "point",
    grid: Grid | None = None,
    system: str = "LPS",
    labels: Sequence[str] | None = None,
) -> str:
    """The text of a landmark file.

    Parameters
    ----------
    points
        Shape ``(n, 3)``, x, y, z in mm (LPS).
    kind
        One of `LANDMARK_FORMATS`.
    grid
        The grid of the image of the points; kinds with voxel numbers need it.
    system
        The coordinate system of 3D Slicer's files, ``LPS`` or ``RAS``, which the files state. Other kinds are always LPS.
    labels
        The labels of the points in 3D Slicer's files, n of them; None numbers the points from 1. Other kinds have no labels.

    Raises
    ------
    ValueError
        If a kind with voxel numbers has no grid, or if `system` is RAS for a kind that is not 3D Slicer's.
    """
    if system != "LPS" and kind not in SLICER_FORMATS:
        raise ValueError(f"system: found {system!r}, expected 'LPS' for landmarks of the kind {kind!r}")
    points = np.asarray(points, float) * TO_LPS[system]
    if kind in VOXEL_FORMATS:
        if grid is None:
            raise ValueError(f"grid: found none, expected that of the image for landmarks of the kind {kind!r}")
        points = grid.indices(points)
        if kind == "dirlab":
            points = _dirlab_numbers(points, grid)
    points = np.round(points, 4) + 0.0  # no -0.0000
    labels = [f"{number}" for number in range(1, len(points) + 1)] if labels is None else labels
    if kind == "markups":
        pairs = zip(labels, points.tolist(), strict=True)
        controls = [{"label": label, "position": point} for label, point in pairs]
        markups = [{"type": "Fiducial", "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": controls}]
        return json.dumps({"@schema": MARKUPS_SCHEMA, "markups": markups}, indent=1) + "\n"
    cells = [[f"{value:.4f}" for value in point] for point in points]
    if kind == "fcsv":
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        for number, (label, point) in enumerate(zip(labels, cells, strict=True), start=1):
            rows.writerow([number, *point, 0, 0, 0, 1, 1, 1, 0, " ".join(label.split()), "", ""])
        return FCSV_HEADER.format(system=system) + text.getvalue()
    separator, end = {"table": (",", "\n"), "learn2reg": (",", "\n"), "dirlab": ("\t", "\r\n")}.get(kind, (" ", "\n"))
    header = {"table": "x,y,z\n", "pts": "#X Y Z\n", "point": f"point\n{len(cells)}\n", "index": f"index\n{len(cells)}\n"}
    return header.get(kind, "") + "".join(separator.join(point) + end for point in cells)


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a landmark file ({error})") from error
    return [line for line in text.splitlines() if line.strip()]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _dirlab_indices(numbers: np.ndarray, grid: Grid) -> np.ndarray:
    """Voxel indices ``(n, 3)`` of DIR-Lab's numbers, which start at 1 and count slices from the topmost one."""
    indices = numbers - 1
    if grid.direction[8] > 0:
        indices[:, 2] = grid.size[2] - numbers[:, 2]
    return indices


def _dirlab_numbers(indices: np.ndarray, grid: Grid) -> np.ndarray:
    """DIR-Lab's voxel numbers of indices ``(n, 3)``: the inverse of `_dirlab_indices`."""
    numbers = indices + 1
    if grid.direction[8] > 0:
        numbers[:, 2] = grid.size[2] - indices[:, 2]
    return numbers


def _to_lps(points: np.ndarray, system: str, path: Path) -> np.ndarray:
    """Turn points ``(n, 3)`` of 3D Slicer into LPS, and check them."""
    if system not in TO_LPS:
        raise InputError(f"{path}: found the coordinate system {system!r}, expected LPS or RAS")
    if not len(points):
        raise InputError(f"{path}: {NO_POINTS}")
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError(f"{path}: found an array of {points.shape} numbers, expected finite points of 3 coordinates")
    return points * TO_LPS[system]


def _only_in(fixed: str | Path, moving: str | Path, ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Which labels only one of two files has, as the end of a message; "" if one has no labels or both have the same."""
    parts = []
    for path, names, others in ((fixed, ours, theirs), (moving, theirs, ours)):
        only = [name for name in dict.fromkeys(names) if name and name not in others]
        if only and any(others):
            parts.append(f"only {path} has {_listed([repr(name) for name in only])}")
    return f" ({', '.join(parts)})" if parts else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _trailing_numbers(labels: Sequence[str]) -> list[int]:
    """The numbers at the ends of labels that are otherwise alike; none if there are other labels."""
    parts = [re.fullmatch(r"(.*?)([0-9]{1,9})", label, re.DOTALL) for label in labels]
    matches = [part for part in parts if part]
    if len(matches) < len(parts) or len({match[1] for match in matches}) > 1:
        return []
    return [int(match[2]) for match in matches]


def _refuse_not_set(path: Path, points: Sequence[tuple[str, str]]) -> None:
    """Refuse points that are not set: the label of each, and its status."""
    if points:
        names = _listed([f"{label!r} ({status})" for label, status in points])
        raise InputError(f"{path}: found points that are not set: {names}; expected only points with the status defined")


def _read_fcsv(path: Path) -> tuple[list[str], np.ndarray]:
    """The labels and the points ``(n, 3)``, in mm (LPS), of a ``.fcsv`` file."""
    system, columns = None, list(FCSV_COLUMNS)
    labels: list[str] = []
    points: list[list[float]] = []
    not_set: list[tuple[str, str]] = []
    for line in _lines(path):
        if line.startswith("#"):
            name, _, value = line.partition("=")
            if "CoordinateSystem" in name:
                system = value.strip()
            elif name.strip("# ") == "columns":
                columns = [column.strip() for column in value.split(",")]
            continue
        try:
            (cells,) = csv.reader([line], strict=True)
            x, y, z = map(float, cells[1:4])
        except (ValueError, csv.Error) as error:
            expected = f"expected id,x,y,z,... in each row, x, y and z numbers ({error})"
            raise InputError(f"{path}: found {line[:80]!r}, {expected}") from error
        column = columns.index("label") if "label" in columns else len(cells)
        labels.append(cells[column].strip() if column < len(cells) else "")
        points.append([x, y, z])
        status = cells[FCSV_STATUS].strip() if len(cells) > FCSV_STATUS else ""
        if status in NOT_SET:
            not_set.append((labels[-1] or cells[0], NOT_SET[status]))
    if system is None:
        raise InputError(f"{path}: found no line '# CoordinateSystem = ', expected one with LPS or RAS")
    _refuse_not_set(path, not_set)
    return labels, _to_lps(np.array(points), system, path)


def _read_markups(path: Path) -> tuple[list[str], np.ndarray]:
    """The labels and the points ``(n, 3)``, in mm (LPS), of a ``.mrk.json`` file."""
    expected = "expected one list of control points with positions, as 3D Slicer writes it"
    try:
        lists = json.loads(path.read_text(encoding="utf-8-sig"))["markups"]
        if not isinstance(lists, list) or len(lists) != 1:
            found = f"{len(lists)} lists of points" if isinstance(lists, list) else type(lists).__name__
            raise InputError(f"{path}: cannot be read as markups (found {found}), {expected}")
        system, controls = lists[0]["coordinateSystem"], lists[0]["controlPoints"]
        units = lists[0].get("coordinateUnits", "mm")
        labels = [str(control.get("label") or "") for control in controls]
        status = [str(control.get("positionStatus", "defined")) for control in controls]
        names = [label or f"point {number}" for number, label in enumerate(labels, start=1)]
        _refuse_not_set(path, [(name, state) for name, state in zip(names, status, strict=True) if state != "defined"])
        positions = [control["position"] for control in controls]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as markups ({type(error).__name__}: {error}), {expected}") from error
    if units not in ("mm", ["mm"] * 3):
        raise InputError(f"{path}: found the coordinate units {units!r}, expected mm")
    for name, position in zip(names, positions, strict=True):
        is_list = isinstance(position, list) and len(position) == 3
        if not is_list or not all(type(value) in (int, float) and abs(value) < LARGEST for value in position):
            raise InputError(f"{path}: found the position {str(position)[:80]} of {name!r}, expected three finite numbers, mm")
    return [label.strip() for label in labels], _to_lps(np.array(positions, float), str(system), path)
