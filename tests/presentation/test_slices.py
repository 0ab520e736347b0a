"""Slices of images whose orientation, fields and Jacobians are known."""

import numpy as np
import SimpleITK as sitk
from made_landmarks import scaling, shift

from regnet.evaluation.long_tables import read_slices, save_slices
from regnet.images.transforms import displacement_image, field_transform, jacobian_determinant
from regnet.images.volumes import Grid
from regnet.presentation.slices import example_slices, field_error_slices, field_slices, jacobian_slices


def phantom():
    """Image whose value is 100 * z + x index (voxels 2 x 3 x 4 mm), with a mask that is largest at y = 2."""
    grid = Grid((5, 4, 6), (2.0, 3.0, 4.0), (10.0, 20.0, 30.0))
    z, y, x = np.indices(grid.shape)
    mask = (y == 2) | ((y == 1) & (x < 2))
    return grid, grid.image((100 * z + x).astype(np.int16)), grid.image(mask.astype(np.uint8)), y


def test_slices_are_coronal_through_the_largest_mask_with_superior_on_top():
    _, image, mask, _ = phantom()
    slices = example_slices("p", image, mask, image, {"affine": shift(0, 0, 0), "regnet": shift(0, 0, 4)})
    assert list(slices) == ["pair", "spacing", "fixed", "mask", "affine", "regnet"]
    assert slices["spacing"].tolist() == [4, 2]
    assert slices["mask"].all()
    assert slices["fixed"][0].tolist() == [500, 501, 502, 503, 504]
    np.testing.assert_array_equal(slices["affine"], slices["fixed"])
    # T moves points one voxel up: each row shows the row above it in the moving image, and the top row shows air.
    np.testing.assert_array_equal(slices["regnet"][1:], slices["fixed"][:-1])
    assert (slices["regnet"][0] == -1024).all()


def test_slices_do_not_depend_on_the_direction_of_the_image():
    _, image, mask, _ = phantom()
    turned, turned_mask = (sitk.DICOMOrient(volume, "RAI") for volume in (image, mask))
    expected = example_slices("p", image, mask, image, {"affine": shift(0, 0, 0)})
    slices = example_slices("p", turned, turned_mask, image, {"affine": shift(0, 0, 0)})
    for name in ("spacing", "fixed", "mask", "affine"):
        np.testing.assert_array_equal(slices[name], expected[name])


def test_field_slices_hold_the_magnitude_in_mm(tmp_path):
    grid, image, mask, y = phantom()
    field = np.zeros((*grid.shape, 3))
    field[y == 2] = (1, 2, -2)
    field[0] = 0
    fields = {"low": field_transform(field, grid), "medium": shift(3, 4, 0), "high": shift(0, 0, 0)}
    save_slices(tmp_path / "field_slices.npz", field_slices(fields, image, mask))
    slices = read_slices(tmp_path / "field_slices.npz", ["low", "medium", "high", "ct", "spacing"])
    np.testing.assert_allclose(slices["low"][:-1], 3)
    np.testing.assert_allclose(slices["low"][-1], 0)
    np.testing.assert_allclose(slices["medium"], 5)
    assert slices["high"].shape == slices["ct"].shape == (6, 5)
    assert not slices["high"].any()


def test_jacobian_slices_hold_the_determinant_of_the_whole_transform():
    _, image, mask, _ = phantom()
    slices = jacobian_slices("p", image, mask, {"affine": scaling(1.5, 2, 0.5), "regnet": scaling(-1, 1, 1)})
    assert list(slices) == ["pair", "spacing", "fixed", "mask", "affine", "regnet"]
    assert slices["affine"].shape == slices["fixed"].shape == (6, 5)
    # Differences across the slice use its neighbours. Voxels on its border lack a neighbour and are left out.
    np.testing.assert_allclose(slices["affine"][1:-1, 1:-1], 1.5, rtol=1e-5)
    assert (slices["regnet"][1:-1, 1:-1] < 0).all()


def test_jacobian_slices_are_those_of_the_plane_shown(rng):
    grid, image, mask, _ = phantom()
    transform = field_transform(rng.normal(0, 0.5, (*grid.shape, 3)), grid)
    determinant = jacobian_slices("p", image, mask, {"net": transform})["net"]
    volume = jacobian_determinant(sitk.GetArrayFromImage(displacement_image(transform, grid)), grid)
    np.testing.assert_allclose(determinant[::-1], volume[:, 2], rtol=1e-4)


def test_error_slices_hold_the_distance_to_the_truth():
    grid, image, mask, y = phantom()
    field = np.zeros((*grid.shape, 3))
    field[y == 2] = (1, 2, -2)
    transforms = {"affine": shift(0, 0, 0), "regnet": shift(1, 2, -2)}
    slices = field_error_slices("p", image, mask, transforms, field_transform(field, grid))
    np.testing.assert_allclose(slices["affine"], 3, rtol=1e-6)
    np.testing.assert_allclose(slices["regnet"], 0, atol=1e-6)
