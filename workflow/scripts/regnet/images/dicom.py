"""DICOM series: which files of a folder are one image, in their order, and whether a slice is missing between them."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from regnet.errors import InputError

UNEVEN_SLICES = 0.1
"""Largest deviation of a distance between neighbouring slices from the median, relative to it; a missing slice has 1."""

TILT = 0.02
"""Largest shift of a slice within its plane, relative to the distance of slices; a gantry tilted by 2 degrees has 0.03."""

SERIES, MODALITY, DESCRIPTION = "0020|000e", "0008|0060", "0008|103e"

POSITION, ORIENTATION = "0020|0032", "0020|0037"


def is_slice(path: Path) -> bool:
    """Whether a file is a single slice of a DICOM series; a whole volume in one file is none."""
    with open(path, "rb") as file:
        if file.read(132)[128:] != b"DICM":
            return False
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetDimension() < 3 or reader.GetSize()[2] == 1


def series_files(path: str | Path) -> list[str]:
    """The files of a DICOM series, from the first slice to the last; one file may be a whole volume.

    Parameters
    ----------
    path
        A folder with one CT series (others than CT do not count), or any file of the series that is meant.

    Raises
    ------
    InputError
        If there is no such series or more than one, with what there is; if slices are missing, doubled, unevenly spaced or
        shifted against each other, with the files between which it is so.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files = {uid: _files(folder, uid) for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))}
    uid = _only_series(folder, files) if path.is_dir() else _tags(str(path)).get(SERIES, "")
    names = files.get(uid, [str(path)])
    return names if len(names) == 1 else _in_order(folder, names)


def _files(folder: Path, uid: str) -> list[str]:
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))


def _only_series(folder: Path, files: dict[str, list[str]]) -> str:
    """The one CT series among those of a folder."""
    expected = "expected a folder with one DICOM series"
    if not files:
        inside = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        more = f" and the folders {', '.join(inside[:3])}{' ...' if len(inside) > 3 else ''}" if inside else ""
        raise InputError(f"{folder}: found no DICOM files{more}, {expected}")
    tags = {uid: _tags(names[0]) for uid, names in files.items()}
    chosen = [uid for uid in files if tags[uid].get(MODALITY, "CT") == "CT"] or list(files)
    if len(chosen) > 1:
        listed = "; ".join(
            f"{Path(files[uid][0]).name} ({len(files[uid])} slices, {tags[uid].get(DESCRIPTION, 'no description')!r})"
            for uid in sorted(chosen, key=lambda uid: files[uid][0])
        )
        raise InputError(f"{folder}: found {len(chosen)} series, {expected}, or one of these files in place of it: {listed}")
    return chosen[0]


def _tags(name: str) -> dict[str, str]:
    """The tags of a file that say what and where it is; those that it has."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    wanted = (SERIES, MODALITY, DESCRIPTION, POSITION, ORIENTATION)
    return {tag: reader.GetMetaData(tag).strip() for tag in wanted if reader.HasMetaDataKey(tag)}


def _in_order(folder: Path, names: list[str]) -> list[str]:
    """Names of slices in the order of their positions, which are checked."""
    try:
        tags = [_tags(name) for name in names]
        positions = np.array([one[POSITION].split("\\") for one in tags], float)
        axes = np.array([one[ORIENTATION].split("\\") for one in tags], float)
        normal = np.cross(axes[0, :3], axes[0, 3:])
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{folder}: found slices without position or orientation, expected a DICOM series of CT") from error
    if np.abs(axes - axes[0]).max() > 1e-3:
        raise InputError(f"{folder}: found slices in several orientations, expected a DICOM series of parallel slices")
    order = np.argsort(positions @ normal, kind="stable")
    names, positions = [names[number] for number in order], positions[order]
    moves = np.diff(positions, axis=0)
    steps = moves @ normal
    usual = float(np.median(steps))
    wrong = np.abs(steps - usual) > UNEVEN_SLICES * usual
    if usual <= 0 or wrong.any():
        number = int(np.argmax(np.abs(steps - usual))) if usual > 0 else int(np.argmin(steps))
        between = f"{Path(names[number]).name} and {Path(names[number + 1]).name}"
        raise InputError(
            f"{folder}: found {steps[number]:.2f} mm between the slices {between}, where {usual:.2f} mm is usual, expected a "
            "DICOM series without missing, doubled or uneven slices"
        )
    shifts = np.linalg.norm(moves - np.outer(steps, normal), axis=1)
    if (shifts > TILT * usual).any():
        raise InputError(
            f"{folder}: found slices shifted by {shifts.max():.2f} mm within their plane, expected a DICOM series without "
            "gantry tilt"
        )
    return names
