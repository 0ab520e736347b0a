"""Transforms, beyond the known shifts: the Jacobian determinant, extended fields, and files that are no transforms."""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.images.transforms import compose, cover, jacobian_determinant, read_transform, transform_points
from regnet.images.volumes import Grid

FLIPPED = Grid((60, 52, 47), (2.0, 2.0, 2.0), (31.0, 12.5, 88.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))


@pytest.mark.parametrize("name", ["oblique", "flipped"])
def test_the_determinant_is_that_of_the_physical_field(name, oblique_grid):
    grid = {"oblique": oblique_grid, "flipped": FLIPPED}[name]
    matrix = np.array([[0.5, 0.1, 0.0], [-0.2, 0.1, 0.3], [0.0, 0.05, -0.4]])
    index = np.stack(np.meshgrid(*map(np.arange, grid.size), indexing="ij"), axis=-1)
    field = (grid.points(index) @ matrix.T).transpose(2, 1, 0, 3)
    np.testing.assert_allclose(jacobian_determinant(field, grid), np.linalg.det(np.eye(3) + matrix), atol=1e-3)


def test_a_mirroring_field_folds_everywhere(oblique_grid):
    index = np.stack(np.meshgrid(*map(np.arange, oblique_grid.size), indexing="ij"), axis=-1)
    field = (oblique_grid.points(index) * [-2.0, 0, 0]).transpose(2, 1, 0, 3)
    assert jacobian_determinant(field, oblique_grid).max() < 0


def test_what_is_not_a_transform_is_named(tmp_path):
    (tmp_path / "transform.h5").write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match=r"transform\.h5: cannot be read"):
        read_transform(tmp_path / "transform.h5")
    sitk.WriteTransform(sitk.TranslationTransform(2), str(tmp_path / "flat.tfm"))
    with pytest.raises(InputError, match=r"flat\.tfm: found a transform in 2D"):
        read_transform(tmp_path / "flat.tfm")


def bspline(grid: Grid, rng: np.random.Generator) -> sitk.BSplineTransform:
    """A B-spline on the box of a grid, with control points of random displacement."""
    transform = sitk.BSplineTransformInitializer(grid.image(np.zeros(grid.shape, np.uint8)), [4, 3, 5])
    transform.SetParameters(rng.normal(0, 3, transform.GetNumberOfParameters()).tolist())
    return transform


def field(grid: Grid, rng: np.random.Generator) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(grid.image(rng.normal(0, 3, (*grid.shape, 3))))


@pytest.mark.parametrize("kind", [bspline, field])
def test_a_transform_found_on_a_part_is_continued_in_the_whole(kind, oblique_grid, rng):
    part = Grid((20, 18, 16), oblique_grid.spacing, tuple(oblique_grid.points((22, 20, 15)).tolist()), oblique_grid.direction)
    # As elastix composes: its result follows an affine transform, so its nodes are in the space after that.
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((1.1, 0.1, 0, 0, 0.9, 0, 0.05, 0, 1))
    affine.SetTranslation((30.0, -20.0, 5.0))
    moved_part = Grid(part.size, part.spacing, tuple(transform_points(affine, [part.origin])[0].tolist()), part.direction)
    transform = compose(kind(moved_part, rng), affine)
    covered = cover(transform, oblique_grid)

    inside = part.points(rng.uniform(0.25, 0.75, (200, 3)) * np.array(part.size))
    np.testing.assert_allclose(transform_points(covered, inside), transform_points(transform, inside), atol=1e-9)
    corners = oblique_grid.corners()
    moved = transform_points(covered, corners) - transform_points(affine, corners)
    np.testing.assert_array_equal(transform_points(transform, corners), transform_points(affine, corners))
    assert np.linalg.norm(moved, axis=1).min() > 0.01
    # No jumps: along a line through the whole image, the displacement changes as slowly as it does inside.
    line = oblique_grid.points(np.linspace((0, 26, 23), (59, 26, 23), 2000))
    step = np.abs(np.diff(transform_points(covered, line) - transform_points(affine, line), axis=0)).max()
    assert step < 0.5 < np.abs(np.diff(transform_points(transform, line) - transform_points(affine, line), axis=0)).max()


@pytest.mark.parametrize("kind", [bspline, field])
def test_what_covers_the_image_stays_as_it_is(kind, oblique_grid, rng):
    composite = compose(kind(oblique_grid, rng), sitk.TranslationTransform(3))
    part, same = (transform.GetNthTransform(0) for transform in (composite, cover(composite, oblique_grid)))
    assert same.GetFixedParameters() == part.GetFixedParameters()
    assert same.GetParameters() == part.GetParameters()
