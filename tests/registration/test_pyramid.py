"""The geometry between what the feature pyramid answers, in voxels, and the transform that a registration leaves, in mm."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from regnet.errors import InputError
from regnet.images.transforms import transform_points
from regnet.images.volumes import Grid, resample_ct
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.networks.regnet import RegNet
from regnet.learning.weight_files import load_network, save_network
from regnet.registration import pyramid

WINDOW = (-1000, 400)
SETTINGS = {"spacings": [4, 2], "threads": 1, "gpus": 0}


@pytest.fixture
def weights(tmp_path):
    """The file of an untrained network."""
    save_network(RegNetPyramid(), tmp_path / "model.safetensors", spacing=None, window=WINDOW)
    return tmp_path / "model.safetensors"


@pytest.fixture
def images(oblique_grid, rng):
    texture = oblique_grid.image(rng.normal(-600, 300, oblique_grid.shape).astype(np.float32))
    return sitk.Cast(sitk.SmoothingRecursiveGaussian(texture, 4.0), sitk.sitkInt16)


def register(images, weights, initial=None, **settings):
    return pyramid.register(images, images, None, None, initial, {**SETTINGS, "weights": weights, **settings})


def test_weights_survive_the_disk(weights):
    network, facts = load_network(weights, variant="regnet_pyramid")
    assert isinstance(network, RegNetPyramid)
    assert (facts["spacing"], facts["window"]) == (None, list(WINDOW))


def test_weights_of_regnet_are_refused(tmp_path, images):
    save_network(RegNet(), tmp_path / "regnet.safetensors", spacing=2.0, window=WINDOW)
    with pytest.raises(InputError, match=r"regnet\.safetensors: found weights of the variant regnet, expected regnet_pyramid"):
        register(images, tmp_path / "regnet.safetensors")


def test_an_untrained_network_leaves_the_initial_transform(images, weights, oblique_grid, rng):
    initial = sitk.TranslationTransform(3, (3.0, -2.0, 1.0))
    points = oblique_grid.points(rng.uniform(5, 40, (20, 3)))
    np.testing.assert_allclose(
        transform_points(register(images, weights, initial), points), points + np.array([3, -2, 1]), atol=1e-9
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_answers_in_voxels_become_mm_and_are_composed(axis, images, weights, oblique_grid, rng, monkeypatch):
    """A network that answers one voxel along an axis moves points 4 mm at 4 mm and 2 mm more at 2 mm."""

    def forward(self, level, fixed, projected, coarser, first=(0, 0, 0)):
        displacement = torch.zeros(1, 3, *fixed.shape[2:])
        displacement[:, axis] = 1
        return displacement, torch.zeros(1, 16, *fixed.shape[2:])

    monkeypatch.setattr(RegNetPyramid, "refine", forward)
    points = oblique_grid.points(rng.uniform(12, 30, (20, 3)))
    expected = points + oblique_grid.to_physical(6.0 * np.eye(3)[axis])
    np.testing.assert_allclose(transform_points(register(images, weights), points), expected, atol=1e-3)


def test_nodes_lie_on_every_second_voxel_from_the_first(images, weights, oblique_grid, monkeypatch):
    """A displacement that grows from node to node is found where the nodes are."""

    def forward(self, level, fixed, projected, coarser, first=(0, 0, 0)):
        displacement = torch.zeros(1, 3, *fixed.shape[2:])
        displacement[:, 0] = 0.1 * torch.arange(fixed.shape[4])
        return displacement, torch.zeros(1, 16, *fixed.shape[2:])

    monkeypatch.setattr(RegNetPyramid, "refine", forward)
    transform = register(images, weights, spacings=[2])
    index = np.array([[0, 20, 20], [10, 20, 20], [11, 20, 20], [40, 20, 20]], float)
    points = oblique_grid.points(index)
    moved = oblique_grid.to_voxels(transform_points(transform, points) - points)
    np.testing.assert_allclose(moved[:, 0], 0.05 * index[:, 0], atol=1e-4)


def test_a_grid_of_the_spacing_is_used_as_it_is(images):
    assert pyramid._at(images, 2.0) is images


@pytest.mark.parametrize("spacing", [4.0, 3.0])
def test_other_spacings_show_the_same_places(spacing, oblique_grid):
    """Half and other resolutions of a smooth image: the grid of `Grid.isotropic`, and the values of `resample_ct`."""
    z, y, x = np.indices(oblique_grid.shape)
    smooth = oblique_grid.image(np.int16(300 * np.sin(x / 9) + 200 * np.cos(y / 7) + 4 * z - 600))
    found, expected = pyramid._at(smooth, spacing), resample_ct(smooth, oblique_grid.isotropic(spacing))
    inner = (slice(0, 8),) * 3
    differences = sitk.GetArrayFromImage(found)[inner] - sitk.GetArrayFromImage(expected)[inner]
    assert np.abs(differences).max() < 12
    assert Grid.of(found).spacing == (spacing,) * 3
    np.testing.assert_allclose(Grid.of(found).origin, oblique_grid.isotropic(spacing).origin, atol=1e-9)
