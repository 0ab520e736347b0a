"""The dense pass equals the patch network for all sizes, tiles, strides and regions, and its memory is bounded."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from regnet.errors import ConfigError, InputError
from regnet.learning.devices import has_correct_bfloat16
from regnet.learning.inference import MIRRORINGS, DenseNetwork, continued, folded
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.regnet import VARIANTS, RegNet
from regnet.learning.tiles import MASK_MARGIN, near_mask, output_lattice, tiles
from regnet.synthesis.samples import normalize

WINDOW = (-1000, 400)
PACKAGE = Path(__file__).parents[2] / "workflow" / "scripts"


def random_network(variant="regnet"):
    """A network whose normalization has an effect, and whose displacements differ from voxel to voxel."""
    network = RegNet(variant).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.no_grad():
        network.joint[-1].weight *= 0.02
    return network


def random_pair(rng, shape):
    return [rng.integers(-1100, 500, shape).astype(np.int16) for _ in range(2)]


def nodes_of(counts, rng):
    """Some nodes of a lattice, two opposite corners among them, as indices z, y, x."""
    random = np.stack([rng.integers(0, count, 8) for count in counts], axis=-1)
    return np.concatenate([[np.zeros(3, int), np.array(counts) - 1], random])


def patch_by_patch(network, fixed, moving, points):
    """The unchanged network on one patch of 54^3 for each point ``(n, 3)``, z, y, x, in voxels; shape ``(3, n)``."""
    patches = []
    for volume in (fixed, moving):
        steps = [
            np.clip(np.add.outer(first, np.arange(54)), 0, side - 1)
            for first, side in zip((points - 26.5).astype(int).T, volume.shape, strict=True)
        ]
        cut = volume[steps[0][:, :, None, None], steps[1][:, None, :, None], steps[2][:, None, None, :]].astype(np.float32)
        patches.append(normalize(torch.from_numpy(cut), WINDOW)[:, None].contiguous(memory_format=torch.channels_last_3d))
    with torch.inference_mode():
        return network.to(memory_format=torch.channels_last_3d)(*patches)[..., 0, 0, 0].T.numpy()


def dense(network, pair, mask=None, **settings):
    tile = settings.pop("tile", None)
    inference = InferenceSettings(precision="float32", **settings)
    return DenseNetwork(network, window=WINDOW, settings=inference, tile=tile).predict(*pair, mask=mask)


@pytest.mark.parametrize(
    ("variant", "shape", "stride"),
    [
        *(("regnet", shape, stride) for shape in [(15, 18, 13), (4, 5, 7)] for stride in (1, 2)),
        *((variant, (8, 11, 6), 1) for variant in VARIANTS[1:]),
    ],
)
def test_every_output_is_that_of_the_patch_network(variant, shape, stride, rng):
    network, pair = random_network(variant), random_pair(rng, shape)
    field = dense(network, pair, stride=stride)
    counts, first = output_lattice(shape, stride)
    assert field.shape == (3, *counts)
    nodes = nodes_of(counts, rng)
    expected = patch_by_patch(network, *pair, first + stride * nodes)
    assert expected.std(axis=1).min() > 0.01
    np.testing.assert_allclose(field[(slice(None), *nodes.T)], expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("region", ["image", "mask"])
def test_tiles_change_nothing(stride, region, rng):
    network, pair = random_network(), random_pair(rng, (7, 9, 6))
    mask = None
    if region == "mask":
        mask = np.zeros(pair[0].shape, bool)
        mask[2:4, 7:9, 0] = True
    whole, three, four = (dense(network, pair, mask, stride=stride, tile=tile) for tile in (64, 3, 4))
    for tiled in (three, four):
        np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)


def test_every_second_voxel_is_every_second_one_of_all(rng):
    network, pair = random_network(), random_pair(rng, (9, 12, 7))
    every, second = (dense(network, pair, stride=stride) for stride in (1, 2))
    np.testing.assert_allclose(every[:, 1::2, 1::2, 1::2], second, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("mirrors", "stride"), [(1, 2), (2, 1), (4, 2), (8, 2)])
def test_mirrors_average_the_fields_of_mirrored_pairs(stride, mirrors, rng):
    """Volumes of even sides: with stride 2 the points of a volume of odd sides are not those of its mirror image."""
    network, pair = random_network(), random_pair(rng, (4, 8, 6))
    fields = []
    for axes in MIRRORINGS[mirrors]:
        dims = [2 - axis for axis in axes]
        mirrored = dense(network, [np.flip(volume, dims) for volume in pair], stride=stride)
        field = np.flip(mirrored, [1 + dim for dim in dims])
        fields.append([-field[axis] if axis in axes else field[axis] for axis in range(3)])
    assert len(fields) == mirrors
    averaged = dense(network, pair, stride=stride, mirrors=mirrors)
    np.testing.assert_allclose(averaged, np.mean(fields, axis=0), rtol=0, atol=1e-5)
    assert mirrors == 1 or np.abs(averaged - dense(network, pair, stride=stride)).max() > 0.1


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(13, 16, 21), (12, 9, 20)])
def test_wanted_outputs_are_those_near_the_mask(stride, shape):
    mask = np.zeros(shape, np.uint8)
    mask[6, 2, 17] = mask[5, 8, 4] = 7
    counts, first = output_lattice(shape, stride)
    nodes = np.stack(np.meshgrid(*[first + stride * np.arange(count) for count in counts], indexing="ij"), axis=-1)
    distances = np.abs(nodes[..., None, :] - np.argwhere(mask)).max(axis=-1).min(axis=-1)
    assert np.array_equal(near_mask(mask, stride), distances < MASK_MARGIN + 1)


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_a_mask_changes_the_field_only_outside(stride, rng):
    network, pair = random_network(), random_pair(rng, (14, 16, 11))
    mask = np.zeros(pair[0].shape, bool)
    mask[1:3, 2:4, 4:6] = True
    near = near_mask(mask, stride)
    everywhere, masked = dense(network, pair, stride=stride), dense(network, pair, mask, stride=stride)
    np.testing.assert_allclose(masked[:, near], everywhere[:, near], rtol=0, atol=1e-5)
    lowest, highest = (edge(masked[:, near], axis=1)[:, None] for edge in (np.min, np.max))
    assert (masked[:, ~near] >= lowest - 1e-5).all()
    assert (masked[:, ~near] <= highest + 1e-5).all()
    assert np.abs(masked - everywhere)[:, ~near].max() > 0.1


def test_tiles_cover_what_is_wanted_once_and_are_no_larger_than_it(rng):
    wanted = np.zeros((30, 22, 41), bool)
    wanted[4:9, 3:20, 5:17] = wanted[20:27, 10:12, 30:40] = True
    covered = np.zeros(wanted.shape, int)
    for box in tiles(wanted, 8):
        assert all(extent.stop - extent.start <= 8 for extent in box)
        covered[box] += 1
        for axis in range(3):
            faces = np.moveaxis(wanted[box], axis, 0)
            assert faces[0].any()
            assert faces[-1].any()
    assert covered.max() == 1
    assert (covered[wanted] == 1).all()
    assert covered.sum() < 1.5 * wanted.sum()


def test_a_field_continues_smoothly():
    """A ramp known in a ball: the harmonic field outside falls at twice its slope there, and far away it is flat."""
    z, y, x = (torch.arange(side, dtype=torch.float32) for side in (40, 37, 50))
    known = (z[:, None, None] - 20) ** 2 + (y[:, None] - 15) ** 2 + (x - 22) ** 2 < 9**2
    ramp = torch.stack([(0.1 * x).expand(known.shape), (0.2 * y[:, None]).expand(known.shape), torch.full(known.shape, 1.5)])
    field = continued(ramp * known, known)
    assert torch.equal(field[:, known], ramp[:, known])
    steps = torch.stack([field.diff(dim=axis).abs().amax(dim=(1, 2, 3)) for axis in (1, 2, 3)]).amax(dim=0)
    assert (steps <= torch.tensor([0.1, 0.2, 0.0]) * 2.5 + 1e-5).all()
    assert field[0, :, :, -4:].diff(dim=-1).abs().max() < 0.02


def test_folding_leaves_the_network_as_it_was(rng):
    network = random_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fused = folded(network.train())
    assert not any(isinstance(module, nn.BatchNorm3d) for module in fused.modules())
    windows = torch.rand(2, 1, 1, 54, 54, 54)
    with torch.inference_mode():
        torch.testing.assert_close(fused(*windows), network.eval()(*windows), rtol=0, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_layers_that_make_most_of_the_rounding_stay_in_float32(variant):
    network = folded(RegNet(variant))
    kinds = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d):
            layer = name.removesuffix(".layer")
            module.register_forward_hook(lambda _, __, output, layer=layer: kinds.update({layer: output.dtype}))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        network(*torch.rand(2, 1, 1, 54, 54, 54))
    exact = {name for name, kind in kinds.items() if kind == torch.float32}
    streams = {name for name in kinds if name.endswith(".0") and ".streams." in name}
    assert exact == streams | {"original.merged.0", "joint.1.0", "joint.2"}


@pytest.mark.slow
@pytest.mark.parametrize(("spacing", "taken"), [(0.01, "bfloat16"), (100.0, "float32")])
def test_bfloat16_is_taken_only_where_it_changes_little(spacing, taken, rng, monkeypatch):
    monkeypatch.setattr("regnet.learning.inference.has_fast_bfloat16", lambda device: True)
    network, pair = random_network(), random_pair(rng, (12, 14, 10))
    engine = DenseNetwork(network, window=WINDOW)
    field = engine.predict(*pair, spacing=spacing)
    assert engine.precision == taken
    change = spacing * np.linalg.norm(field - dense(network, pair), axis=0).max()
    assert change == 0 if taken == "float32" else 0 < change < 0.05


@pytest.mark.parametrize(("version", "right"), [(90701, True), (90800, False), (91002, False), (91300, True)])
def test_bfloat16_is_refused_with_versions_of_cudnn_that_get_it_wrong(version, right, monkeypatch):
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: version)
    assert has_correct_bfloat16(torch.device("cuda")) is right
    assert has_correct_bfloat16(torch.device("cpu"))
    if not right:
        with pytest.raises(ConfigError, match=rf"regnet\.precision: found bfloat16, which cuDNN {version}"):
            DenseNetwork(RegNet(), window=WINDOW, settings=InferenceSettings(precision="bfloat16"), device="cuda")


@pytest.mark.slow
def test_memory_stays_below_what_is_allowed():
    """Also where no tile but the smallest fits. The same volume in one tile takes more."""
    code = r"""
import re, sys, numpy as np, torch
from regnet.learning.inference import DenseNetwork
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.regnet import RegNet
import SimpleITK
torch.set_num_threads(1)
rng = np.random.default_rng(0)
pair = [rng.integers(-1000, 400, (80, 80, 80)).astype(np.int16) for _ in range(2)]
settings = InferenceSettings(precision="float32", max_memory_gib=float(sys.argv[1]))
DenseNetwork(RegNet().eval(), window=(-1000, 400), settings=settings).predict(*pair)
print(int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status", encoding="utf-8").read())[1]) / 2**20)
"""
    peaks = {}
    for allowed in (0.6, 4.0):
        command = [sys.executable, "-c", code, str(allowed)]
        process = subprocess.run(command, env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, encoding="utf-8")
        assert process.returncode == 0, process.stderr
        peaks[allowed] = float(process.stdout)
    assert peaks[0.6] < 0.6 < peaks[4.0] < 4.0


def test_too_little_memory_is_one_line(rng):
    with pytest.raises(ConfigError, match=r"regnet\.max_memory_gib: found 0\.3, expected at least 0\.6 for images"):
        dense(RegNet(), random_pair(rng, (10, 10, 10)), max_memory_gib=0.3)


def test_an_empty_mask_and_other_shapes_are_refused(rng):
    pair = random_pair(rng, (10, 11, 12))
    with pytest.raises(InputError, match="mask of the fixed image is empty"):
        dense(RegNet(), pair, np.zeros((10, 11, 12)))
    with pytest.raises(ValueError, match=r"mask: shape \(12, 11, 10\), expected that of fixed, \(10, 11, 12\)"):
        dense(RegNet(), pair, np.ones((12, 11, 10)))
