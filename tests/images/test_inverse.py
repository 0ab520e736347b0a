"""Inverses against transforms whose inverse is known, and against the round trip."""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.images.inverse import invert
from regnet.images.transforms import compose, field_transform, transform_points
from regnet.images.volumes import Grid
from regnet.synthesis.pairs import random_dvf

GRID = Grid((60, 50, 40), (1.5, 1.5, 2.5), (-40.0, 30.0, 100.0))


def affine():
    """Scans in other coordinate systems: far away, scaled, sheared."""
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([1.05, 0.02, 0, -0.03, 0.97, 0.01, 0, 0.02, 1.02])
    transform.SetTranslation([30, -200, 77])
    return transform


def points(grid, count=500):
    return grid.points(np.random.default_rng(1).uniform(0, np.array(grid.size) - 1, (count, 3)))


def test_the_inverse_of_an_affine_transform_is_its_matrix_inverse():
    inverse = invert(affine(), GRID)
    there = transform_points(affine(), points(GRID))
    np.testing.assert_allclose(transform_points(inverse.transform, there), points(GRID), atol=1e-3)
    assert inverse.largest_residual < 1e-3
    assert inverse.folded_fraction == 0


@pytest.mark.parametrize("direction", [(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), (0, 1.0, 0, -1.0, 0, 0, 0, 0, -1.0)])
def test_points_come_back_from_a_field_with_an_affine_part(direction):
    """Also on a grid whose axes are turned and left-handed."""
    grid = Grid(GRID.size, GRID.spacing, GRID.origin, direction)
    iso = grid.isotropic(2.0)
    dvf = random_dvf(iso, sigma=25, points=60, theta=6, border=20, rng=np.random.default_rng(0))
    transform = compose(affine(), field_transform(dvf.on_grid(), iso))
    displaced = transform_points(field_transform(dvf.on_grid(), iso), points(grid)) - points(grid)
    assert np.linalg.norm(displaced, axis=1).max() > 4
    inverse = invert(transform, grid)
    back = transform_points(inverse.transform, transform_points(transform, points(grid)))
    errors = np.linalg.norm(back - points(grid), axis=1)
    assert errors.mean() < 0.05
    assert errors.max() < 0.3
    assert inverse.mean_residual < 0.05
    assert inverse.mean_residual <= inverse.largest_residual < 0.4


def test_a_transform_that_folds_is_told_by_the_part_that_folds():
    grid = Grid((30, 30, 30), (2.0, 2.0, 2.0))
    field = np.zeros((*grid.shape, 3))
    # x + u(x) falls from 24 to 36 mm: slope 1 - 2.
    x = grid.points(np.indices(grid.shape[::-1]).reshape(3, -1).T).reshape(30, 30, 30, 3)[..., 0].transpose(2, 1, 0)
    field[..., 0] = -2 * (np.clip(x, 24, 36) - 30)
    transform = field_transform(field, grid)
    whole = invert(transform, grid)
    # 7 of 30 planes: those between, and with central differences not those at the ends.
    assert 0.1 < whole.folded_fraction < 0.3
    # Three points of the fixed image go to one: the inverse is one of them.
    there = np.array([[30.0, 30.0, 30.0], [22.0, 30.0, 30.0], [38.0, 30.0, 30.0]])
    moved = transform_points(transform, there)
    assert np.abs(transform_points(whole.transform, moved) - there).max() > 5
    mask = np.zeros(grid.shape, np.uint8)
    mask[:, :, 2:6] = 1
    beside = invert(transform, grid, grid.image(mask))
    assert beside.folded_fraction == 0
