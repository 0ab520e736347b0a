"""The feature pyramid: what it compares, where its nodes are, and that slabs change nothing."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from regnet.errors import ConfigError, InputError
from regnet.learning import pyramid_inference
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.pyramid import RADII, RegNetPyramid, correlate, warp_features
from regnet.learning.pyramid_inference import DensePyramid

pytestmark = pytest.mark.slow

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
    torch.testing.assert_close(warp_features(maps, displacement[:, :, 3:5, :, 2:], (3, 0, 2)), warped[:, :, 3:5, :, 2:])


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


@pytest.mark.parametrize("planes", [1, 5, 12])
def test_slabs_change_nothing(planes, network, pair):
    whole, slabs = (DensePyramid(network, window=WINDOW, planes=count).predict(*pair) for count in (1000, planes))
    assert np.abs(whole).max() > 1
    np.testing.assert_allclose(slabs, whole, atol=1e-4)


def test_boxes_around_a_mask_change_nothing_within_it(network, pair):
    mask = np.zeros(pair[0].shape, np.uint8)
    mask[9:25, 20:30, 5:12] = 1
    mask[30:33, 3:9, 20:25] = 1
    whole, boxes = (DensePyramid(network, window=WINDOW, planes=4).predict(*pair, mask=one) for one in (None, mask))
    near = ndimage.binary_dilation(mask, np.ones((5, 5, 5)))[::2, ::2, ::2]
    np.testing.assert_allclose(boxes[:, near], whole[:, near], atol=1e-4)
    assert np.abs(boxes - whole).max() > 0.01


def test_an_empty_mask_is_refused(network, pair):
    with pytest.raises(InputError, match="the mask of the fixed image is empty"):
        DensePyramid(network, window=WINDOW).predict(*pair, mask=np.zeros(pair[0].shape, np.uint8))


def test_a_mirrored_pair_has_the_mirrored_field(network, pair):
    """With two mirror images the field is the mean of both."""
    turned = [np.pad(image, [(0, 4), (0, 3), (0, 2)], mode="edge")[::-1, ::-1, ::-1] for image in pair]
    one, other = (DensePyramid(network, window=WINDOW).predict(*images) for images in (pair, turned))
    both = DensePyramid(network, window=WINDOW, settings=InferenceSettings(mirrors=2)).predict(*pair)
    mirrored = -other[:, ::-1, ::-1, ::-1][:, :23, :19, :16]
    np.testing.assert_allclose(both, (one + mirrored) / 2, atol=1e-3)


def test_too_little_memory_is_refused_with_what_is_needed(network):
    volume = np.zeros((400, 300, 300), np.int16)
    with pytest.raises(ConfigError, match=r"regnet\.max_memory_gib: found 1, expected at least 1\.[0-9] for images"):
        DensePyramid(network, window=WINDOW, settings=InferenceSettings(max_memory_gib=1)).predict(volume, volume)


@pytest.mark.parametrize(("limit", "chosen"), [(1e9, True), (0.0, False)])
def test_auto_takes_bfloat16_where_it_changes_little(limit, chosen, network, pair, monkeypatch):
    monkeypatch.setattr(pyramid_inference, "has_fast_bfloat16", lambda device: True)
    monkeypatch.setattr(pyramid_inference, "BFLOAT16_LIMIT_MM", limit)
    dense = DensePyramid(network, window=WINDOW)
    whole = tuple(slice(0, side) for side in pair[0].shape)
    with torch.inference_mode():
        assert dense._uses_bfloat16(*(image[:41, :33, :25] for image in pair), whole, 1.0) is chosen


@pytest.mark.slow
def test_nothing_beyond_the_reach_changes_a_displacement(network):
    """Noise beyond it changes no bit there, noise within it does."""
    side = 2 * RegNetPyramid.reach + 11
    rng = np.random.default_rng(1)
    small = RegNetPyramid().eval()
    small.load_state_dict(network.state_dict())
    for decoder in small.decoders:
        # The reach does not include the displacements: they stay below a node.
        nn.init.normal_(decoder.displacement.weight, 0, 1e-3)
    images = [rng.normal(-600, 200, (33, 33, side)).astype(np.float32) for _ in range(2)]
    middle = (side - 1) // 2
    fields = []
    for reach in (None, RegNetPyramid.reach, 20):
        changed = [image.copy() for image in images]
        if reach is not None:
            for image in changed:
                image[..., middle + reach + 1 :] = -300
        fields.append(DensePyramid(small, window=WINDOW).predict(*changed)[..., middle // 2])
    same, beyond, within = fields
    np.testing.assert_allclose(beyond, same, atol=1e-6)
    assert np.abs(within - same).max() > 1e-5


def test_a_volume_is_answered_as_the_network_answers_it(network, pair):
    field = DensePyramid(network, window=WINDOW).predict(*pair)
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
