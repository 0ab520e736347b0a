"""Networks of any kind on whole volumes: the displacements at samples are those of the dense field."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from regnet.learning.dense import dense, predict_pairs
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.networks.regnet import RegNet
from regnet.synthesis.samples import SamplePool, Samples, output_points, save_volume

WINDOW = (-1000, 400)
FLOAT32 = InferenceSettings(precision="float32")


@pytest.fixture(scope="module")
def pyramid():
    torch.manual_seed(0)
    network = RegNetPyramid().eval()
    for decoder in network.decoders:
        nn.init.normal_(decoder.displacement.weight, 0, 0.05)
    return network


def test_each_kind_of_network_is_made_ready(pyramid):
    kinds = [type(dense(network, window=WINDOW, settings=FLOAT32)).__name__ for network in (pyramid, RegNet())]
    assert kinds == ["DensePyramid", "DenseNetwork"]


@pytest.mark.slow
def test_displacements_at_samples_are_those_of_the_dense_field(pyramid, tmp_path, rng):
    """Two pairs; the first is longer than the reach of the network, so that only a part of it is computed."""
    paths: dict[str, list] = {"samples": [], "fixed": [], "moving": []}
    expected, block = [], 2
    for number, shape in enumerate([(330, 34, 40), (41, 52, 36)]):
        volumes = [rng.normal(-600, 200, shape).astype(np.int16) for _ in range(2)]
        centres = np.column_stack([rng.integers(8, side - 8, 12) for side in (shape[2], shape[1], min(shape[0], 60))])
        Samples(centres, np.zeros((12, *(block,) * 3, 3), np.float32)).save(tmp_path / f"{number}.npz")
        paths["samples"].append(tmp_path / f"{number}.npz")
        for side, volume in zip(("fixed", "moving"), volumes, strict=True):
            save_volume(volume, tmp_path / f"{number}_{side}.npy")
            paths[side].append(tmp_path / f"{number}_{side}.npy")
        field = dense(pyramid, window=WINDOW, settings=FLOAT32).predict(*volumes)
        nodes = output_points(centres, block) / 2
        expected += [
            np.stack([ndimage.map_coordinates(part, nodes[..., ::-1].reshape(-1, 3).T, order=1) for part in field], axis=-1)
        ]
    found = predict_pairs(pyramid, SamplePool(*paths.values(), WINDOW), settings=FLOAT32)
    assert np.abs(expected[0]).mean() > 0.1
    np.testing.assert_allclose(found.reshape(2, -1, 3), expected, atol=1e-3)
