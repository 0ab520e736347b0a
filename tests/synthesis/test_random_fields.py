"""Random fields and warps as tensors: the same values as SimpleITK's."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from regnet.images.transforms import field_transform, jacobian_determinant
from regnet.images.volumes import Grid, resample
from regnet.synthesis import random_fields
from regnet.synthesis.random_fields import draw_field, interpolate, spline_coefficients, voxel_axes, warp_volume

GRID = Grid((40, 31, 36), (2.0, 2.0, 2.5))


@pytest.fixture
def field(rng):
    return draw_field(GRID.size, GRID.spacing, sigma=20, points=40, theta=5, border=10, rng=rng)


def on_grid(field):
    return field.on_lattice(*voxel_axes(GRID.size, GRID.spacing)).movedim(0, -1).numpy()


@pytest.mark.parametrize("slab", [2000, 2**22])
def test_a_warped_volume_is_that_of_simpleitk(slab, field, rng, monkeypatch):
    """Within 1 HU, on noise without any smoothness, wherever the source is inside the moving volume."""
    monkeypatch.setattr(random_fields, "SLAB_VOXELS", slab)
    moving = rng.normal(-500, 300, GRID.shape).astype(np.float32)
    displacement = on_grid(field)
    transform = field_transform(displacement, GRID)
    expected = sitk.GetArrayFromImage(resample(GRID.image(moving), transform, GRID, sitk.sitkBSpline))
    warped = warp_volume(torch.from_numpy(moving), field, GRID.spacing).numpy()
    source = displacement / GRID.spacing + np.moveaxis(np.mgrid[:36, :31, :40][::-1], 0, -1)
    inside = ((source > 0) & (source < np.array(GRID.size) - 1)).all(axis=-1)
    assert inside.sum() > 30_000
    assert np.abs(displacement).max() > 4
    assert np.abs(warped - expected)[inside].max() < 0.1


def test_splines_interpolate_the_voxels(rng):
    volume = torch.from_numpy(rng.normal(0, 300, (9, 8, 7)))
    z, y, x = (along.float() for along in torch.meshgrid(*(torch.arange(count) for count in volume.shape), indexing="ij"))
    torch.testing.assert_close(interpolate(spline_coefficients(volume), x, y, z), volume.float(), atol=0.02, rtol=0)


def test_outside_the_volume_its_border_continues(field):
    moving = torch.arange(36.0)[:, None, None].expand(GRID.shape)
    warped = warp_volume(moving, field, GRID.spacing)
    along_z = torch.from_numpy(on_grid(field)[..., 2]) / 2.5 + moving
    assert float(along_z.max()) > 35.5
    # Splines that are mirrored at the border bend a ramp there.
    torch.testing.assert_close(warped, along_z.clamp(0, 35), atol=0.3, rtol=0)


def test_the_determinant_is_that_of_the_field(field):
    determinant = field.determinant(*voxel_axes(GRID.size, GRID.spacing)).numpy()
    differences = jacobian_determinant(on_grid(field), GRID)
    inner = (slice(1, -1),) * 3
    assert determinant.std() > 0.05
    assert np.abs(determinant - differences)[inner].mean() < 0.005
    assert determinant.min() > 0.1


def test_displacements_at_points_are_those_on_the_lattice(field, rng):
    index = rng.integers(0, GRID.size, (50, 3))
    displacements = field.at(torch.from_numpy(index * GRID.spacing)).numpy()
    np.testing.assert_allclose(displacements, on_grid(field)[tuple(index.T[::-1])], atol=1e-4)
