"""Images and grids: geometry, reading, resampling, and one clear line for a file that cannot be read."""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.conventions import AIR_HU
from regnet.errors import InputError
from regnet.images.volumes import Grid, read_ct, read_image, read_mask, resample_ct, resample_mask, write_image

ANISOTROPIC = Grid((40, 36, 16), (0.78, 0.78, 2.5), (-12.0, 7.0, -150.0))


def test_points_and_indices_are_those_of_itk(oblique_grid):
    image = oblique_grid.image(np.zeros(oblique_grid.shape, np.int16))
    index = [3, 20, 41]
    np.testing.assert_allclose(oblique_grid.points(np.array(index)), image.TransformIndexToPhysicalPoint(index))
    np.testing.assert_allclose(oblique_grid.indices(oblique_grid.points(np.array([3.25, 20.5, 41.0]))), [3.25, 20.5, 41.0])
    assert Grid.of(image) == oblique_grid


def test_displacements_rotate_with_the_grid(oblique_grid):
    one_voxel = oblique_grid.points(np.array([1, 0, 0])) - oblique_grid.points(np.array([0, 0, 0]))
    np.testing.assert_allclose(oblique_grid.to_physical(np.array([2.0, 0, 0])), one_voxel)
    np.testing.assert_allclose(oblique_grid.to_voxels(one_voxel), [1, 0, 0], atol=1e-12)


def test_an_isotropic_grid_keeps_the_box():
    grid = ANISOTROPIC.isotropic(1.0)
    assert grid.size == (31, 28, 40)
    first_corner = [frame.points(np.full(3, -0.5)) for frame in (ANISOTROPIC, grid)]
    np.testing.assert_allclose(*first_corner)
    last_corner = [frame.points(np.array(frame.size) - 0.5) for frame in (ANISOTROPIC, grid)]
    assert np.abs(last_corner[0] - last_corner[1]).max() <= 0.5


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(36, 40, 16\), expected \(16, 36, 40\)"):
        ANISOTROPIC.image(np.zeros((36, 40, 16)))


def test_resampling_does_not_move_a_smooth_image():
    x, y, z = np.moveaxis(ANISOTROPIC.points(np.stack(np.meshgrid(*map(np.arange, (40, 36, 16)), indexing="ij"), -1)), -1, 0)
    wave = (-500 + 200 * np.sin(x / 5) + 100 * np.cos(y / 6) + 5 * (z + 130) / 2).transpose(2, 1, 0)
    grid = ANISOTROPIC.isotropic(1.0)
    resampled = sitk.GetArrayFromImage(resample_ct(ANISOTROPIC.image(wave.astype(np.float32)), grid))
    x, y, z = np.moveaxis(grid.points(np.stack(np.meshgrid(*map(np.arange, grid.size), indexing="ij"), -1)), -1, 0)
    expected = (-500 + 200 * np.sin(x / 5) + 100 * np.cos(y / 6) + 5 * (z + 130) / 2).transpose(2, 1, 0)
    inner = (slice(4, -4),) * 3
    assert np.abs(resampled[inner] - expected[inner]).max() < 6


def test_coarser_voxels_average_the_noise(rng):
    noise = ANISOTROPIC.image(rng.normal(-500, 100, ANISOTROPIC.shape).astype(np.float32))
    coarse = sitk.GetArrayFromImage(resample_ct(noise, ANISOTROPIC.isotropic(3.0)))
    assert coarse.std() < 40
    assert coarse.mean() == pytest.approx(-500, abs=3)


def test_a_mask_keeps_its_volume():
    inside = np.zeros(ANISOTROPIC.shape, np.uint8)
    inside[4:12, 8:28, 8:32] = 1
    resampled = sitk.GetArrayFromImage(resample_mask(ANISOTROPIC.image(inside), ANISOTROPIC.isotropic(1.0)))
    assert resampled.sum() == pytest.approx(inside.sum() * np.prod(ANISOTROPIC.spacing), rel=0.08)
    assert set(np.unique(resampled)) == {0, 1}


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_ct_survives_the_disk_and_has_nothing_below_air(suffix, tmp_path, oblique_grid, rng):
    hounsfield = rng.integers(-2048, 1500, oblique_grid.shape).astype(np.int16)
    write_image(oblique_grid.image(hounsfield), tmp_path / f"ct{suffix}")
    image = read_ct(tmp_path / f"ct{suffix}")
    assert image.GetPixelID() == sitk.sitkInt16
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), np.maximum(hounsfield, AIR_HU))
    np.testing.assert_allclose(Grid.of(image).direction, oblique_grid.direction, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [f"ct{suffix}"]


def test_what_is_not_a_ct_is_named(tmp_path):
    text, flat, air = (tmp_path / name for name in ("text.nii.gz", "flat.mha", "air.mha"))
    text.write_text("not an image", encoding="utf-8")
    sitk.WriteImage(sitk.Image([8, 8], sitk.sitkInt16), str(flat))
    sitk.WriteImage(sitk.Image([8, 8, 8], sitk.sitkInt16) - 1024, str(air))
    for path, reason in (
        (text, "cannot be read"),
        (flat, "2D"),
        (air, "no voxel above"),
        (tmp_path / "no.mha", "no such file"),
    ):
        with pytest.raises(InputError, match=f"{path.name}.*{reason}") as error:
            read_ct(path)
        assert "\n" not in str(error.value)


def test_a_vector_image_is_refused(tmp_path):
    sitk.WriteImage(sitk.Image([8, 8, 8], sitk.sitkVectorFloat32), str(tmp_path / "dvf.mha"))
    with pytest.raises(InputError, match="3 components"):
        read_image(tmp_path / "dvf.mha")


def test_masks_are_checked_against_their_image(tmp_path):
    inside = np.zeros(ANISOTROPIC.shape, np.uint8)
    write_image(ANISOTROPIC.image(inside), tmp_path / "empty.mha")
    with pytest.raises(InputError, match=r"empty\.mha: the mask is empty"):
        read_mask(tmp_path / "empty.mha")
    inside[3:5] = 7
    write_image(ANISOTROPIC.image(inside), tmp_path / "mask.mha")
    assert sitk.GetArrayFromImage(read_mask(tmp_path / "mask.mha", ANISOTROPIC)).max() == 1
    flipped = Grid(ANISOTROPIC.size, ANISOTROPIC.spacing, ANISOTROPIC.origin, (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    for grid in (ANISOTROPIC.isotropic(1.0), flipped):
        with pytest.raises(
            InputError, match=r"mask\.mha: found a mask with the (size|origin|direction) .*, expected .* as in its image"
        ):
            read_mask(tmp_path / "mask.mha", grid)
