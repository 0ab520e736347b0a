"""Masks that cannot be lungs are named: inverted ones, probability maps, masks of something else or of another place.

An inverted mask, or a map whose tails cover the image, gave "lungs" of 7.5 litres and a registration that looked fine.
"""

import re

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from scipy import ndimage

from regnet.errors import InputError
from regnet.experiment.inspection import file_problems
from regnet.images.lung_masks import refuse_other_than_lungs
from regnet.images.volumes import Grid, read_ct, read_mask
from regnet.register_scans import register_scans

pytestmark = pytest.mark.slow

GRID = Grid((76, 60, 60), (4.0, 4.0, 4.0))


def thorax() -> tuple[np.ndarray, np.ndarray]:
    """A body in a room, in HU with noise, cropped as a scan of the chest is; labels of the right (1) and the left lung (2)."""
    z, y, x = np.indices(GRID.shape)
    x, y, z = (x - 37.5) * 4, (y - 29.5) * 4, (z - 29.5) * 4
    hu = np.where((x / 150) ** 2 + (y / 115) ** 2 <= 1, 40.0, -1000.0)
    labels = np.zeros(GRID.shape, np.uint8)
    for label, side in ((1, -1), (2, 1)):
        labels[((x - 70 * side) / 50) ** 2 + (y / 78) ** 2 + (z / 100) ** 2 <= 1] = label
    hu[labels > 0] = -840
    return ndimage.gaussian_filter(hu, 0.5) + np.random.default_rng(0).normal(0, 20, GRID.shape), labels


HU, LABELS = thorax()
LUNGS = LABELS > 0
DISTANCE = ndimage.distance_transform_edt(~LUNGS, sampling=4.0)
BOX = (slice(5, 55), slice(10, 50), slice(5, 71))
"""A crop to the lungs in which even the inverted mask has a plausible volume (5.3 litres)."""


def cohort(folder, hu: np.ndarray, mask: np.ndarray) -> tuple[str, str]:
    """The files of an image and its mask, with the size of the arrays and the spacing of `GRID`."""
    paths = str(folder / "ct.nii.gz"), str(folder / "lungs.nii.gz")
    for array, path in zip((np.round(hu).astype(np.int16), mask), paths, strict=True):
        sitk.WriteImage(Grid(array.shape[::-1], GRID.spacing).image(array), path)
    return paths


def problems(folder, hu: np.ndarray, mask: np.ndarray, voxels: bool = False) -> list[str]:
    """What the check of a cohort finds."""
    image, path = cohort(folder, hu, mask)
    images = pd.DataFrame({"path": [image], "mask": [path]}, index=["ct"])
    pairs = pd.DataFrame(columns=["fixed", "moving", "fixed_landmarks", "moving_landmarks"])
    return file_problems(images, pairs, 2.0, 4, voxels)


def ones(inside: np.ndarray) -> np.ndarray:
    return inside.astype(np.uint8)


BODY = ndimage.binary_fill_holes(HU[30] > -500)[None] & np.ones(GRID.shape, bool)
WRONG = {
    "inverted": (HU, ones(~LUNGS), r"found a mask of 1\d\.\d litres, expected the lungs, of 0\.02 to 12 litres"),
    "inverted, in a crop": (HU[BOX], ones(~LUNGS[BOX]), r"found a mask of which \d% is between -990 and -500 HU"),
    "all of the crop": (HU[BOX], ones(LUNGS[BOX] | True), r"found a mask with \d\d% tissue"),
    "the body": (HU, ones(BODY), r"found a mask of 13 litres, expected"),
    "the body, in a crop": (HU[BOX], ones(BODY[BOX]), r"found a mask with 6\d% tissue"),
    "tissue": (HU, ones(BODY & (DISTANCE > 8) & (np.arange(60) < 30)[:, None, None]), r"found a mask of which 0% is between"),
    "lungs with a margin of 24 mm": (HU[BOX], ones(DISTANCE[BOX] <= 24), r"found a mask with 5\d% tissue"),
    "28 mm too far left": (HU, np.roll(ones(LUNGS), 7, 2), r"found a mask with \d\d% tissue .*-\d+ HU at its edge"),
    "48 mm too low": (HU, ones(ndimage.shift(LUNGS, (-12, 0, 0), order=0)), r"found a mask with \d\d% tissue"),
    "of another image": (HU, ones(ndimage.shift(LUNGS, (0, 8, 6), order=0)), r"found a mask with \d\d% tissue"),
    "a few voxels": (HU, ones(np.cumsum(LUNGS).reshape(GRID.shape) == 9), r"found a mask of 0\.00211 litres"),
    "the image itself": (HU, np.round(HU).astype(np.int16), r"found a mask of 1\d\.\d litres"),
    "probabilities": (HU, np.exp(-DISTANCE / 8).astype(np.float32), "found values from .* not all whole numbers"),
    "probabilities in percent": (HU, (99.5 * np.exp(-DISTANCE / 8)).astype(np.float32), "found values from .* whole numbers"),
    "probabilities of 8 bits": (
        HU[BOX],
        (255 * np.exp(-DISTANCE[BOX] / 20)).astype(np.uint8),
        r"found a mask with \d\d% tissue",
    ),
    "not finite": (HU, np.where(LUNGS, 1, np.inf).astype(np.float32), "found voxels that are not finite numbers"),
    "empty": (HU, ones(LUNGS & False), "the mask is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_check_of_a_cohort_names_it(name, tmp_path):
    hu, mask, message = WRONG[name]
    (problem,) = problems(tmp_path, hu, mask, voxels=True)
    assert problem.startswith(f"{tmp_path}/lungs.nii.gz: ")
    # A few slices do not show everything: ITK reads 0 in place of infinity there.
    if name not in ("not finite", "48 mm too low"):
        assert problems(tmp_path, hu, mask) == [problem]
    assert re.search(message, problem)


def test_a_pair_with_such_a_mask_is_not_registered(tmp_path):
    image, mask = cohort(tmp_path, HU[BOX], ones(~LUNGS[BOX]))
    with pytest.raises(InputError, match=r"lungs\.nii\.gz: found a mask of which \d% is between"):
        register_scans(image, image, tmp_path / "out", weights=[], fixed_mask=mask, moving_mask=mask)
    assert not (tmp_path / "out").exists()


def consolidated(share: float) -> np.ndarray:
    """The image with the lowest part of both lungs, back to front, as bright as tissue."""
    back = LUNGS & (np.indices(GRID.shape)[1] > np.quantile(np.nonzero(LUNGS)[1], 1 - share))
    return np.where(back, 30 + np.random.default_rng(1).normal(0, 30, GRID.shape), HU)


RIGHT = {
    "lungs": (HU, LABELS),
    "the labels of lobes": (HU, LABELS * 2 + (np.indices(GRID.shape)[0] > 30) * ones(LUNGS)),
    "one lung": (HU, ones(LABELS == 1)),
    "a lobe": (HU, ones((LABELS == 2) & (np.indices(GRID.shape)[0] > 40))),
    "of 255": (HU, 255 * ones(LUNGS)),
    "floating-point, 0 and 1": (HU, LUNGS.astype(np.float32)),
    "floating-point, one fraction": (HU, np.float32(0.5) * LUNGS.astype(np.float32)),
    "floating-point labels": (HU, LABELS.astype(np.float64) * 1.0001),
    "half of them consolidated": (consolidated(0.5), LABELS),
    "a margin of 8 mm": (HU, ones(DISTANCE <= 8)),
    "emphysema": (np.where(LUNGS, HU - 115, HU), LABELS),
    "full expiration": (np.where(LUNGS, HU + 240, HU), LABELS),
    "contrast medium and metal": (np.where((HU > 80) & ~LUNGS, 3000, HU), LABELS),
    "a scan of which only the lungs are left, 0 around": (np.where(LUNGS, HU, 0), LABELS),
    "a scan of which only the lungs are left, -2000 around": (np.where(LUNGS, HU, -2000), LABELS),
    "consolidated, only the lungs are left": (np.where(LUNGS, consolidated(0.4), -1024), LABELS),
    "one lung, the other side fluid": (np.where(LABELS == 2, 10, HU), ones(LABELS == 1)),
    "cropped inside the lungs": (HU[20:40, 20:40, 14:26], ones(LUNGS[20:40, 20:40, 14:26])),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_mask_of_lungs_passes(name, tmp_path):
    hu, mask = RIGHT[name]
    assert problems(tmp_path, hu, mask) == []
    inside = read_mask(tmp_path / "lungs.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(inside), mask != 0)
    refuse_other_than_lungs(inside, read_ct(tmp_path / "ct.nii.gz"), "mask")


@pytest.mark.parametrize(("scale", "litres"), [(0.3, 0.09), (0.6, 0.7), (1.5, 11)])
def test_lungs_of_every_size_pass(scale, litres, tmp_path):
    """Of a newborn child, a child, and a tall patient with emphysema."""
    cohort(tmp_path, HU, LABELS)
    image, mask = read_ct(tmp_path / "ct.nii.gz"), read_mask(tmp_path / "lungs.nii.gz")
    for one in (image, mask):
        one.SetSpacing((4 * scale,) * 3)
    assert np.count_nonzero(LUNGS) * (4 * scale) ** 3 / 1e6 == pytest.approx(litres, rel=0.1)
    refuse_other_than_lungs(mask, image, "mask")
