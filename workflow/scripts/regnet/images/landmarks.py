"""Landmarks: corresponding points in physical space, in the usual file formats."""

import json
from collections.abc import Sequence
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
        as it says; if it holds voxel numbers and no image is given, or they lie outside the image.

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
        return _read_fcsv(path)
    if kind == "markups":
        return _read_markups(path)
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
    try:
        rows = [line.split("," if kind == "learn2reg" else None) for line in lines]
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
        All columns as they are in the file, as text.
    points : numpy.ndarray
        Shape ``(n, 3)``, columns x, y, z, in mm.

    Raises
    ------
    InputError
        If the file is missing, is not such a table, or has anything but finite numbers in these columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, na_filter=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    if not isinstance(table.index, pd.RangeIndex):
        # pandas then takes the first cells for an index, which shifts all columns.
        raise InputError(f"{path}: found rows with more cells than the header, expected {len(table.columns)}")
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

    Parameters
    ----------
    fixed, moving
        Landmark files, each in any format of `read_landmarks`.
    images
        The fixed and the moving image, or their grids, for files with voxel numbers.

    Raises
    ------
    InputError
        As in `read_landmarks`, and if the files hold different numbers of points.
    """
    points = read_landmarks(fixed, images[0]), read_landmarks(moving, images[1])
    if len(points[0]) != len(points[1]):
        raise InputError(f"{moving}: found {len(points[1])} landmarks, expected {len(points[0])} as in {fixed}")
    return points


def write_landmarks(
    points: np.ndarray, path: str | Path, kind: str = "point", grid: Grid | None = None, system: str = "LPS"
) -> None:
    """Write points ``(n, 3)``, x, y, z in mm (LPS), to a landmark file; arguments and errors as in `format_landmarks`."""
    text = format_landmarks(points, kind, grid, system)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def format_landmarks(points: np.ndarray, kind: str = "point", grid: Grid | None = None, system: str = "LPS") -> str:
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
    if kind == "markups":
        controls = [{"label": f"{i}", "position": point} for i, point in enumerate(points.tolist(), start=1)]
        markups = [{"type": "Fiducial", "coordinateSystem": system, "coordinateUnits": "mm", "controlPoints": controls}]
        return json.dumps({"@schema": MARKUPS_SCHEMA, "markups": markups}, indent=1) + "\n"
    cells = [[f"{value:.4f}" for value in point] for point in points]
    if kind == "fcsv":
        rows = [f"{i},{','.join(point)},0,0,0,1,1,1,0,{i},,\n" for i, point in enumerate(cells, start=1)]
        return FCSV_HEADER.format(system=system) + "".join(rows)
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


def _read_fcsv(path: Path) -> np.ndarray:
    system, rows = None, []
    for line in _lines(path):
        if not line.startswith("#"):
            rows.append(line.split(",")[1:4])
        elif "CoordinateSystem" in line:
            system = line.partition("=")[2].strip()
    if system is None:
        raise InputError(f"{path}: found no line '# CoordinateSystem = ', expected one with LPS or RAS")
    try:
        return _to_lps(np.array(rows, float), system, path)
    except ValueError as error:
        raise InputError(f"{path}: expected id,x,y,z,... in each row, x, y and z numbers ({error})") from error


def _read_markups(path: Path) -> np.ndarray:
    try:
        (markup,) = json.loads(path.read_text(encoding="utf-8-sig"))["markups"]
        system, points = markup["coordinateSystem"], [point["position"] for point in markup["controlPoints"]]
        return _to_lps(np.array(points, float), system, path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        expected = "expected one list of control points with positions, as 3D Slicer writes it"
        raise InputError(f"{path}: cannot be read as markups ({type(error).__name__}: {error}), {expected}") from error
