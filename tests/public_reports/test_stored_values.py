"""Stored values taken for HU: a scan that is not in HU is refused whatever its padding, with and without masks.

Readers that ignore the offset of a DICOM file leave air at 0 and water at 1000 or 1024; a padding of -2000 hides this from a
check of the lowest value (lungmask issues 63 and 108 on GitHub).
"""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from regnet.datasets.adapters import read_raw
from regnet.errors import InputError
from regnet.experiment.inspection import file_problems
from regnet.images.volumes import Grid, read_ct
from regnet.register_scans import register_scans

GRID = Grid((60, 50, 24), (5.0, 5.0, 8.0))


def thorax(air=-1000.0, bone=1.0) -> np.ndarray:
    """A body in a room, in HU with noise: two lungs of 2.6 litres together, fat, muscle and a spine."""
    z, y, x = np.indices(GRID.shape)
    x, y, z = (x - 29.5) * 5, (y - 24.5) * 5, (z - 11.5) * 8
    hu = np.full(GRID.shape, air)
    hu[(x / 140) ** 2 + (y / 105) ** 2 <= 1] = -90
    hu[(x / 125) ** 2 + (y / 92) ** 2 <= 1] = 40
    for side in (-1, 1):
        hu[((x - 60 * side) / 45) ** 2 + (y / 75) ** 2 + (z / 90) ** 2 <= 1] = -830
    hu[(x**2 + (y - 70) ** 2) < 15**2] = 600 * bone
    hu[(abs(x) > 50) & ((x**2 + y**2) < 20)] = 40
    return hu + np.random.default_rng(0).normal(0, 20, GRID.shape)


def in_circle(values: np.ndarray, padding: float) -> np.ndarray:
    """The values inside the largest circle of each slice, and padding outside."""
    _, y, x = np.indices(GRID.shape)
    inside = np.hypot((x - 29.5) * 5, (y - 24.5) * 5) < 122
    return np.where(inside, values, padding)


def lungs() -> np.ndarray:
    return (thorax() < -600) & (thorax() > -950)


STORED = thorax() + 1024
NOT_HU = {
    "stored values": np.maximum(STORED, 0),
    "stored values, padding 0": in_circle(np.maximum(STORED, 0), 0),
    "stored values, padding -1024": in_circle(STORED, -1024),
    "stored values, padding -2000": in_circle(STORED, -2000),
    "stored values, padding -3024 around -2000": np.where(in_circle(STORED, -2000) == -2000, [[[-3024, -2000] * 30]], STORED),
    "offset 1000, padding -2048": in_circle(thorax() + 1000, -2048),
    "offset 32768": in_circle(thorax() + 32768, -2000),
    "offset subtracted twice": thorax() - 1024,
    "offset subtracted twice, padding": in_circle(thorax() - 1024, -3024),
    "inverted": -thorax(),
    "from 0 to 1, padding -1024": in_circle(np.clip((thorax() + 1000) / 1600, 0, 1), -1024),
    "from 0 to 255, padding -2000": in_circle(np.clip((thorax() + 1000) / 6.3, 0, 255), -2000),
    "padding only": np.full(GRID.shape, -2000.0),
    "padding but one voxel": np.where(np.arange(STORED.size).reshape(GRID.shape) == 9, 40, -2000.0),
}


def write(values: np.ndarray, path) -> str:
    kind = np.float32 if abs(values).max() <= 1024 else np.int32
    sitk.WriteImage(GRID.image(values.astype(kind)), path)
    return str(path)


@pytest.mark.parametrize("name", NOT_HU)
def test_a_scan_that_is_not_in_hu_is_refused(name, tmp_path):
    path = write(NOT_HU[name], tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match=r"ct\.nii\.gz: found .*, expected a .*CT.* in HU") as error:
        read_ct(path)
    assert "\n" not in str(error.value)


def test_the_values_and_the_padding_are_named(tmp_path):
    values = np.clip(NOT_HU["stored values, padding -2000"], -2000, 1600)
    values[12, 25, 25], values[12, 25, 24] = 1600, 2
    values[(values > -2000) & (values < 2)] = 2
    with pytest.raises(InputError, match=r"found intensities from 2 to 1600 and padding of -2000, expected a chest CT in HU"):
        read_ct(write(values, tmp_path / "ct.nii.gz"))


@pytest.mark.parametrize("with_masks", [False, True])
def test_such_a_scan_is_not_registered(with_masks, tmp_path):
    sitk.WriteImage(GRID.image(lungs().astype(np.uint8)), tmp_path / "lungs.nii.gz")
    good = write(thorax(), tmp_path / "good.nii.gz")
    stored = write(NOT_HU["stored values, padding -2000"], tmp_path / "stored.nii.gz")
    masks = dict.fromkeys(("fixed_mask", "moving_mask"), str(tmp_path / "lungs.nii.gz")) if with_masks else {}
    with pytest.raises(InputError, match=r"stored\.nii\.gz: found intensities from .* and padding of -2000"):
        register_scans(good, stored, tmp_path / "out", weights=[], **masks)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.nii.gz", "lungs.nii.gz", "stored.nii.gz"]


@pytest.mark.parametrize("name", ["stored values, padding -2000", "offset subtracted twice", "inverted"])
def test_the_check_of_a_cohort_names_it_from_a_few_slices(name, tmp_path):
    images = pd.DataFrame({"path": [write(NOT_HU[name], tmp_path / "ct.nii.gz")], "mask": [""]}, index=["ct"])
    pairs = pd.DataFrame(columns=["fixed", "moving", "fixed_landmarks", "moving_landmarks"])
    (problem,) = file_problems(images, pairs, 2.0, 4)
    assert "expected a chest CT in HU" in problem


def test_a_raw_file_that_is_in_hu_already_is_refused(tmp_path):
    """DIR-Lab's files have air at 0; other copies of them are in HU."""
    size, spacing = GRID.size, GRID.spacing
    np.maximum(STORED, 0)[::-1].astype("<i2").tofile(tmp_path / "stored.img")
    image = sitk.GetArrayFromImage(read_raw(tmp_path / "stored.img", size, spacing))
    assert np.median(image[lungs()]) == pytest.approx(-830, abs=3)
    thorax()[::-1].astype("<i2").tofile(tmp_path / "hu.img")
    with pytest.raises(InputError, match=r"hu\.img: after 1024 was subtracted, found .*, expected a chest CT in HU"):
        read_raw(tmp_path / "hu.img", size, spacing)


HU = {
    "a room with noise": thorax(),
    "air clamped": np.maximum(thorax(), -1000),
    "padding -2000": in_circle(thorax(), -2000),
    "padding -1024": in_circle(np.maximum(thorax(), -1024), -1024),
    "padding of two values": np.where(in_circle(thorax(), -2000) == -2000, [[[-3024, -2000] * 30]], thorax()),
    "padding 0": in_circle(thorax(), 0),
    "only the lungs, 0 around": np.where(lungs(), thorax(), 0),
    "only the lungs, -1000 around": np.where(lungs(), thorax(), -1000),
    "only the lungs, -2048 around": np.where(lungs(), thorax(), -2048),
    "cone-beam noise": thorax() + np.random.default_rng(1).normal(0, 90, GRID.shape),
    "contrast medium and metal": np.where(
        (thorax() > 500) & (thorax() < 650), 3071, np.where(thorax() > -50, thorax() + 200, thorax())
    ),
    "cropped to a lung": thorax()[:, 8:42, 6:28],
    "no noise": np.round(thorax() / 100) * 100,
}


@pytest.mark.parametrize("name", HU)
def test_a_scan_in_hu_is_read_as_it_is(name, tmp_path):
    values = np.round(HU[name]).astype(np.int16)
    image = sitk.GetImageFromArray(values)
    sitk.WriteImage(image, tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_ct(tmp_path / "ct.nii.gz")), np.maximum(values, -1024))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value, tmp_path):
    values = thorax().astype(np.float32)
    values[12, 20, 20] = value
    sitk.WriteImage(GRID.image(values), tmp_path / "ct.mha")
    with pytest.raises(InputError, match=r"ct\.mha: found voxels that are not finite numbers"):
        read_ct(tmp_path / "ct.mha")
    images = pd.DataFrame({"path": [str(tmp_path / "ct.mha")], "mask": [""]}, index=["ct"])
    pairs = pd.DataFrame(columns=["fixed", "moving", "fixed_landmarks", "moving_landmarks"])
    assert len(file_problems(images, pairs, 2.0, 4, voxels=True)) == 1
