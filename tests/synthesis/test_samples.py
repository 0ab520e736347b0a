"""Patch geometry: which windows are cut, and that the outputs of a block equal the patches at its points."""

import numpy as np
import pytest
import torch

from regnet.errors import InputError
from regnet.learning.batches import Feed
from regnet.learning.inference import predict_samples
from regnet.learning.networks.regnet import RegNet
from regnet.synthesis.samples import SamplePool, Samples, output_points, sample_centres

WINDOW = (-1000, 400)


def make_pool(folder, fixed, moving, centres, block, displacements=None):
    if displacements is None:
        displacements = np.zeros((len(centres), block, block, block, 3), np.float32)
    np.save(folder / "fixed.npy", fixed)
    np.save(folder / "moving.npy", moving)
    Samples(np.asarray(centres, np.int32), displacements).save(folder / "samples.npz")
    return SamplePool([folder / "samples.npz"], [folder / "fixed.npy"], [folder / "moving.npy"], WINDOW)


def random_ct(rng, shape=(21, 18, 23)):
    return rng.integers(-1000, 400, shape).astype(np.int16)


def randomized(variant):
    """A network whose batch normalization changes values: statistics and weights away from 0 and 1."""
    network = RegNet(variant)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize("block", [2, 3])
def test_a_block_holds_the_patches_of_its_points(block, tmp_path, rng):
    fixed, moving = random_ct(rng), random_ct(rng)
    network = randomized("regnet")
    centre = np.array([[9, 8, 11]])
    points = output_points(centre, block)[0]
    whole = predict_samples(network, make_pool(tmp_path, fixed, moving, centre, block))[0]
    for z, y, x in [(0, 0, 0), (block - 1, 0, 1), (1, block - 1, 0)]:
        alone = (points[z, y, x] + 0.5).astype(int)[None]
        patch = predict_samples(network, make_pool(tmp_path, fixed, moving, alone, block=1))[0, 0, 0, 0]
        np.testing.assert_allclose(whole[z, y, x], patch, atol=1e-4)


def test_a_window_is_the_volume_around_its_centre_with_continued_borders(tmp_path, rng):
    volume = random_ct(rng)
    centres = np.array([[9, 8, 10], [0, 0, 0]])
    fixed, moving, targets = Feed(make_pool(tmp_path, volume, volume, centres, block=1)).cut(np.array([0, 1]))
    assert fixed.shape == (2, 1, 54, 54, 54)
    assert targets.shape == (2, 3, 1, 1, 1)
    assert np.array_equal(fixed, moving)
    expected = np.pad((volume + 1000) / 500, 30, mode="edge")
    # Voxel 27 of a window is its centre; padding moves voxel 0 of the volume to 30.
    for window, (x, y, z) in zip(fixed[:, 0], centres, strict=True):
        np.testing.assert_allclose(window, expected[z + 3 : z + 57, y + 3 : y + 57, x + 3 : x + 57], atol=1e-6)


def test_intensities_are_clipped_to_the_window(tmp_path, rng):
    volume = np.where(rng.random((12, 12, 12)) < 0.5, -1024, 3000).astype(np.int16)
    fixed, _, _ = Feed(make_pool(tmp_path, volume, volume, [[5, 5, 5]], block=1)).cut(np.array([0]))
    np.testing.assert_allclose(np.unique(fixed), [0.0, 2.8])


def test_centres_are_in_the_mask_and_reproducible():
    mask = np.zeros((10, 12, 14), bool)
    mask[2:5, 6:9, 1:4] = True
    centres = sample_centres(mask, 20, np.random.default_rng(3))
    assert mask[centres[:, 2], centres[:, 1], centres[:, 0]].all()
    assert len(np.unique(centres, axis=0)) == 20
    assert np.array_equal(centres, sample_centres(mask, 20, np.random.default_rng(3)))


def test_an_empty_mask_is_refused(rng):
    with pytest.raises(InputError, match="empty"):
        sample_centres(np.zeros((3, 3, 3)), 5, rng)


@pytest.mark.parametrize("content", [b"", b"not a table", "cut short"])
def test_damaged_tables_are_named(tmp_path, content):
    path = tmp_path / "samples.npz"
    Samples(np.ones((9, 3), np.int32), np.zeros((9, 1, 1, 1, 3), np.float32)).save(path)
    path.write_bytes(path.read_bytes()[:200] if content == "cut short" else content)
    with pytest.raises(InputError, match=r"samples\.npz: cannot be read as a table"):
        Samples.load(path)


def test_empty_tables_are_named(tmp_path):
    path = tmp_path / "samples.npz"
    Samples(np.empty((0, 3), np.int32), np.empty((0, 1, 1, 1, 3), np.float32)).save(path)
    with pytest.raises(InputError, match=r"samples\.npz.*empty"):
        Samples.load(path)
