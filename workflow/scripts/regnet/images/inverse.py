"""The inverse of a registration: from points of the moving image to the fixed one."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from regnet.images.transforms import compose, cover, displacement_image, jacobian_determinant, transform_points
from regnet.images.volumes import Grid

SPACING_MM = 2.0
"""Distance of the nodes of an inverse field, unless the voxels of the fixed image are larger along all axes."""

ITERATIONS, TOLERANCE = 50, 0.01
"""Of the fixed-point iteration: the most, and the largest change, in voxels, at which it ends."""

FITTED_SIDE = 10
"""The affine part of a transform is fitted to this many points along each axis."""

TRIED_POINTS = 5000
"""At so many points, at most, the round trip is measured."""


@dataclass(frozen=True)
class Inverse:
    """An inverse, and how good it is.

    Attributes
    ----------
    transform
        Maps points of the moving image to the fixed one, mm (LPS).
    mean_residual, largest_residual
        Distances, in mm, between points of the moving image and where they come back to from the fixed one: points that
        correspond to voxels of the mask, or of all of the fixed image.
    folded_fraction
        Part of these voxels where the transform folds: several points go to one, of which the inverse is one.
    """

    transform: sitk.CompositeTransform
    mean_residual: float
    largest_residual: float
    folded_fraction: float


def invert(transform: sitk.Transform, grid: Grid, mask: sitk.Image | None = None) -> Inverse:
    """Invert a transform by a fixed-point iteration (ITK's InvertDisplacementFieldImageFilter).

    The affine part, fitted to the transform, is inverted as a matrix, and the field that remains on the grid of the fixed
    image, at voxels of `SPACING_MM` or larger.

    Parameters
    ----------
    transform
        Maps points of the fixed image to the moving one, mm (LPS).
    grid
        The grid of the fixed image. Outside, the inverse continues the displacement of its border.
    mask
        Where the inverse is measured, on `grid`, not 0 inside; everywhere if None.

    Examples
    --------
    >>> shift = sitk.TranslationTransform(3, (10.0, -5.0, 2.0))
    >>> inverse = invert(shift, Grid((20, 20, 20), (2.0, 2.0, 2.0)))
    >>> [round(value, 2) for value in inverse.transform.TransformPoint((15.0, 5.0, 12.0))]
    [5.0, 10.0, 10.0]
    """
    affine = _fitted(transform, grid)
    coarse = grid.isotropic(max(SPACING_MM, min(grid.spacing)))
    rest = compose(affine.GetInverse(), transform)
    reach = np.linalg.norm(sitk.GetArrayFromImage(displacement_image(rest, coarse)), axis=-1).max() / coarse.spacing[0]
    # Beyond the grid the nodes that its inverse needs.
    extra = int(np.ceil(reach)) + 2
    x, y, z = (side + 2 * extra for side in coarse.size)
    nodes = Grid((x, y, z), coarse.spacing, tuple(coarse.points(np.full(3, -extra)).tolist()), coarse.direction)
    field = displacement_image(cover(rest, nodes), nodes)
    inverse_field = sitk.InvertDisplacementField(field, ITERATIONS, TOLERANCE, TOLERANCE / 10, False)
    inverse_rest = sitk.DisplacementFieldTransform(sitk.Cast(inverse_field, sitk.sitkVectorFloat64))
    inverse = compose(inverse_rest, affine.GetInverse())

    inside = np.ones(coarse.shape, bool)
    if mask is not None:
        coarse_mask = sitk.Resample(mask, coarse.image(inside.astype(np.uint8)), sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        inside = sitk.GetArrayViewFromImage(coarse_mask) != 0
    determinant = jacobian_determinant(sitk.GetArrayFromImage(displacement_image(transform, coarse)), coarse)
    index = np.argwhere(inside)[:, ::-1]
    corresponding = transform_points(transform, coarse.points(index[:: -(-len(index) // TRIED_POINTS)]))
    back = transform_points(transform, transform_points(inverse, corresponding))
    residuals = np.linalg.norm(back - corresponding, axis=1)
    folded = float(np.mean(determinant[inside] <= 0))
    return Inverse(inverse, float(residuals.mean()), float(residuals.max()), folded)


def _fitted(transform: sitk.Transform, grid: Grid) -> sitk.AffineTransform:
    """The affine transform that is closest to a transform at points all over a grid."""
    index = np.indices((FITTED_SIDE,) * 3).reshape(3, -1).T / (FITTED_SIDE - 1) * (np.array(grid.size) - 1)
    points = grid.points(index)
    rows, *_ = np.linalg.lstsq(np.column_stack([points, np.ones(len(points))]), transform_points(transform, points), rcond=None)
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(rows[:3].T.ravel().tolist())
    affine.SetTranslation(rows[3].tolist())
    return affine
