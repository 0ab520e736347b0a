"""The names of `import regnet`: a registration in memory, and what can be done with it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import regnet
from regnet.api import RESULTS
from regnet.errors import ConfigError, InputError
from regnet.images.transforms import read_transform, transform_points
from regnet.images.volumes import Grid, read_image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

FIXED = Grid((44, 40, 36), (2.0, 2.0, 2.5), (-40.0, 10.0, -90.0))

SHIFT = np.array([6.0, -4.0, 5.0])
"""Displacement from the fixed to the moving scan, in mm."""

MOVING = Grid(FIXED.size, FIXED.spacing, tuple((np.array(FIXED.origin) + SHIFT).tolist()))


def scan():
    """A textured lung in tissue with air around: HU and mask, ``(z, y, x)``."""
    noise = FIXED.image(np.random.default_rng(0).normal(size=FIXED.shape).astype(np.float32))
    smooth = sitk.GetArrayFromImage(sitk.Normalize(sitk.SmoothingRecursiveGaussian(noise, 5.0)))
    lungs = np.zeros(FIXED.shape, np.uint8)
    lungs[6:-6, 7:-7, 7:-7] = 1
    hu = np.where(lungs > 0, np.clip(smooth * 120 - 780, -980, -200), 30.0)
    hu[:, :3] = -1000
    return hu, lungs


@pytest.fixture(scope="module")
def registration():
    """The same scan, whose second image lies elsewhere, without an affine registration."""
    hu, lungs = scan()
    masks = {"fixed_mask": (lungs, FIXED), "moving_mask": MOVING.image(lungs)}
    return regnet.register((hu, FIXED), MOVING.image(hu), **masks, affine=None, device="cpu", threads=1)


def inner_points():
    return FIXED.points(np.random.default_rng(2).uniform(0.35, 0.65, (20, 3)) * FIXED.size)


def test_public_names_are_there_and_cost_nothing_until_they_are_used():
    assert all(hasattr(regnet, name) for name in regnet.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        regnet.nothing  # noqa: B018
    code = "import sys, regnet; print([name for name in ('torch', 'SimpleITK', 'numpy', 'matplotlib') if name in sys.modules])"
    command = [sys.executable, "-c", code]
    process = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT / "workflow/scripts")}, capture_output=True, encoding="utf-8", check=True
    )
    assert process.stdout == "[]\n"
    assert (ROOT / "workflow/scripts/regnet/py.typed").is_file()


def test_a_shift_is_found(registration):
    np.testing.assert_allclose(registration.points(inner_points()) - inner_points(), np.tile(SHIFT, (20, 1)), atol=0.7)
    assert registration.affine is None
    assert Grid.of(registration.lungs) == FIXED


def test_field_and_inverse_belong_to_the_transform(registration):
    points = inner_points()
    field = sitk.DisplacementFieldTransform(sitk.Cast(registration.field, sitk.sitkVectorFloat64))
    np.testing.assert_allclose(transform_points(field, points), registration.points(points), atol=0.05)
    inverse = registration.inverse()
    np.testing.assert_allclose(transform_points(inverse.transform, registration.points(points)), points, atol=0.1)
    assert inverse.largest_residual < 0.5


def test_further_images_and_labels_are_warped_to_the_fixed_grid(registration):
    hu, lungs = scan()
    labels = lungs.astype(np.int32) * 7
    labels[:, :, : FIXED.size[0] // 2] *= 2
    warped = registration.warp(MOVING.image(labels), labels=True)
    assert Grid.of(warped) == FIXED
    found = sitk.GetArrayFromImage(warped)
    assert found.dtype == np.int32
    assert set(np.unique(found)) == {0, 7, 14}
    assert np.mean(found == labels) > 0.97
    values = registration.warp(MOVING.image(hu.astype(np.float32)))
    inner = (slice(10, -10),) * 3
    assert np.abs(sitk.GetArrayFromImage(values)[inner] - hu[inner]).mean() < 25
    assert np.abs(sitk.GetArrayFromImage(registration.warp())[inner] - hu[inner]).mean() < 25


def test_results_are_written(registration, tmp_path):
    report = registration.save(tmp_path / "out", inverse=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(RESULTS)
    assert report["inverse"]["folded_fraction"] == 0
    assert report["inverse"]["largest_residual_mm"] < 0.5
    assert report["lungs"]["fixed_mask"] == "given"
    points = inner_points()
    moved = transform_points(read_transform(tmp_path / "out" / "transform.h5"), points)
    np.testing.assert_allclose(moved, registration.points(points), atol=1e-6)
    back = transform_points(read_transform(tmp_path / "out" / "inverse.h5"), moved)
    np.testing.assert_allclose(back, points, atol=0.1)
    assert Grid.of(read_image(tmp_path / "out" / "warped.nii.gz")).size == FIXED.size
    registration.save(tmp_path / "out", replace=True)
    assert not (tmp_path / "out" / "inverse.h5").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fixed": (scan()[0] + 1024, FIXED)}, "fixed: found intensities from .* expected a chest CT in HU"),
        ({"moving": sitk.Image([10, 10], sitk.sitkInt16)}, "moving: found an image in 2D"),
        ({"fixed_mask": (scan()[1], MOVING)}, r"fixed_mask: found a mask with the origin"),
        ({"moving_mask": (0 * scan()[1], FIXED)}, "moving_mask: the mask is empty"),
        ({"fixed_mask": (1 - scan()[1], FIXED)}, "fixed_mask: found a mask of which"),
        (
            {"moving": (scan()[0], Grid(FIXED.size, (2e-3, 2e-3, 2.5e-3)))},
            "moving: found a spacing of 0.002 x 0.002 x 0.0025 mm",
        ),
        ({"weights": "no_such_weights"}, "no_such_weights: found no such weights"),
    ],
)
def test_what_cannot_be_registered_is_named(changes, message):
    hu, lungs = scan()
    arguments = {"fixed": (hu, FIXED), "moving": (hu, FIXED), "fixed_mask": (lungs, FIXED)} | changes
    with pytest.raises(InputError, match=message):
        regnet.register(**arguments, affine=None, device="cpu", threads=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"affine": "slow"}, "affine: found 'slow', expected one of fast, chapter, or None"),
        ({"device": "gpu"}, "device: found 'gpu', expected one of auto, cpu, cuda"),
        ({"inference": {"smooth": 3}}, "inference: found 'smooth', expected fields of InferenceSettings"),
    ],
)
def test_options_that_do_not_exist_are_named(changes, message):
    hu, lungs = scan()
    with pytest.raises(ConfigError, match=message):
        regnet.register((hu, FIXED), (hu, FIXED), fixed_mask=(lungs, FIXED), **({"affine": None, "device": "cpu"} | changes))
