"""The geometry between the output of the network, in voxels, and the transform of a registration, in mm."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn
from with_network import WINDOW, register_with

from regnet.images.transforms import transform_points
from regnet.images.volumes import Grid, resample_ct
from regnet.learning.inference import DenseNetwork
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.regnet import FIRST_OUTPUT
from regnet.registration.regnet import Stage, predict_field
from regnet.synthesis.samples import OUTPUT_STRIDE


class Constant(nn.Module):
    """In place of a network: finds the same displacement everywhere, x, y, z in voxels."""

    any_spacing = False

    def __init__(self, displacement):
        super().__init__()
        self.displacement = torch.tensor(displacement, dtype=torch.float32)

    def forward(self, fixed, moving):
        counts = [(side - 52) // OUTPUT_STRIDE for side in fixed.shape[2:]]
        return self.displacement.view(1, 3, 1, 1, 1).expand(len(fixed), 3, *counts)


class Intensity(nn.Module):
    """In place of a network: returns the fixed intensity at the point of each output."""

    any_spacing = False

    def forward(self, fixed, moving, stride=OUTPUT_STRIDE):
        first = int(FIRST_OUTPUT - 0.5)
        inner = (..., *(slice(first, side - first) for side in fixed.shape[2:]))
        return nn.functional.avg_pool3d(fixed[inner], 2, stride).expand(-1, 3, -1, -1, -1)

    def every_voxel(self, fixed, moving):
        return self.forward(fixed, moving, stride=1)


def shifted(grid, displacement, rng):
    """A textured image, and the same one moved by a displacement in mm."""
    fixed = sitk.SmoothingRecursiveGaussian(grid.image(rng.normal(-600, 2000, grid.shape).astype(np.float32)), 5.0)
    moving = sitk.Image(fixed)
    moving.SetOrigin((np.array(fixed.GetOrigin()) + displacement).tolist())
    return [sitk.Cast(image, sitk.sitkInt16) for image in (fixed, moving)]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_known_shift_comes_out_in_mm_along_the_physical_axis(axis, oblique_grid, rng):
    shift = 5.0 * np.eye(3)[axis]
    fixed, moving = shifted(oblique_grid, shift, rng)
    network = Constant(oblique_grid.to_voxels(shift))
    # Smoothing leaves a constant field as it is, and does not mix its components.
    transform = register_with(network, fixed, moving, None, smoothing=6.0)
    points = oblique_grid.points(rng.uniform(0, np.array(oblique_grid.size) - 1, (50, 3)))
    error = np.linalg.norm(transform_points(transform, points) - (points + shift), axis=1)
    assert error.max() < 0.01
    wrong_sign = np.linalg.norm(transform_points(transform, points) - (points - shift), axis=1)
    wrong_axes = np.linalg.norm(transform_points(transform, points) - (points + np.roll(shift, 1)), axis=1)
    assert min(wrong_sign.min(), wrong_axes.min()) > 5


@pytest.mark.parametrize("stride", [1, 2])
def test_an_output_is_placed_at_the_point_it_belongs_to(stride, oblique_grid):
    x, y, z = np.meshgrid(*[np.arange(size) for size in oblique_grid.size], indexing="ij")
    ramp = oblique_grid.image((3 * x - 2 * y + 4 * z - 500).transpose(2, 1, 0).astype(np.int16))
    network = DenseNetwork(Intensity(), window=WINDOW, settings=InferenceSettings(stride=stride, precision="float32"))
    field, lattice = predict_field(network, ramp, ramp)
    index = np.stack(np.meshgrid(*[np.arange(size) for size in lattice.size], indexing="ij"), axis=-1)
    points = lattice.points(index[1:-1, 1:-1, 1:-1])
    voxels = oblique_grid.to_voxels(field).transpose(2, 1, 0, 3)[1:-1, 1:-1, 1:-1]
    expected = (oblique_grid.indices(points) @ [3, -2, 4] + 500) / 500
    np.testing.assert_allclose(voxels, np.repeat(expected[..., None], 3, axis=-1), atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_fields_are_smoothed_with_a_gaussian_in_mm(axis, oblique_grid, rng):
    """A Gaussian of 3 mm damps a wave of displacements, 24 mm long, as theory says."""
    length, sigma = 24.0, 3.0
    phase = 2 * np.pi / length * oblique_grid.spacing[axis] * np.indices(oblique_grid.shape)[2 - axis]
    wave = oblique_grid.image((400 * np.cos(phase) - 500).astype(np.int16))
    points = oblique_grid.points(rng.uniform(0.3, 0.7, (500, 3)) * oblique_grid.size)
    heights = []
    for smoothing in (0.0, sigma):
        transform = register_with(Intensity(), wave, wave, None, smoothing=smoothing, precision="float32")
        heights.append(oblique_grid.to_voxels(transform_points(transform, points) - points).std(axis=0))
    np.testing.assert_allclose(heights[1] / heights[0], np.exp(-2 * (np.pi * sigma / length) ** 2), rtol=0.02)


def test_the_field_is_composed_with_the_initial_transform_and_not_added(oblique_grid, rng):
    fixed, moving = shifted(oblique_grid, np.zeros(3), rng)
    initial = sitk.AffineTransform(3)
    initial.Rotate(0, 1, 0.3)
    initial.SetTranslation((4.0, -3.0, 2.0))
    shift = np.array([5.0, 0.0, 0.0])
    network = Constant(oblique_grid.to_voxels(shift))
    transform = register_with(network, fixed, moving, initial)
    points = oblique_grid.points(rng.uniform(0, np.array(oblique_grid.size) - 1, (20, 3)))
    np.testing.assert_allclose(transform_points(transform, points), transform_points(initial, points + shift), atol=1e-4)
    added = transform_points(initial, points) + shift
    assert np.linalg.norm(transform_points(transform, points) - added, axis=1).min() > 1


def test_a_further_pass_sees_the_image_warped_so_far(oblique_grid, rng):
    """Two passes of a network that always finds the same shift compose to twice the shift."""
    fixed, moving = shifted(oblique_grid, np.zeros(3), rng)
    moving_windows = []

    class Recording(Constant):
        def forward(self, fixed, moving):
            moving_windows.append(moving.clone())
            return super().forward(fixed, moving)

    network = Recording([1.0, 0.0, 0.0])
    transform = register_with(network, fixed, moving, None, passes=2, precision="float32")
    centre = oblique_grid.points(np.array([[25.0, 25.0, 25.0]]))
    expected = centre + 2 * oblique_grid.to_physical(np.array([2.0, 0.0, 0.0]))
    np.testing.assert_allclose(transform_points(transform, centre), expected, atol=1e-4)
    before, after = (tensor[0, 0, 40:60, 40:60, 40:60] for tensor in moving_windows)
    shifted_by_one = moving_windows[0][0, 0, 40:60, 40:60, 41:61]
    assert (after - shifted_by_one).abs().mean() < 0.1 * (after - before).abs().mean()


class Stretch(nn.Module):
    """In place of a network: finds displacements along x that grow along x, by a share of the distance in voxels."""

    any_spacing = False

    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, fixed, moving):
        z, y, x = ((side - 52) // OUTPUT_STRIDE for side in fixed.shape[2:])
        field = torch.zeros(1, 3, z, y, x)
        field[:, 0] = self.share * OUTPUT_STRIDE * torch.arange(x, dtype=torch.float32)
        return field


def test_stages_are_composed_coarse_to_fine_each_on_its_own_grid(rng):
    """A stretch found at 4 mm and then a shift found at 2 mm: x goes to A(y + u(y)) with y = x + v(x)."""
    grid = Grid((60, 56, 52), (2.0, 2.0, 2.0), (10.0, -20.0, 30.0))
    fixed, moving = shifted(grid, np.zeros(3), rng)
    initial = sitk.TranslationTransform(3, (1.0, 0.0, 0.0))
    coarse = [resample_ct(image, grid.isotropic(4.0)) for image in (fixed, moving)]
    moving_windows = []

    class Recording(Constant):
        def forward(self, fixed, moving):
            moving_windows.append(moving.clone())
            return super().forward(fixed, moving)

    coarser = [Stage(Stretch(0.1), WINDOW, *coarse)]
    network = Recording([3.0, 0.0, 0.0])
    transform = register_with(network, fixed, moving, initial, coarser=coarser, precision="float32")
    points = grid.points(rng.uniform(10, 40, (20, 3)))
    moved = points + np.array([6.0, 0.0, 0.0])
    # The first output of the coarse stage lies between its first two voxels.
    start = grid.isotropic(4.0).points(np.full(3, 0.5))[0]
    stretched = moved + np.outer(0.1 * (moved[:, 0] - start), [1.0, 0.0, 0.0])
    np.testing.assert_allclose(transform_points(transform, points), stretched + np.array([1.0, 0.0, 0.0]), atol=1e-3)
    # The fine stage saw the moving image under the affine and the coarse field.
    alone = register_with(Stretch(0.1), *coarse, initial, precision="float32")
    warped = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, alone, sitk.sitkBSpline, -1024, sitk.sitkFloat32))
    inner = (slice(10, 40),) * 3
    expected = (warped[inner].clip(*WINDOW) - WINDOW[0]) / 500
    assert np.abs(moving_windows[0][0, 0].numpy()[tuple(slice(26 + 10, 26 + 40) for _ in range(3))] - expected).mean() < 0.02
