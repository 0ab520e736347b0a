"""Shared by methods that find a displacement field: the pair on one grid before, and the composed transform after.

Such a method sees the moving image under the affine registration ``A``, on the grid of the fixed one, and finds ``u`` with
``I_F(x) = I_M(A(x + u(x)))``.
"""

import numpy as np
import SimpleITK as sitk

from regnet.images.transforms import compose, field_transform
from regnet.images.volumes import IDENTITY, Grid, resample

WINDOW = (-1000, 400)
"""Lowest and highest HU that these methods see: those of the network in the default config."""


def on_one_grid(
    fixed: sitk.Image,
    moving: sitk.Image,
    initial: sitk.Transform | None,
    *,
    fixed_mask: sitk.Image | None = None,
    moving_mask: sitk.Image | None = None,
) -> tuple[sitk.Image, sitk.Image]:
    """The pair on the grid of the fixed image, clipped to `WINDOW`.

    Parameters
    ----------
    fixed, moving
        HU.
    initial
        The affine registration, fixed to moving; None for none.
    fixed_mask, moving_mask
        With both, each image gets the highest HU of `WINDOW` where its mask is 0, like a body wall: the real one does not move
        with the lungs.

    Returns
    -------
    fixed, moving : SimpleITK.Image
        float32; the moving image under `initial`, by cubic B-spline.
    """
    grid, transform = Grid.of(fixed), initial or IDENTITY
    pair = [sitk.Cast(fixed, sitk.sitkFloat32), resample(moving, transform, grid, sitk.sitkBSpline)]
    pair = [sitk.Clamp(image, sitk.sitkFloat32, *WINDOW) for image in pair]
    if fixed_mask is None or moving_mask is None:
        return tuple(pair)
    masks = [fixed_mask, resample(moving_mask, transform, grid, sitk.sitkNearestNeighbor)]
    return tuple(sitk.Mask(image, mask != 0, WINDOW[1]) for image, mask in zip(pair, masks, strict=True))


def composed(initial: sitk.Transform | None, field: np.ndarray, grid: Grid) -> sitk.CompositeTransform:
    """The transform ``x -> A(x + u(x))`` of a field ``u``, shape ``(z, y, x, 3)``, components x, y, z in mm (LPS)."""
    transform = field_transform(field, grid)
    return compose(transform) if initial is None else compose(initial, transform)
