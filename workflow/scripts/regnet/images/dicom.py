"""DICOM series: which files of a folder form one image, in which order, and whether a slice is missing."""

from itertools import chain
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.system.files import refuse_undecodable

UNEVEN_SLICES = 0.1
"""Largest deviation of the distance between two slices from its median, relative to the median; a missing slice has 1."""

TILT = 0.02
"""Largest shift of a slice within its plane, relative to the distance between slices; a gantry tilt of 2 degrees has 0.03."""

SERIES, MODALITY, DESCRIPTION = "0020|000e", "0008|0060", "0008|103e"

POSITION, ORIENTATION = "0020|0032", "0020|0037"


def is_slice(path: Path) -> bool:
    """Whether a file is a single slice of a DICOM series, and not a whole volume in one file."""
    with open(path, "rb") as file:
        if file.read(132)[128:] != b"DICM":
            return False
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetDimension() < 3 or reader.GetSize()[2] == 1


def series_files(path: str | Path) -> list[str]:
    """The files of a DICOM series, from the first slice to the last; or the one file that holds the whole volume.

    Parameters
    ----------
    path
        A folder with one CT series (series of other modalities are ignored), or any file of the wanted series.

    Raises
    ------
    InputError
        If there is no such series or more than one; the message lists what the folder holds. If slices are missing, doubled,
        unevenly spaced or shifted against each other.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files = {uid: _files(folder, uid) for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))}
    for name in chain.from_iterable(files.values()):
        refuse_undecodable(name)
    uid = _only_series(folder, files) if path.is_dir() else _tags(str(path)).get(SERIES, "")
    names = files.get(uid, [str(path)])
    return names if len(names) == 1 else _in_order(folder, names)


def _files(folder: Path, uid: str) -> list[str]:
    return list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))


def _only_series(folder: Path, files: dict[str, list[str]]) -> str:
    """The one CT series among those of a folder."""
    expected = "expected a folder with one DICOM series"
    if not files:
        folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        more = f" and the folders {', '.join(folders[:3])}{' ...' if len(folders) > 3 else ''}" if folders else ""
        raise InputError(f"{folder}: found no DICOM files{more}, {expected}")
    tags = {uid: _tags(names[0]) for uid, names in files.items()}
    chosen = [uid for uid in files if tags[uid].get(MODALITY, "CT") == "CT"] or list(files)
    if len(chosen) > 1:
        listed = "; ".join(
            f"{Path(files[uid][0]).name} ({len(files[uid])} slices, {tags[uid].get(DESCRIPTION, 'no description')!r})"
            for uid in sorted(chosen, key=lambda uid: files[uid][0])
        )
        raise InputError(f"{folder}: found {len(chosen)} series, {expected}, or one of these files instead: {listed}")
    return chosen[0]


def _tags(name: str) -> dict[str, str]:
    """The tags of a file for its series, modality, description, position and orientation, as far as it has them."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    wanted = (SERIES, MODALITY, DESCRIPTION, POSITION, ORIENTATION)
    return {tag: reader.GetMetaData(tag).strip() for tag in wanted if reader.HasMetaDataKey(tag)}


def _in_order(folder: Path, names: list[str]) -> list[str]:
    """Sort slices by their positions, and check their orientation, spacing and alignment."""
    try:
        tags = [_tags(name) for name in names]
        positions = np.array([slice_tags[POSITION].split("\\") for slice_tags in tags], float)
        axes = np.array([slice_tags[ORIENTATION].split("\\") for slice_tags in tags], float)
        normal = np.cross(axes[0, :3], axes[0, 3:])
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{folder}: found slices without position or orientation, expected a DICOM series of CT") from error
    if np.abs(axes - axes[0]).max() > 1e-3:
        raise InputError(f"{folder}: found slices in several orientations, expected a DICOM series of parallel slices")
    order = np.argsort(positions @ normal, kind="stable")
    names, positions = [names[number] for number in order], positions[order]
    offsets = np.diff(positions, axis=0)
    steps = offsets @ normal
    usual = float(np.median(steps))
    uneven = np.abs(steps - usual) > UNEVEN_SLICES * usual
    if usual <= 0 or uneven.any():
        number = int(np.argmax(np.abs(steps - usual))) if usual > 0 else int(np.argmin(steps))
        between = f"{Path(names[number]).name} and {Path(names[number + 1]).name}"
        raise InputError(
            f"{folder}: found {steps[number]:.2f} mm between the slices {between}, where {usual:.2f} mm is usual, expected a "
            "DICOM series without missing, doubled or uneven slices"
        )
    shifts = np.linalg.norm(offsets - np.outer(steps, normal), axis=1)
    if (shifts > TILT * usual).any():
        raise InputError(
            f"{folder}: found slices shifted by {shifts.max():.2f} mm within their plane, expected a DICOM series without "
            "gantry tilt"
        )
    return names
