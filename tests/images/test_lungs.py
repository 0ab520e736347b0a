"""Lung segmentation: a synthetic thorax with everything that may be mistaken for lung, its crops, and real scans."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from regnet.errors import InputError
from regnet.images.lungs import segment_lungs
from regnet.images.volumes import Grid, read_ct, read_mask

GRID = Grid(size=(124, 92, 88), spacing=(3.0, 3.0, 3.0), origin=(-184.5, -136.5, -130.5))
DATA = Path(__file__).parents[3] / "shared" / "data"
CHESTS = ["lidc_idri_0314", "nsclc_rg_r01_001", "cmb_crc_msb_01068", "tcga_de_a4ma", "4d_lung_113", "lung1_001", "lung1_002"]

real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs real CT in {DATA}, which is not part of this repository")


def ellipsoid(center: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """A mask ``(z, y, x)`` on `GRID`; centre and radii are x, y, z in mm."""
    x, y, z = coordinates()
    return ((x - center[0]) / radii[0]) ** 2 + ((y - center[1]) / radii[1]) ** 2 + ((z - center[2]) / radii[2]) ** 2 <= 1


def coordinates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    z, y, x = np.indices(GRID.shape)
    return tuple(np.moveaxis(GRID.points(np.stack([x, y, z], axis=-1)), -1, 0))


@pytest.fixture(scope="module")
def thorax() -> tuple[sitk.Image, sitk.Image]:
    """CT and true lungs (3.6 litres): lungs with vessels, trachea and main bronchi, stomach bubble, room, hollow table."""
    x, y, z = coordinates()
    random = np.random.default_rng(7)
    right, left = ellipsoid((-72, 0, 0), (55, 80, 105)), ellipsoid((75, 0, 0), (50, 80, 100))
    lungs = right | left
    hu = np.full(GRID.shape, -1000.0)
    hu[((x / 160) ** 2 + (y / 110) ** 2) <= 1] = 40
    hu[(y > 118) & (abs(x) < 150)] = -100
    hu[(y > 122) & (y < 132) & (abs(x) < 146)] = -750
    hu[lungs] = -850
    for height in range(-90, 91, 24):
        hu[lungs & ((y - 10) ** 2 + (z - height) ** 2 < 16)] = 40
        hu[lungs & ((abs(x) - 70) ** 2 + (y - height) ** 2 < 25)] = 40
    hu[(x**2 + y**2 < 81) & (z > 34)] = -990
    hu[(y**2 + (z - 40 + 2 * abs(x)) ** 2 < 144) & (abs(x) < 30)] = -990
    hu[ellipsoid((60, -60, -115), (35, 25, 15))] = -990
    hu = ndimage.gaussian_filter(hu, 0.5) + random.normal(0, 15, GRID.shape)
    ct = np.clip(np.round(hu), -1024, 2000).astype(np.int16)
    return GRID.image(ct), GRID.image(lungs.astype(np.uint8))


def dice(mask: sitk.Image, reference: sitk.Image) -> float:
    inside, expected = (sitk.GetArrayViewFromImage(image) > 0 for image in (mask, reference))
    return 2 * np.count_nonzero(inside & expected) / (np.count_nonzero(inside) + np.count_nonzero(expected))


def test_finds_the_lungs_and_nothing_else(thorax):
    ct, lungs = thorax
    mask = segment_lungs(ct, "thorax")
    assert mask.GetPixelID() == sitk.sitkUInt8
    assert Grid.of(mask) == GRID
    assert set(np.unique(sitk.GetArrayViewFromImage(mask))) == {0, 1}
    assert dice(mask, lungs) > 0.96
    x, y, z = coordinates()
    inside = sitk.GetArrayViewFromImage(mask) > 0
    assert not inside[(x**2 + y**2 < 81) & (z > 30)].any(), "trachea"
    assert not inside[ellipsoid((60, -60, -115), (35, 25, 15)) & ~(sitk.GetArrayViewFromImage(lungs) > 0)].any(), "stomach"
    assert not inside[y > 110].any(), "table"
    core = ndimage.binary_erosion(sitk.GetArrayViewFromImage(lungs) > 0, iterations=3)
    assert inside[core].mean() > 0.999, "vessels"


@pytest.mark.parametrize(
    ("crop", "least"),
    [
        pytest.param((slice(0, 64), slice(None), slice(None)), 0.95, id="right lung, half the body"),
        pytest.param((slice(16, 60), slice(16, 76), slice(4, 84)), 0.95, id="right lung, no air outside the body"),
        pytest.param((slice(None), slice(None), slice(16, None)), 0.95, id="bases cut"),
        pytest.param((slice(None), slice(None), slice(18, 70)), 0.95, id="bases and tips cut"),
        pytest.param((slice(22, 105), slice(22, 70), slice(None)), 0.95, id="cut 2 to 8 mm on every side"),
    ],
)
def test_cropped_images(thorax, crop, least):
    ct, lungs = (image[crop] for image in thorax)
    assert dice(segment_lungs(ct, "crop"), lungs) > least


def test_part_of_the_other_lung_at_a_lateral_border_is_left_out(thorax):
    ct, lungs = (image[:75] for image in thorax)
    mask = sitk.GetArrayFromImage(segment_lungs(ct, "crop"))
    right = sitk.GetArrayFromImage(lungs)
    assert right[:, :, 66:].any()
    right[:, :, 62:] = 0
    assert not mask[:, :, 66:].any()
    assert dice(Grid.of(ct).image(mask.copy()), Grid.of(ct).image(right)) > 0.95


@pytest.mark.parametrize("orientation", ["RAI", "ASR"])
def test_orientation_does_not_matter(thorax, orientation):
    ct, lungs = thorax
    turned = sitk.DICOMOrient(ct, orientation)
    mask = segment_lungs(turned, orientation)
    assert Grid.of(mask) == Grid.of(turned)
    assert dice(sitk.DICOMOrient(mask, "LPS"), lungs) > 0.96


def test_oblique_direction_keeps_the_grid(thorax):
    oblique, lungs = (sitk.Image(image) for image in thorax)
    turn = sitk.Euler3DTransform((0, 0, 0), 0.2, -0.1, 0.3).GetMatrix()
    oblique.SetDirection(turn)
    lungs.SetDirection(turn)
    mask = segment_lungs(oblique, "oblique")
    assert Grid.of(mask) == Grid.of(oblique)
    assert dice(mask, lungs) > 0.95


def test_a_thorax_of_half_the_size(thorax):
    ct, lungs = (sitk.Image(image) for image in thorax)
    for image in (ct, lungs):
        image.SetSpacing((1.5, 1.5, 1.5))
    assert dice(segment_lungs(ct, "half"), lungs) > 0.93


def test_no_lung_in_soft_tissue_mri_or_air():
    random = np.random.default_rng(3)
    cases = {
        "tissue": (random.normal(40, 15, GRID.shape), "nothing below -400 HU"),
        "mri": (random.integers(0, 1500, GRID.shape), "nothing below -400 HU"),
        "air": (np.maximum(random.normal(-1000, 15, GRID.shape), -1024), "no lungs"),
    }
    for name, (values, reason) in cases.items():
        with pytest.raises(InputError, match=f"^{name}.nii.gz: found .*{reason}.* expected lungs of 0.3 to 12 litres"):
            segment_lungs(GRID.image(values.astype(np.int16)), f"{name}.nii.gz")


def test_lungs_of_an_implausible_volume(thorax):
    ct, _ = thorax
    tiny = sitk.Image(ct)
    tiny.SetSpacing((1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"^tiny: found lungs of 0\.1\d litres .* expected lungs of 0\.3 to 12 litres"):
        segment_lungs(tiny, "tiny")
    assert dice(segment_lungs(tiny, "tiny", min_volume_litres=0.1), thorax[1]) > 0.85
    with pytest.raises(InputError, match=r"expected lungs of 0\.3 to 2 litres"):
        segment_lungs(ct, "large", max_volume_litres=2)


def test_three_lungs_are_too_many():
    x, y, _ = coordinates()
    hu = np.where((x / 175) ** 2 + (y / 120) ** 2 <= 1, 40, -1000).astype(np.int16)
    vessels = np.zeros(GRID.shape, bool)
    vessels[::8, ::8] = True
    for centre in (-105, 0, 105):
        lung = ellipsoid((centre, 0, 0), (40, 80, 100))
        hu[lung] = -850
        hu[lung & vessels] = 0
    with pytest.raises(InputError, match=r"crop\.mha: found 3 large separate regions"):
        segment_lungs(GRID.image(hu), "crop.mha")


@pytest.mark.slow
@real_data
@pytest.mark.parametrize("name", CHESTS)
def test_real_chests(name):
    path = DATA / "chest_ct" / f"{name}.nii.gz"
    ct = read_ct(path)
    mask = segment_lungs(ct, str(path))
    assert Grid.of(mask) == Grid.of(ct)
    parts, count = ndimage.label(sitk.GetArrayViewFromImage(mask))
    litres = np.bincount(parts.ravel())[1:] * np.prod(ct.GetSpacing()) / 1e6
    assert 2 < litres.sum() < 6
    # One (lungs that touch) or two large parts; disease may cut off a lobe.
    assert 1 <= np.count_nonzero(litres > 0.5) <= 2
    assert count <= 6


@real_data
@pytest.mark.parametrize("name", ["fixed", "moving"])
def test_agrees_with_given_masks(name):
    folder = DATA / "lung_followup"
    assert dice(segment_lungs(read_ct(folder / f"{name}.mha"), name), read_mask(folder / f"{name}_mask.mha")) > 0.975
