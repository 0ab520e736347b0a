"""A small round field of view with padding around it: a lung that its edge touches or cuts is segmented, not lost.

Padding of -2000 or -3024 HU looks like air as soon as it is raised to -1024 HU; a lung that reached it then was part of the air
around the patient (vtk-dicom issue 173 on GitHub).
"""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from regnet.images.lungs import segment_lungs
from regnet.images.volumes import Grid, read_ct

pytestmark = pytest.mark.slow

GRID = Grid((120, 90, 72), (3.0, 3.0, 3.5), (-178.5, -133.5, -124.25))


def thorax() -> tuple[np.ndarray, np.ndarray]:
    """HU with noise, and the lungs (3.2 litres), with vessels; a trachea and a table with a hollow in a room."""
    z, y, x = np.indices(GRID.shape)
    x, y, z = np.moveaxis(GRID.points(np.stack([x, y, z], axis=-1)), -1, 0)
    hu = np.full(GRID.shape, -1000.0)
    hu[(x / 160) ** 2 + (y / 105) ** 2 <= 1] = 40
    hu[(y > 113) & (abs(x) < 150)] = -100
    hu[(y > 118) & (y < 128) & (abs(x) < 146)] = -750
    lungs = np.zeros(GRID.shape, bool)
    for side in (-1, 1):
        lungs |= ((x - 73 * side) / 52) ** 2 + (y / 78) ** 2 + (z / 97) ** 2 <= 1
    hu[lungs] = -850
    for height in range(-85, 86, 21):
        hu[lungs & ((y - 10) ** 2 + (z - height) ** 2 < 16)] = 40
    hu[(x**2 + y**2 < 81) & (z > 30)] = -990
    hu = ndimage.gaussian_filter(hu, 0.5)
    return np.round(hu + np.random.default_rng(7).normal(0, 15, GRID.shape)), lungs


HU, LUNGS = thorax()


def circle(radius: float, centre: float = 0.0) -> np.ndarray:
    """A mask ``(z, y, x)`` of a cylinder around the axis ``x = centre``, ``y = 0``; in mm."""
    z, y, x = np.indices(GRID.shape)
    x, y, _ = np.moveaxis(GRID.points(np.stack([x, y, z], axis=-1)), -1, 0)
    return np.hypot(x - centre, y) < radius


def segmented(values: np.ndarray, path) -> np.ndarray:
    sitk.WriteImage(GRID.image(values.astype(np.int16)), path)
    return sitk.GetArrayFromImage(segment_lungs(read_ct(path), str(path))) > 0


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


FIELDS = {
    "it touches both lungs": (-3024, 125, 0.0, 0.97),
    "it cuts both lungs": (-2000, 112, 0.0, 0.96),
    "it cuts one lung": (-1024, 122, -22.0, 0.96),
    "it is around one lung and touches it": (-2000, 80, -73.0, 0.96),
    "both lungs are well inside": (-1024, 150, 0.0, 0.97),
}


@pytest.mark.parametrize("name", FIELDS)
def test_lungs_at_the_edge_of_the_field_of_view_are_found(name, tmp_path):
    padding, radius, centre, least = FIELDS[name]
    field = circle(radius, centre)
    mask = segmented(np.where(field, np.maximum(HU, -1024), padding), tmp_path / "ct.mha")
    expected = LUNGS & field
    if radius == 80:
        expected &= np.arange(GRID.size[0]) < 60
    assert dice(mask, expected) > least
    assert not mask[~field].any()
    assert not mask[:, 82:].any(), "table"


def test_a_field_of_view_with_a_padding_of_air(tmp_path):
    """Air and padding are both -1000, without noise in either."""
    field = circle(115)
    values = np.where(field, np.maximum(HU, -1000), -1000)
    assert dice(segmented(values, tmp_path / "ct.mha"), LUNGS & field) > 0.96


def test_the_padding_cuts_as_the_border_of_the_image_does(tmp_path):
    """The lungs are cut 12 mm deep on every lateral side: once by cropping, once by padding of the same shape."""
    inside = (slice(None), slice(22, 68), slice(22, 98))
    field = np.zeros(GRID.shape, bool)
    field[inside] = True
    padded = segmented(np.where(field, HU, -2000), tmp_path / "padded.mha")
    cropped = GRID.image(HU.astype(np.int16))[22:98, 22:68]
    by_border = sitk.GetArrayFromImage(segment_lungs(cropped, "cropped")) > 0
    assert dice(by_border, LUNGS[inside]) > 0.96
    assert dice(padded[inside], by_border) > 0.98


def test_an_erased_background_leaves_the_table_out(tmp_path):
    """All air around the patient is constant, and taken for padding; the hollow of the table is still no lung."""
    values = np.where(ndimage.gaussian_filter(HU, 2) < -970, -1024, HU)
    mask = segmented(np.where(HU < -940, -1024, values), tmp_path / "ct.mha")
    assert not mask[:, 82:].any()
    assert dice(mask, LUNGS) > 0.97
