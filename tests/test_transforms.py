"""Transforms beyond what the known shifts prove: the Jacobian determinant, and files that are none."""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.transforms import jacobian_determinant, read_transform
from regnet.volumes import Grid

FLIPPED = Grid((60, 52, 47), (2.0, 2.0, 2.0), (31.0, 12.5, 88.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))


@pytest.mark.parametrize("name", ["oblique", "flipped"])
def test_the_determinant_is_that_of_the_physical_field(name, oblique_grid):
    grid = {"oblique": oblique_grid, "flipped": FLIPPED}[name]
    matrix = np.array([[0.5, 0.1, 0.0], [-0.2, 0.1, 0.3], [0.0, 0.05, -0.4]])
    index = np.stack(np.meshgrid(*map(np.arange, grid.size), indexing="ij"), axis=-1)
    field = (grid.points(index) @ matrix.T).transpose(2, 1, 0, 3)
    determinant = jacobian_determinant(field, grid)[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(determinant, np.linalg.det(np.eye(3) + matrix), atol=1e-3)


def test_a_mirroring_field_folds_everywhere(oblique_grid):
    index = np.stack(np.meshgrid(*map(np.arange, oblique_grid.size), indexing="ij"), axis=-1)
    field = (oblique_grid.points(index) * [-2.0, 0, 0]).transpose(2, 1, 0, 3)
    assert jacobian_determinant(field, oblique_grid)[2:-2, 2:-2, 2:-2].max() < 0


def test_what_is_not_a_transform_is_named(tmp_path):
    (tmp_path / "transform.h5").write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match=r"transform\.h5: cannot be read"):
        read_transform(tmp_path / "transform.h5")
    sitk.WriteTransform(sitk.TranslationTransform(2), str(tmp_path / "flat.tfm"))
    with pytest.raises(InputError, match=r"flat\.tfm: found a transform in 2D"):
        read_transform(tmp_path / "flat.tfm")
