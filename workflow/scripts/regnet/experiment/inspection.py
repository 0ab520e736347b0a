"""What is wrong with the files of a cohort: images, masks and landmarks, read no further than it takes to see.

Of images the headers are read, of their voxels a few slices: a thousand images take seconds.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from regnet.errors import InputError
from regnet.images.landmarks import VOXEL_FORMATS, landmark_kind, read_landmarks, refuse_points_outside
from regnet.images.volumes import LUNG_BELOW_HU, Grid, read_ct, read_grid, read_mask, read_slice, refuse_other_grid
from regnet.system.files import checksum

LOOKED_AT = (0.0, 0.25, 0.5)
"""Where in an image the slices are that are looked at before all of it is: parts of its height."""

SIGNATURE_BYTES = 2**16
"""Bytes of the beginning, the middle and the end of a file by which two files are told apart before all of them is compared."""


def file_problems(images: pd.DataFrame, pairs: pd.DataFrame, spacing: float, smallest: int, voxels: bool = False) -> list[str]:
    """What is wrong with the files of a cohort, a line each.

    Parameters
    ----------
    images, pairs
        Of `Cohort`, whatever else is wrong with them; files that are not there are left out.
    spacing
        Spacing in mm at which the network works.
    smallest
        Voxels of that spacing that every image has to have along each axis.
    voxels
        As for `checked_cohort`.
    """
    problems: list[str] = []
    grids: dict[str, tuple[str, Grid]] = {}
    for name, row in images[~images.index.duplicated()].iterrows():
        if not os.path.exists(row["path"]):
            continue
        try:
            grid = grids[name] = row["path"], read_grid(row["path"])
            problems += _image_problems(*grid, spacing, smallest, voxels)
        except InputError as error:
            problems.append(str(error))
        if os.path.exists(row["mask"]):
            problems += _mask_problems(row["mask"], grids.get(name), voxels)
    problems += _copies([path for path in images["path"] if os.path.isfile(path)])
    for row in pairs.to_dict("records"):
        problems += _landmark_problems(row, grids)
    return list(dict.fromkeys(problems))


def _image_problems(path: str, grid: Grid, spacing: float, smallest: int, voxels: bool) -> Iterator[str]:
    """What is wrong with an image whose header is right."""
    size = grid.isotropic(spacing).size
    if min(size) < smallest:
        extent = " x ".join(f"{side:.0f}" for side in np.multiply(grid.size, grid.spacing))
        least = f"{smallest * spacing:.0f}"
        yield f"{path}: found an image of {extent} mm, expected at least {least} mm along each axis, {smallest} voxels"
    try:
        # Air or lung is in the first slice of nearly every CT: only where none is seen all of the image is read.
        if voxels or not any(_lowest(path, grid, part) <= LUNG_BELOW_HU for part in LOOKED_AT):
            read_ct(path)
    except InputError as error:
        yield str(error)


def _lowest(path: str, grid: Grid, part: float) -> float:
    return float(np.nanmin(read_slice(path, grid, int(part * grid.size[2]))))


def _mask_problems(path: str, image: tuple[str, Grid] | None, voxels: bool) -> Iterator[str]:
    """What is wrong with a mask; `image` is that of the mask, and its grid, unless it cannot be read."""
    try:
        grid = read_grid(path)
        if image is not None:
            refuse_other_grid(path, grid, image[1])
        if voxels or not any(read_slice(path, grid, int(part * grid.size[2])).any() for part in LOOKED_AT[1:]):
            read_mask(path)
    except InputError as error:
        yield str(error)


def _landmark_problems(pair: Mapping[str, str], grids: Mapping[str, tuple[str, Grid]]) -> Iterator[str]:
    """What is wrong with the landmarks of a pair."""
    found: dict[str, np.ndarray] = {}
    for side in ("fixed", "moving"):
        path, image = pair[f"{side}_landmarks"], grids.get(pair[side])
        if not os.path.isfile(path):
            continue
        try:
            if image is None and landmark_kind(path) in VOXEL_FORMATS:
                continue  # what is wrong with the image has been said
            found[side] = read_landmarks(path, image and image[1])
            if image is not None:
                refuse_points_outside(found[side], image[1], path, image[0])
        except InputError as error:
            yield str(error)
    if len(found) < 2:
        return
    fixed, moving, path = found["fixed"], found["moving"], pair["moving_landmarks"]
    if len(fixed) != len(moving):
        yield f"{path}: found {len(moving)} landmarks, expected {len(fixed)} as in {pair['fixed_landmarks']}"
    elif np.array_equal(fixed, moving):
        yield f"{path}: found the points of {pair['fixed_landmarks']}, expected those of the image {pair['moving']}"


def _copies(paths: Sequence[str]) -> Iterator[str]:
    """A line for each image that is another one under a second name: by a link, or as a copy."""
    # Each look costs more than the one before, and is only taken at files that are the same so far.
    groups = [list(dict.fromkeys(map(os.path.normpath, paths)))]
    for look in (os.path.getsize, _signature, checksum):
        groups = [same for group in groups for same in _alike(group, look)]
    for first, *others in groups:
        yield from (f"{path}: found the same image as in {first}, expected each image once" for path in others)


def _alike(paths: Sequence[str], look: Callable[[str], object]) -> list[list[str]]:
    """The paths in groups, two or more in each, that look the same."""
    same: dict[object, list[str]] = {}
    for path in paths:
        same.setdefault(look(path), []).append(path)
    return [group for group in same.values() if len(group) > 1]


def _signature(path: str) -> str:
    """A digest of some parts of a file."""
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for start in (0, size // 2, max(0, size - SIGNATURE_BYTES)):
            file.seek(start)
            digest.update(file.read(SIGNATURE_BYTES))
    return digest.hexdigest()
