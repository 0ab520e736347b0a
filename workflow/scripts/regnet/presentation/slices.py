"""Slices of images and fields: one plane of a pair under each transform, stored so that figures do not need the images."""

from collections.abc import Callable, Mapping

import numpy as np
import SimpleITK as sitk

from regnet.evaluation.long_tables import FREQUENCIES
from regnet.images.transforms import displacement_image, jacobian_determinant, warp
from regnet.images.volumes import Grid

PLANES = {"coronal": 1, "axial": 2, "sagittal": 0}
"""The planes of an overview, each with the image axis (x, y, z towards L, P, S) perpendicular to it."""


def field_slices(fields: Mapping[str, sitk.Transform], image: sitk.Image, mask: sitk.Image) -> dict[str, np.ndarray]:
    """Magnitude of synthetic fields on one coronal slice of the image they deform, for Figure 2.2.

    It is the slice with the largest area of the mask. Rows run from superior to inferior, columns from the patient's right to
    the left, as radiologists view images.

    Parameters
    ----------
    fields
        One transform ``x + u(x)`` per frequency (`FREQUENCIES`), for example of `regnet.images.transforms.field_transform`; its
        grid may be coarser than the image.
    image
        CT image, HU.
    mask
        Lung mask on the same grid.

    Returns
    -------
    dict
        ``low``, ``medium``, ``high``: ``||u||`` in mm, float32 ``(rows, columns)``; ``ct``: HU, int16; ``spacing``: of rows
        and columns, in mm, ``(2,)``.
    """
    slab, _ = _slab(image, mask, "coronal")
    grid = Grid.of(slab)
    slices = {"ct": _upright(slab, "coronal").astype(np.int16), "spacing": _spacing(slab, "coronal")}
    for frequency in FREQUENCIES:
        field = sitk.TransformToDisplacementField(
            fields[frequency], sitk.sitkVectorFloat64, grid.size, grid.origin, grid.spacing, grid.direction
        )
        slices[frequency] = _upright(sitk.VectorMagnitude(field), "coronal").astype(np.float32)
    return slices


def example_slices(
    pair: str, fixed: sitk.Image, mask: sitk.Image, moving: sitk.Image, transforms: Mapping[str, sitk.Transform]
) -> dict[str, np.ndarray]:
    """One coronal slice of the fixed image and of the moving image under each transform, for Figure 2.5.

    The slice is chosen and oriented as in `field_slices`.

    Parameters
    ----------
    pair
        Name of the pair.
    fixed, moving
        CT images, HU. The fixed one is isotropic.
    mask
        Lung mask on the grid of the fixed image.
    transforms
        Transform of each method to show, fixed to moving, in the order of the figure.

    Returns
    -------
    dict
        ``pair``: its name; ``spacing``: of rows and columns, in mm, ``(2,)``; ``fixed``: HU, int16 ``(rows, columns)``;
        ``mask``: uint8; then, for each method under its name, the warped moving image, HU, int16.
    """
    return {"pair": np.array(pair), **_slices("coronal", fixed, mask, transforms, _warped(moving))}


def jacobian_slices(
    pair: str, fixed: sitk.Image, mask: sitk.Image, transforms: Mapping[str, sitk.Transform]
) -> dict[str, np.ndarray]:
    """Jacobian determinant of each transform on the slice of `example_slices`.

    Parameters
    ----------
    pair, fixed, mask, transforms
        As in `example_slices`.

    Returns
    -------
    dict
        ``pair``, ``spacing``, ``fixed`` and ``mask`` as in `example_slices`; then, for each method under its name, the
        determinants, float32 ``(rows, columns)``.
    """

    def determinant(transform: sitk.Transform, grid: Grid) -> sitk.Image:
        # Central differences need the planes on both sides of the slice.
        across = grid.size.index(1)
        size, first = np.array(grid.size), np.zeros(3)
        size[across], first[across] = 3, -1
        thick = Grid(tuple(size.tolist()), grid.spacing, tuple(grid.points(first).tolist()), grid.direction)
        field = sitk.GetArrayFromImage(displacement_image(transform, thick))
        return grid.image(np.take(jacobian_determinant(field, thick), [1], axis=2 - across))

    return {"pair": np.array(pair), **_slices("coronal", fixed, mask, transforms, determinant)}


def field_error_slices(
    pair: str, fixed: sitk.Image, mask: sitk.Image, transforms: Mapping[str, sitk.Transform], truth: sitk.Transform
) -> dict[str, np.ndarray]:
    """Error of each transform, where the true one is known, on the slice of `example_slices`.

    Parameters
    ----------
    pair, fixed, mask, transforms
        As in `example_slices`.
    truth
        The true transform, ``x + u(x)``.

    Returns
    -------
    dict
        ``pair``, ``spacing``, ``fixed`` and ``mask`` as in `example_slices`; then, for each method under its name,
        ``||T(x) - T_true(x)||`` in mm, float32 ``(rows, columns)``.
    """

    def error(transform: sitk.Transform, grid: Grid) -> sitk.Image:
        return sitk.VectorMagnitude(displacement_image(transform, grid) - displacement_image(truth, grid))

    return {"pair": np.array(pair), **_slices("coronal", fixed, mask, transforms, error)}


def overview_slices(
    fixed: sitk.Image, mask: sitk.Image, moving: sitk.Image, transforms: Mapping[str, sitk.Transform]
) -> dict[str, dict[str, np.ndarray]]:
    """One slice per plane of the fixed image and of the moving image under each transform, for the overview.

    Each is the slice with the largest area of the mask, oriented as radiologists view it: superior or anterior on top, the
    patient's right or anterior side on the left.

    Parameters
    ----------
    fixed, moving
        CT images, HU, on any grids.
    mask
        Lung mask on the grid of the fixed image.
    transforms
        Transforms, fixed to moving, under any names.

    Returns
    -------
    dict
        For each of `PLANES` the arrays of `example_slices`, without ``pair``.
    """
    return {plane: _slices(plane, fixed, mask, transforms, _warped(moving)) for plane in PLANES}


Render = Callable[[sitk.Transform, Grid], sitk.Image]
"""Makes the scalar image that shows a transform, on the grid of a slice."""


def _warped(moving: sitk.Image) -> Render:
    return lambda transform, grid: warp(moving, transform, grid)


def _slices(
    plane: str, fixed: sitk.Image, mask: sitk.Image, transforms: Mapping[str, sitk.Transform], render: Render
) -> dict[str, np.ndarray]:
    """The arrays of `example_slices`, without ``pair``, in one of the `PLANES`; `render` makes those of the methods."""
    slab, mask_slab = _slab(fixed, mask, plane)
    return {
        "spacing": _spacing(slab, plane),
        "fixed": _upright(slab, plane).astype(np.int16),
        "mask": _upright(mask_slab, plane).astype(np.uint8),
        **{name: _upright(render(transform, Grid.of(slab)), plane) for name, transform in transforms.items()},
    }


def _slab(image: sitk.Image, mask: sitk.Image, plane: str) -> tuple[sitk.Image, sitk.Image]:
    """The slices of image and mask in a plane where the mask is largest, still volumes, with axes towards L, P, S."""
    image, mask = sitk.DICOMOrient(image, "LPS"), sitk.DICOMOrient(mask, "LPS")
    across = PLANES[plane]
    area = (sitk.GetArrayViewFromImage(mask) != 0).sum(axis=tuple(2 - axis for axis in range(3) if axis != across))
    first = int(area.argmax())
    box = tuple(slice(first, first + 1) if axis == across else slice(None) for axis in range(3))
    return image[box], mask[box]


def _upright(slab: sitk.Image, plane: str) -> np.ndarray:
    """The array ``(rows, columns)`` of a slab; if its rows run along z, they are flipped so that superior is on top."""
    array = sitk.GetArrayFromImage(slab).squeeze(2 - PLANES[plane])
    return array if plane == "axial" else array[::-1]


def _spacing(slab: sitk.Image, plane: str) -> np.ndarray:
    columns, rows = (side for axis, side in enumerate(slab.GetSpacing()) if axis != PLANES[plane])
    return np.array([rows, columns])
