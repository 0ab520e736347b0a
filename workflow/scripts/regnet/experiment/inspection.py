"""Find problems in the files of a cohort: images, masks and landmarks.

Only headers and a few slices of the images are read, so that a thousand images take seconds.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from regnet.errors import InputError
from regnet.images.landmarks import VOXEL_FORMATS, corresponding_rows, landmark_kind, read_landmarks, refuse_points_outside
from regnet.images.lung_masks import SUSPICIOUS_LUNG_SHARE, lung_share, refuse_other_than_lungs
from regnet.images.volumes import (
    Grid,
    hu_problem,
    mask_problem,
    read_ct,
    read_grid,
    read_mask,
    read_slice,
    refuse_other_grid,
)
from regnet.system.files import checksum

SLICES = (0.0, 0.25, 0.5)
"""Heights of the slices that are read first, as fractions of the height of an image."""

SIGNATURE_BYTES = 2**16
"""Bytes at the beginning, in the middle and at the end of files that are compared before the whole files are."""


def file_problems(images: pd.DataFrame, pairs: pd.DataFrame, spacing: float, smallest: int, voxels: bool = False) -> list[str]:
    """List the problems of the files of a cohort, one line each.

    Parameters
    ----------
    images, pairs
        Frames as in `Cohort`, but not necessarily valid; missing files are skipped.
    spacing
        Spacing in mm at which the network works.
    smallest
        Voxels of that spacing that every image must have along each axis.
    voxels
        As for `regnet.experiment.checking.checked_cohort`.
    """
    problems: list[str] = []
    grids: dict[str, tuple[str, Grid]] = {}
    for name, row in images[~images.index.duplicated()].iterrows():
        if not (os.path.isfile(row["path"]) or os.path.isdir(row["path"])):
            continue
        try:
            grid = grids[name] = row["path"], read_grid(row["path"])
            problems += _image_problems(*grid, spacing, smallest, voxels)
        except InputError as error:
            problems.append(str(error))
        if os.path.isfile(row["mask"]):
            problems += _mask_problems(row["mask"], grids.get(name), voxels)
    problems += _copies([path for path in images["path"] if os.path.isfile(path)])
    for row in pairs.to_dict("records"):
        problems += _landmark_problems(row, grids)
    return list(dict.fromkeys(problems))


def _image_problems(path: str, grid: Grid, spacing: float, smallest: int, voxels: bool) -> Iterator[str]:
    """The problems of an image with a valid header."""
    size = grid.isotropic(spacing).size
    if min(size) < smallest:
        extent = " x ".join(f"{side:.0f}" for side in np.multiply(grid.size, grid.spacing))
        least = f"{smallest * spacing:.0f}"
        yield f"{path}: found an image of {extent} mm, expected at least {least} mm along each axis, {smallest} voxels"
    try:
        # The first slice of nearly every CT contains air or lung; only an image without any in these slices is read whole.
        if voxels or all(hu_problem(_slice(path, grid, height)) for height in SLICES):
            read_ct(path)
    except InputError as error:
        yield str(error)


def _slice(path: str, grid: Grid, height: float) -> np.ndarray:
    return read_slice(path, grid, int(height * grid.size[2]))


def _mask_problems(path: str, image: tuple[str, Grid] | None, voxels: bool) -> Iterator[str]:
    """The problems of a mask; `image` is the path and the grid of its image, or None if that cannot be read."""
    try:
        grid = read_grid(path)
        if image is not None:
            refuse_other_grid(path, grid, image[1])
        if voxels or not any(_is_lung_slice(path, grid, image, height) for height in SLICES[1:]):
            mask = read_mask(path)
            if image is not None:
                refuse_other_than_lungs(mask, read_ct(image[0]), path)
    except InputError as error:
        yield str(error)


def _is_lung_slice(path: str, grid: Grid, image: tuple[str, Grid] | None, height: float) -> bool:
    """Whether a mask, and the HU of its image inside it, look as expected in one slice."""
    mask = _slice(path, grid, height)
    if mask_problem(mask):
        return False
    return image is None or lung_share(_slice(image[0], grid, height), mask != 0) >= SUSPICIOUS_LUNG_SHARE


def _landmark_problems(pair: Mapping[str, str], grids: Mapping[str, tuple[str, Grid]]) -> Iterator[str]:
    """The problems of the landmarks of a pair."""
    points: dict[str, np.ndarray] = {}
    for side in ("fixed", "moving"):
        path, image = pair[f"{side}_landmarks"], grids.get(pair[side])
        if not os.path.isfile(path):
            continue
        try:
            if image is None and landmark_kind(path) in VOXEL_FORMATS:
                continue  # The problem of the image has its own line.
            points[side] = read_landmarks(path, image and image[1])
            if image is not None:
                refuse_points_outside(points[side], image[1], path, image[0])
        except InputError as error:
            yield str(error)
    if len(points) < 2:
        return
    fixed, moving, path = points["fixed"], points["moving"], pair["moving_landmarks"]
    try:
        rows = corresponding_rows(pair["fixed_landmarks"], path, len(fixed), len(moving))
    except InputError as error:
        yield str(error)
        return
    if np.array_equal(fixed, moving[rows]):
        yield f"{path}: found the points of {pair['fixed_landmarks']}, expected those of the image {pair['moving']}"


def _copies(paths: Sequence[str]) -> Iterator[str]:
    """A line for each image that is a copy of another image, or a link to it."""
    # Each key costs more than the one before; it is only computed of files that agreed in all keys before.
    groups = [list(dict.fromkeys(map(os.path.normpath, paths)))]
    for key in (os.path.getsize, _signature, checksum):
        groups = [equal for group in groups for equal in _equal_files(group, key)]
    for first, *others in groups:
        yield from (f"{path}: found the same image as in {first}, expected each image once" for path in others)


def _equal_files(paths: Sequence[str], key: Callable[[str], object]) -> list[list[str]]:
    """Groups of at least two paths with the same key."""
    groups: dict[object, list[str]] = {}
    for path in paths:
        groups.setdefault(key(path), []).append(path)
    return [group for group in groups.values() if len(group) > 1]


def _signature(path: str) -> str:
    """The digest of `SIGNATURE_BYTES` at three places of a file."""
    size = os.path.getsize(path)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for start in (0, size // 2, max(0, size - SIGNATURE_BYTES)):
            file.seek(start)
            digest.update(file.read(SIGNATURE_BYTES))
    return digest.hexdigest()
