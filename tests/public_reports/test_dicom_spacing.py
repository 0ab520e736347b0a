"""Slices at rounded positions: all readers give a DICOM series the same spacing, the mean distance of all slices.

The kind comes from ITK#441: a spacing from the first two slices, whose positions are rounded to 0.1 mm, is 1.30 mm where the
slices are 1.25 mm apart. Points in the last slices are then millimetres off, and a mask on the right grid is refused.
"""

import numpy as np
import pytest
from dicom_files import write_series

from regnet.errors import InputError
from regnet.images.volumes import Grid, read_grid, read_image, read_mask, write_image

SERIES = "1.2.826.0.1.3680043.2.1125.1"


def series(folder, heights, **options):
    slices = [np.full((6, 8), number, np.int16) for number in range(len(heights))]
    write_series(folder, heights, SERIES, slices=slices, **options)


@pytest.mark.parametrize("step", [1.25, 0.75, 0.625])
def test_all_readers_give_one_spacing(step, tmp_path, capfd):
    heights = np.round(np.arange(41) * step + 0.01 - 100, 1)
    series(tmp_path / "series", heights)
    grid = read_grid(tmp_path / "series")
    assert Grid.of(read_image(tmp_path / "series")) == grid
    # No point is off by more than the rounding of the first and last position.
    assert grid.points([0, 0, 40])[2] == pytest.approx(40 * step - 100, abs=0.1)
    assert capfd.readouterr() == ("", "")
    write_image(
        Grid(grid.size, (0.8, 0.8, 1.0 * step), grid.origin).image(np.ones(grid.shape, np.uint8)), tmp_path / "m.nii.gz"
    )
    read_mask(tmp_path / "m.nii.gz", Grid(grid.size, (0.8, 0.8, step), grid.origin))
    assert grid.spacing[2] == pytest.approx((heights[-1] - heights[0]) / 40)


def test_a_mask_on_the_grid_of_the_series_is_accepted(tmp_path):
    """Positions that are rounded, but whose mean distance is not: the first two slices are 1.3 mm apart."""
    heights = np.array([0, 1.3, 2.5, 3.8, 5, 6.3, 7.5, 8.8, 10])
    series(tmp_path / "series", heights)
    grid = Grid((8, 6, 9), (0.8, 0.8, 1.25), (-10.0, 5.0, 0.0))
    write_image(grid.image(np.ones(grid.shape, np.uint8)), tmp_path / "mask.nii.gz")
    found = read_grid(tmp_path / "series")
    assert read_mask(tmp_path / "mask.nii.gz", found).GetSize() == (8, 6, 9)
    np.testing.assert_allclose(found.points([3, 2, 8]), (-7.6, 6.6, 10))


@pytest.mark.parametrize("heights", [[0, 2.5, 5, 7.5, 10, 12.7, 15.4, 18.1], np.arange(9) ** 1.04 * 2.5])
def test_slices_that_grow_apart_are_refused(heights, tmp_path):
    """No distance stands out, but the middle slices are not where even steps would put them."""
    series(tmp_path, heights)
    with pytest.raises(InputError, match=r"mm from its place in even steps of 2\.\d\d mm"):
        read_grid(tmp_path)


def test_a_small_tilt_adds_up(tmp_path):
    """A gantry tilt of 0.8 degrees shifts neighbours by 0.035 mm, and the last slice by 1.4 mm."""
    series(tmp_path, np.arange(41) * 2.5, shear=0.014)
    with pytest.raises(InputError, match=r"found slices shifted by 1\.40 mm within their plane"):
        read_grid(tmp_path)
