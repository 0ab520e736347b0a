"""The feature pyramid: what it compares, where its nodes are, and that slabs change nothing."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from regnet.learning.pyramid import RADII, RegNetPyramid, correlate, warp_features
from regnet.learning.pyramid_inference import DensePyramid

WINDOW = (-1000, 400)


@pytest.fixture(scope="module")
def network():
    """A network whose answers are not all 0."""
    torch.manual_seed(0)
    network = RegNetPyramid().eval()
    for decoder in network.decoders:
        nn.init.normal_(decoder.displacement.weight, 0, 0.05)
    return network


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    return [rng.normal(-600, 200, (45, 38, 31)).astype(np.float32) for _ in range(2)]


def test_correlation_sums_products_over_channels_at_each_shift():
    fixed, moving = torch.randn(2, 5, 6, 7, 8), torch.randn(2, 5, 6, 7, 8)
    found = correlate(fixed, moving, 2)
    padded = functional.pad(moving, (2,) * 6)
    for number, (z, y, x) in enumerate(product(range(5), repeat=3)):
        expected = (fixed * padded[:, :, z : z + 6, y : y + 7, x : x + 8]).sum(dim=1)
        torch.testing.assert_close(found[:, number], expected)


def test_gradients_of_the_correlation():
    inputs = [torch.randn(1, 2, 3, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda fixed, moving: correlate(fixed, moving, 1), inputs)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_maps_are_warped_along_x_y_and_z(axis):
    maps = torch.randn(1, 2, 9, 8, 7)
    displacement = torch.zeros(1, 3, 9, 8, 7)
    displacement[:, axis] = 1
    warped = warp_features(maps, displacement)
    inner = [slice(None), slice(None), slice(0, 6), slice(0, 6), slice(0, 6)]
    shifted = list(inner)
    shifted[4 - axis] = slice(1, 7)
    torch.testing.assert_close(warped[tuple(inner)], maps[tuple(shifted)], atol=1e-5, rtol=0)
    torch.testing.assert_close(warp_features(maps, displacement[:, :, 3:5], 3), warped[:, :, 3:5])


def test_an_untrained_network_answers_no_displacement_at_the_nodes_of_three_levels():
    fields = RegNetPyramid()(torch.rand(1, 1, 17, 25, 33), torch.rand(1, 1, 17, 25, 33))
    assert [tuple(field.shape[2:]) for field in fields] == [(3, 4, 5), (5, 7, 9), (9, 13, 17)]
    assert all((field == 0).all() for field in fields)


def test_features_of_equal_images_match_best_where_they_are(network):
    """With the same image twice the correlation is largest, 1, without a shift, at every node of every level."""
    image = torch.rand(1, 1, 33, 33, 33)
    with torch.no_grad():
        for level, features in enumerate(network.features(image)):
            projected = network.project(level, features)
            centred = projected - projected.mean(dim=1, keepdim=True)
            unit = functional.normalize(centred, dim=1)
            correlation = correlate(unit, unit, RADII[level])
            middle = correlation.shape[1] // 2
            torch.testing.assert_close(correlation[:, middle], torch.ones_like(correlation[:, middle]))


@pytest.mark.parametrize("nodes", [1, 2000, 5000])
def test_slabs_change_nothing(nodes, network, pair):
    whole, slabs = (
        DensePyramid(network, window=WINDOW, precision="float32", slab_nodes=count).predict(*pair) for count in (2**30, nodes)
    )
    assert np.abs(whole).max() > 1
    np.testing.assert_allclose(slabs, whole, atol=1e-4)


def test_a_volume_is_answered_as_the_network_answers_it(network, pair):
    field = DensePyramid(network, window=WINDOW, precision="float32").predict(*pair)
    assert field.shape == (3, 23, 19, 16)
    sides = [-(-(side - 1) // 8) * 8 + 1 for side in pair[0].shape]
    padded = [np.pad(image, [(0, side - n) for side, n in zip(sides, image.shape, strict=True)], mode="edge") for image in pair]
    images = [torch.from_numpy((image.clip(*WINDOW) + 1000) / 500)[None, None] for image in padded]
    with torch.no_grad():
        expected = network(*images)[-1][0].numpy()
    np.testing.assert_allclose(field, expected[:, :23, :19, :16], atol=1e-3)


def test_volumes_of_different_shapes_are_refused(network, pair):
    with pytest.raises(ValueError, match=r"moving: shape \(45, 38, 30\), expected that of fixed"):
        DensePyramid(network, window=WINDOW).predict(pair[0], pair[1][..., :-1])
