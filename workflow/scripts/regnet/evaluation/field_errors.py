"""Whole fields in the lungs: the regularity of transforms, and their error where the true DVF is known."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import SimpleITK as sitk

from regnet.conventions import AXES
from regnet.errors import InputError
from regnet.evaluation.long_tables import FIELD_ERROR_COLUMNS, REGULARITY_COLUMNS
from regnet.images.boxes import bounding_box
from regnet.images.transforms import displacement_image, jacobian_determinant
from regnet.images.volumes import Grid


def pair_regularity(pair: str, transforms: Mapping[str, sitk.Transform], mask: sitk.Image) -> pd.DataFrame:
    """Jacobian determinants of the transforms of a pair in the lungs.

    Determinants are of the whole transform, affine part included, by central differences on the grid of the mask. Voxels on the
    border of that grid lack a neighbour and are left out.

    Parameters
    ----------
    pair
        Name of the pair.
    transforms
        Transform of each method, fixed to moving.
    mask
        Lung mask of the fixed image, uint8.

    Returns
    -------
    pandas.DataFrame
        One row per method, columns as in `regnet.evaluation.long_tables.REGULARITY_COLUMNS`.

    Raises
    ------
    InputError
        If the mask has no voxel away from the border.
    """
    grid, inside = _lungs(pair, mask)
    rows = []
    for method, transform in transforms.items():
        field = sitk.GetArrayFromImage(displacement_image(transform, grid))
        determinant = jacobian_determinant(field, grid)[inside].astype(float)
        unfolded = determinant[determinant > 0]
        row = {"method": method, "pair": pair, "voxels": determinant.size} | _percentiles(determinant, REGULARITY_COLUMNS)
        row |= {"min": determinant.min(), "max": determinant.max(), "folded": np.mean(determinant <= 0)}
        row["sd_log"] = np.log(unfolded).std() if unfolded.size else np.nan
        rows.append(row)
    return pd.DataFrame(rows)[list(REGULARITY_COLUMNS)]


def pair_field_errors(
    pair: str, transforms: Mapping[str, sitk.Transform], truth: sitk.Transform, mask: sitk.Image
) -> pd.DataFrame:
    """Errors of the transforms of a pair at every voxel of the lungs, ``||T(x) - T_true(x)||``.

    Parameters
    ----------
    pair
        Name of the pair.
    transforms
        Transform of each method, fixed to moving.
    truth
        The true transform, ``x + u(x)``.
    mask
        Lung mask of the fixed image, uint8.

    Returns
    -------
    pandas.DataFrame
        One row per method, columns as in `regnet.evaluation.long_tables.FIELD_ERROR_COLUMNS`.

    Raises
    ------
    InputError
        If the mask has no voxel away from the border.
    """
    grid, inside = _lungs(pair, mask)

    def displacements(transform: sitk.Transform) -> np.ndarray:
        return sitk.GetArrayFromImage(displacement_image(transform, grid))[inside].astype(float)

    true = displacements(truth)
    rows = []
    for method, transform in transforms.items():
        difference = displacements(transform) - true
        error = np.linalg.norm(difference, axis=1)
        row = {"method": method, "pair": pair, "voxels": error.size} | _percentiles(error, FIELD_ERROR_COLUMNS)
        row |= {"mean": error.mean(), "sd": error.std(ddof=1), "max": error.max()}
        row |= dict(zip((f"mean_{axis}" for axis in AXES), np.abs(difference).mean(axis=0), strict=True))
        rows.append(row)
    return pd.DataFrame(rows)[list(FIELD_ERROR_COLUMNS)]


def _lungs(pair: str, mask: sitk.Image) -> tuple[Grid, np.ndarray]:
    """The grid of the box around the lungs with a margin of one voxel, and the mask in it, bool ``(z, y, x)``.

    The mask leaves out the border of the image.
    """
    inside = np.pad(sitk.GetArrayViewFromImage(mask)[1:-1, 1:-1, 1:-1] != 0, 1)
    box = bounding_box(inside, 1)
    if not box:
        raise InputError(f"{pair}: the lung mask of the fixed image has no voxel away from its border, expected lungs")
    return Grid.of(mask[box[::-1]]), inside[box]


def _percentiles(values: np.ndarray, columns: Mapping[str, type]) -> dict[str, float]:
    """The percentiles (``p5`` ... and ``median``) of the values that a table has columns for."""
    levels = {"median": 50.0} | {column: float(column[1:]) for column in columns if column[1:].isdigit()}
    return dict(zip(levels, np.percentile(values, list(levels.values())), strict=True))
