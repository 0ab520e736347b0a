"""Random displacement fields and deformed images."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter

from regnet.errors import InputError, RegNetError
from regnet.images.transforms import field_transform, jacobian_determinant, transform_points
from regnet.images.volumes import Grid, resample, write_image
from regnet.synthesis import random_fields
from regnet.synthesis.appearance import Appearance
from regnet.synthesis.pairs import (
    SyntheticDVF,
    deform,
    deform_mask,
    draw_samples,
    other_scan,
    random_dvf,
    reachable_boxes,
    require_room,
    slide,
)
from regnet.synthesis.samples import output_points

SETTINGS = {
    "low": {"sigma": 35, "points": 80, "theta": 8},
    "medium": {"sigma": 25, "points": 100, "theta": 8},
    "high": {"sigma": 20, "points": 100, "theta": 8},
}
SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
SAMPLE_PATCHES = SCRIPTS / "sample_patches.py"
GRID = Grid((70, 60, 80), (2.0, 2.0, 2.0), (-40.0, 30.0, 100.0))


def draw(frequency, grid=GRID, seed=0):
    return random_dvf(grid, **SETTINGS[frequency], border=33, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("frequency", SETTINGS)
def test_each_component_has_the_extremes_of_its_random_vectors(frequency):
    dvf = draw(frequency)
    field = dvf.on_grid()
    assert field.shape == (80, 60, 70, 3)
    np.testing.assert_allclose(field.max(axis=(0, 1, 2)), dvf.field.vectors.numpy().max(axis=0), rtol=1e-3)
    np.testing.assert_allclose(field.min(axis=(0, 1, 2)), dvf.field.vectors.numpy().min(axis=0), rtol=1e-3)
    assert np.abs(field).max() <= 8.001
    assert np.abs(field).max() > 7


@pytest.mark.parametrize("grid", [GRID, Grid((54, 54, 54), (1.0, 1.0, 1.0)), Grid((120, 100, 140), (1.0, 1.0, 1.0))])
def test_points_keep_away_from_the_border_and_two_carry_zero(grid):
    dvf = draw("low", grid)
    extent = (np.array(grid.size) - 1) * grid.spacing
    margin = np.minimum(33, extent / 4)
    assert (dvf.field.points.numpy() >= margin).all()
    assert (dvf.field.points.numpy() <= extent - margin).all()
    assert (np.abs(dvf.field.vectors.numpy()).sum(axis=1) == 0).sum() == 2


@pytest.mark.parametrize("frequency", SETTINGS)
def test_fields_do_not_fold(frequency):
    for seed in range(3):
        assert jacobian_determinant(draw(frequency, seed=seed).on_grid(), GRID).min() > 0


def test_the_field_is_as_smooth_as_its_gaussian():
    """Power beyond the wavelength at which a Gaussian passes a hundredth of the amplitude is negligible."""
    for frequency, settings in SETTINGS.items():
        dvf = draw(frequency)
        # Without the scaling of the positive and negative parts, which bends the field where it crosses zero.
        field = SyntheticDVF(replace(dvf.field, scale=torch.ones(3, 2)), GRID).on_grid()[..., 0]
        field = field * np.hanning(80)[:, None, None] * np.hanning(60)[:, None] * np.hanning(70)
        power = np.abs(np.fft.fftn(field)) ** 2
        radius = np.sqrt(
            sum(np.square(axis) for axis in np.meshgrid(*[np.fft.fftfreq(n, 2.0) for n in field.shape], indexing="ij"))
        )
        cut_off = np.sqrt(2 * np.log(100)) / (2 * np.pi * settings["sigma"]) + 1 / 60
        assert power[radius > cut_off].sum() < 1e-3 * power.sum()


@pytest.mark.parametrize("frequency", SETTINGS)
def test_the_fast_field_equals_smoothing_at_full_resolution(frequency):
    dvf = draw(frequency)
    positions = np.round(dvf.field.points.numpy() / 2).astype(int)
    impulses = np.zeros((*GRID.shape, 3))
    np.add.at(impulses, (positions[:, 2], positions[:, 1], positions[:, 0]), dvf.field.vectors.numpy())
    on_voxels = SyntheticDVF(replace(dvf.field, points=torch.from_numpy(positions * 2.0), scale=torch.ones(3, 2)), GRID)
    smoothed = np.stack(
        [gaussian_filter(impulses[..., axis], dvf.field.sigma / 2, mode="constant", truncate=6) for axis in range(3)], -1
    )
    fast = on_voxels.on_grid()
    scale = 8 / np.abs(fast).max()
    weight = fast.ravel() @ smoothed.ravel() / (smoothed.ravel() @ smoothed.ravel())
    assert np.abs(scale * (fast - weight * smoothed)).max() < 0.01


def test_a_stored_field_gives_its_displacements_everywhere(tmp_path, oblique_grid, rng):
    dvf = random_dvf(oblique_grid, **SETTINGS["high"], border=33, rng=rng)
    dvf.save(tmp_path / "dvf.npz")
    assert (tmp_path / "dvf.npz").stat().st_size < 20_000
    stored = SyntheticDVF.load(tmp_path / "dvf.npz")
    assert np.array_equal(stored.on_grid(), dvf.on_grid())
    index = rng.integers(0, oblique_grid.size, (500, 3))
    np.testing.assert_allclose(stored.at(index), dvf.on_grid()[index[:, 2], index[:, 1], index[:, 0]], atol=0.01)


def test_a_field_depends_only_on_the_seed():
    assert np.array_equal(draw("medium", seed=4).on_grid(), draw("medium", seed=4).on_grid())
    assert not np.array_equal(draw("medium", seed=4).on_grid(), draw("medium", seed=5).on_grid())


def test_small_images_have_room_for_points_too():
    grid = Grid((20, 20, 20), (2.0, 2.0, 2.0))
    assert np.abs(random_dvf(grid, sigma=10, points=20, theta=2, border=33, rng=np.random.default_rng(0)).on_grid()).max() > 1


def test_a_field_that_must_fold_is_refused():
    with pytest.raises(RegNetError, match="theta = 60"):
        random_dvf(GRID, sigma=20, points=100, theta=60, border=33, rng=np.random.default_rng(0))


def test_a_damaged_field_is_named(tmp_path):
    (tmp_path / "dvf.npz").write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match=r"dvf\.npz"):
        SyntheticDVF.load(tmp_path / "dvf.npz")


def test_the_fixed_image_is_the_moving_one_under_the_field(oblique_grid, rng):
    moving = oblique_grid.image((rng.normal(0, 300, oblique_grid.shape)).astype(np.float32))
    moving = sitk.Cast(sitk.SmoothingRecursiveGaussian(moving, 4.0), sitk.sitkInt16)
    dvf = random_dvf(oblique_grid, **SETTINGS["high"], border=33, rng=rng)
    fixed = deform(moving, dvf, noise_sd=0, rng=rng)
    index = rng.integers(8, np.array(oblique_grid.size) - 8, (200, 3))
    points = oblique_grid.points(index)
    moved = points + dvf.at(index)
    np.testing.assert_allclose(transform_points(field_transform(dvf.on_grid(), oblique_grid), points), moved, atol=0.01)
    values = [fixed.GetPixel(*voxel) for voxel in index.tolist()]
    continuous = oblique_grid.indices(moved)
    inside = ((continuous > 0) & (continuous < np.array(oblique_grid.size) - 1)).all(axis=1)
    expected = [
        moving.EvaluateAtPhysicalPoint(point, sitk.sitkBSpline) if is_inside else 0
        for point, is_inside in zip(moved.tolist(), inside, strict=True)
    ]
    assert inside.sum() > 100
    np.testing.assert_allclose(np.array(values)[inside], np.array(expected)[inside], atol=1)


@pytest.mark.parametrize("slab", [1000, 2**22])
def test_the_fast_image_equals_resampling_at_full_resolution(slab, oblique_grid, rng, monkeypatch):
    """Within 1 HU before noise, wherever the source is inside the moving image, and only in the requested part."""
    monkeypatch.setattr(random_fields, "SLAB_VOXELS", slab)
    moving = sitk.Cast(oblique_grid.image(rng.normal(-500, 300, oblique_grid.shape).astype(np.float32)), sitk.sitkInt16)
    dvf = random_dvf(oblique_grid, **SETTINGS["high"], border=33, rng=rng)
    box = slice(5, 40), slice(8, 50), slice(0, 55)
    fast = sitk.GetArrayFromImage(deform(moving, dvf, noise_sd=0, rng=rng, boxes=[box]))
    field = dvf.on_grid()
    direct = sitk.GetArrayFromImage(resample(moving, field_transform(field, oblique_grid), oblique_grid, sitk.sitkBSpline))
    direct = direct.clip(-1024, 32767)
    source = oblique_grid.to_voxels(field) + np.moveaxis(np.mgrid[:47, :52, :60][::-1], 0, -1)
    compared = np.zeros(fast.shape, bool)
    compared[box] = ((source > 0) & (source < np.array(oblique_grid.size) - 1)).all(axis=-1)[box]
    assert compared.sum() > 60_000
    # Half an HU for rounding to int16, half for the rest.
    assert np.abs(fast - direct)[compared].max() < 1
    outside = np.ones(fast.shape, bool)
    outside[box] = False
    assert np.array_equal(fast[outside], sitk.GetArrayViewFromImage(moving)[outside])


def test_windows_in_the_lungs_see_only_what_was_deformed(rng):
    inside = np.zeros(GRID.shape, np.uint8)
    inside[38:42, 28:32, 30:40] = 1
    inside[60:63, 10:50, 12:20] = 1
    mask = GRID.image(inside)
    dvf = draw("high")
    deformed = np.zeros(GRID.shape, bool)
    for box in reachable_boxes(mask, dvf, 2):
        deformed[box] = True
    assert not deformed.all()
    for x, y, z in draw_samples(dvf, deform_mask(mask, dvf), 60, 2, rng).centres:
        assert deformed[max(0, z - 28) : z + 28, max(0, y - 28) : y + 28, max(0, x - 28) : x + 28].all()


def test_an_image_without_room_for_a_patch_is_named():
    small = Grid((54, 53, 80), (2.5, 2.5, 2.5))
    image = small.image(np.zeros(small.shape, np.int16))
    require_room(image, "case_1", 53)
    with pytest.raises(
        InputError, match=r"^case_1: found 54 x 53 x 80 voxels of 2\.5 mm, expected at least 54 along each axis"
    ):
        require_room(image, "case_1", 54)


def test_noise_has_the_requested_standard_deviation(rng):
    flat = GRID.image(np.full(GRID.shape, -800, np.int16))
    noisy = sitk.GetArrayFromImage(deform(flat, draw("low"), noise_sd=5, rng=rng))
    assert noisy.std() == pytest.approx(5, rel=0.02)
    assert noisy.mean() == pytest.approx(-800, abs=0.1)


def test_samples_are_in_the_lungs_and_hold_the_true_displacement(oblique_grid, rng):
    dvf = random_dvf(oblique_grid, **SETTINGS["low"], border=33, rng=rng)
    inside = np.zeros(oblique_grid.shape, np.uint8)
    inside[15:30, 15:35, 20:40] = 1
    mask = deform_mask(oblique_grid.image(inside), dvf)
    samples = draw_samples(dvf, mask, 50, 2, rng)
    x, y, z = samples.centres.T
    assert sitk.GetArrayFromImage(mask)[z, y, x].all()
    points = output_points(samples.centres, 2)
    physical = oblique_grid.points(points)
    transform = field_transform(dvf.on_grid(), oblique_grid)
    moved = transform_points(transform, physical.reshape(-1, 3)).reshape(points.shape)
    error = np.abs(points + samples.displacements - oblique_grid.indices(moved))
    # The transform interpolates linearly where the scaling of positive and negative parts bends the field.
    assert error.mean() < 0.005
    assert error.max() < 0.06


def test_an_image_without_lung_voxels_is_named(oblique_grid, rng, tmp_path, capfd):
    dvf = random_dvf(oblique_grid, **SETTINGS["low"], border=33, rng=rng)
    dvf.save(tmp_path / "dvf.npz")
    mask = tmp_path / "mask.nii.gz"
    sitk.WriteImage(oblique_grid.image(np.zeros(oblique_grid.shape, np.uint8)), mask)
    job = SimpleNamespace(
        input=SimpleNamespace(mask=mask, deformed_mask=mask, dvf=[tmp_path / "dvf.npz"]),
        output=SimpleNamespace(samples=[tmp_path / "samples.npz"]),
        log=[tmp_path / "job.log"],
        params=SimpleNamespace(patches={"per_pair": 5, "block": 1}, split="train", pairs=["original_low"], seed=1),
        threads=1,
        wildcards=SimpleNamespace(image="case7_baseline"),
    )
    with pytest.raises(SystemExit):
        runpy.run_path(str(SAMPLE_PATCHES), {"snakemake": job})
    assert capfd.readouterr().err == f"error: {tmp_path}/mask.nii.gz: the mask is empty, expected voxels that are not 0\n"
    assert not (tmp_path / "samples.npz").exists()


def test_a_warped_lung_mask_is_the_mask_under_the_field(oblique_grid, rng):
    dvf = random_dvf(oblique_grid, **SETTINGS["low"], border=33, rng=rng)
    inside = np.zeros(oblique_grid.shape, np.float32)
    inside[15:30, 15:35, 20:40] = 1
    soft = resample(oblique_grid.image(inside), field_transform(dvf.on_grid(), oblique_grid), oblique_grid, sitk.sitkLinear)
    hard = sitk.GetArrayFromImage(deform_mask(oblique_grid.image(inside.astype(np.uint8)), dvf))
    assert ((sitk.GetArrayFromImage(soft) > 0.99) <= hard).all()
    assert hard.sum() == pytest.approx(inside.sum(), rel=0.3)


def textured_lungs(grid, rng):
    """A textured CT, and a box of lungs in it."""
    texture = gaussian_filter(rng.normal(size=grid.shape), 2.0)
    inside = np.zeros(grid.shape, np.uint8)
    inside[12:-12, 14:-14, 14:-14] = 1
    hu = np.where(inside, -700, 0) + 60 * texture / texture.std()
    return grid.image(np.int16(hu)), grid.image(inside)


def test_another_scan_differs_and_follows_from_its_seed(rng):
    image, _ = textured_lungs(GRID, rng)
    scans = [sitk.GetArrayFromImage(other_scan(image, Appearance(), np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert scans[0].dtype == np.int16
    assert (scans[0] == scans[1]).all()
    assert np.abs(scans[0].astype(float) - scans[2]).mean() > 3
    assert np.abs(scans[0].astype(float) - sitk.GetArrayViewFromImage(image)).mean() > 3


def test_what_is_not_lung_slides_and_no_lung_comes_to_lie_outside(rng):
    image, lungs = textured_lungs(GRID, rng)
    slid = sitk.GetArrayFromImage(slide(image, lungs, rng, border=33)).astype(float)
    before, inside = sitk.GetArrayFromImage(image), sitk.GetArrayViewFromImage(lungs) != 0
    assert (slid[inside] == before[inside]).all()
    assert np.abs(slid[~inside] - before[~inside]).mean() > 20
    assert slid[~inside].min() > -400


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_pairs_on_disk_are_changed_where_the_config_says_so(level, tmp_path, rng):
    """Both images differ from what the field alone makes of the source, and still correspond under it."""
    image, lungs = textured_lungs(GRID, rng)
    write_image(image, tmp_path / "image.nii.gz")
    write_image(lungs, tmp_path / "mask.nii.gz")
    pairs = ["original_high", "deformed_high"]
    suffixes = {"deformation": "npz", "deformed_mask": "nii.gz", "original": "npy", "deformed": "npy"}
    outputs = {name: f"{tmp_path}/{name}.{suffix}" for name, suffix in suffixes.items()}
    outputs |= {
        kind: [f"{tmp_path}/{pair}.{kind}.np{'y' if kind == 'fixed' else 'z'}" for pair in pairs] for kind in ("fixed", "dvf")
    }
    synthesis = {"frequencies": SETTINGS, "moving": {**SETTINGS["low"], "noise_sd": 3}, "noise_sd": 5, "border": 33}
    synthesis |= {"smallest_size": 54, "sliding": level, "appearance": dict.fromkeys(Appearance.__annotations__, level)}
    job = SimpleNamespace(
        input=SimpleNamespace(image=f"{tmp_path}/image.nii.gz", mask=f"{tmp_path}/mask.nii.gz"),
        output=SimpleNamespace(**outputs),
        log=[str(tmp_path / "log")],
        params=SimpleNamespace(synthesis=synthesis, block=1, pairs=pairs, seed=1),
        threads=1,
        wildcards=SimpleNamespace(image="case"),
    )
    runpy.run_path(str(SCRIPTS / "synthesize.py"), {"snakemake": job})
    moving = np.load(outputs["original"])
    assert (np.abs(moving - sitk.GetArrayViewFromImage(image)).max() > 0) == (level > 0)
    dvf = SyntheticDVF.load(outputs["dvf"][0])
    fixed = np.load(outputs["fixed"][0]).astype(float)
    warped = resample(GRID.image(moving), field_transform(dvf.on_grid(), GRID), GRID, sitk.sitkLinear)
    inside = sitk.GetArrayFromImage(deform_mask(lungs, dvf)) != 0

    def likeness(values, part):
        return np.corrcoef(values[part], fixed[part])[0, 1]

    matched = sitk.GetArrayFromImage(warped)
    assert likeness(matched, inside) > (0.95 if level == 0 else 0.5)
    assert likeness(matched, inside) > likeness(moving.astype(float), inside) + 0.2
    # The whole of what is not lung follows the field only without sliding.
    around = np.zeros(GRID.shape, bool)
    around[8:-8, 8:-8, 8:-8] = True
    assert (np.abs(matched - fixed)[around & ~inside].mean() < 30) == (level == 0)
