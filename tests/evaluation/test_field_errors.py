"""Measures of whole fields, on transforms whose Jacobian determinant and error are known."""

import numpy as np
import pytest
from made_landmarks import scaling, shift

from regnet.errors import InputError
from regnet.evaluation.field_errors import pair_field_errors, pair_regularity
from regnet.evaluation.long_tables import FIELD_ERROR_COLUMNS, REGULARITY_COLUMNS
from regnet.images.transforms import field_transform, read_field
from regnet.images.volumes import Grid, write_image

GRID = Grid((20, 18, 16), (2.0, 2.5, 3.0), (5.0, -4.0, 9.0))


def lungs(grid=GRID):
    mask = np.zeros(grid.shape, np.uint8)
    mask[4:12, 5:13, 6:14] = 1
    return grid.image(mask)


def test_regularity_of_affine_transforms(oblique_grid):
    for grid in (GRID, oblique_grid):
        transforms = {"affine": scaling(1.5, 2, 0.5), "mirrored": scaling(-1, 1, 1)}
        table = pair_regularity("p1", transforms, lungs(grid))
        assert list(table.columns) == list(REGULARITY_COLUMNS)
        affine, mirrored = table.iloc[0], table.iloc[1]
        assert (affine["method"], affine["pair"], affine["voxels"], affine["folded"]) == ("affine", "p1", 512, 0)
        for name in ("min", "p1", "median", "p99", "max"):
            assert affine[name] == pytest.approx(1.5, rel=1e-4)
        assert affine["sd_log"] == pytest.approx(0, abs=1e-4)
        assert mirrored["folded"] == 1
        assert np.isnan(mirrored["sd_log"])


def folding():
    """A field along x that alternates between 4 mm and 0 mm, two columns of each."""
    field = np.zeros((*GRID.shape, 3))
    x = np.arange(GRID.size[0])
    field[..., 0] = np.where(x % 4 < 2, 4.0, 0.0)
    return field_transform(field, GRID)


def test_folded_voxels_are_counted_in_the_lungs_alone():
    table = pair_regularity("p1", {"net": folding()}, lungs()).iloc[0]
    # Central differences over two columns alternate between +4 and -4 mm per 4 mm: half the determinants are 2, half are 0.
    assert table["folded"] == 0.5
    assert table["min"] == pytest.approx(0, abs=1e-6)
    assert table["max"] == pytest.approx(2, abs=1e-6)
    # All determinants of voxels that do not fold are 2.
    assert table["sd_log"] == pytest.approx(0, abs=1e-6)


def test_lungs_on_the_border_of_the_image_lack_neighbours_and_are_left_out():
    mask = GRID.image(np.ones(GRID.shape, np.uint8))
    table = pair_regularity("p1", {"affine": scaling(1.5, 2, 0.5)}, mask).iloc[0]
    assert table["voxels"] == np.prod(np.subtract(GRID.size, 2))
    assert table["min"] == pytest.approx(1.5, rel=1e-4)


def test_a_mask_without_lungs_is_refused():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[0] = 1
    with pytest.raises(InputError, match="p1: the lung mask of the fixed image has no voxel away from its border"):
        pair_regularity("p1", {"affine": shift(0, 0, 0)}, GRID.image(mask))


def test_field_errors_against_the_truth(tmp_path):
    field = np.zeros((*GRID.shape, 3), np.float32)
    field[:] = (1, 2, -2)
    field[:8] = (4, 2, -2)
    write_image(GRID.image(field), tmp_path / "dvf.nii.gz")
    truth = read_field(tmp_path / "dvf.nii.gz")
    table = pair_field_errors("p1", {"affine": shift(0, 0, 0), "net": shift(1, 2, -2)}, truth, lungs())
    assert list(table.columns) == list(FIELD_ERROR_COLUMNS)
    affine, net = table.iloc[0], table.iloc[1]
    # In half of the slices of the lungs, 4 to 7 of 4 to 11, the truth moves points 4 mm along x.
    expected = np.r_[np.full(256, np.sqrt(24)), np.full(256, 3)]
    assert affine["voxels"] == 512
    assert affine["mean"] == pytest.approx(expected.mean())
    assert affine["sd"] == pytest.approx(expected.std(ddof=1))
    assert affine[["mean_x", "mean_y", "mean_z"]].tolist() == pytest.approx([2.5, 2, 2])
    assert net[["mean", "p25", "p75", "p95", "max"]].tolist() == pytest.approx([1.5, 0, 3, 3, 3], abs=1e-6)


def test_a_file_that_is_no_field_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.nii\.gz: no such file"):
        read_field(tmp_path / "none.nii.gz")
    write_image(lungs(), tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match=r"mask\.nii\.gz: found an image in 3D with 1 components, expected"):
        read_field(tmp_path / "mask.nii.gz")
