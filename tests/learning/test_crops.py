"""Crops: that the displacement is the true one, what grows harder, and that a training goes on where it was."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from regnet.learning.crops import CropPairs, Volume
from regnet.learning.pyramid_training import CropBatches, distance_loss, lung_errors, stacked, train_pyramid
from regnet.synthesis.appearance import Appearance, blurred

WINDOW = (-1000, 400)
SIDE = 33


@pytest.fixture(autouse=True)
def _small_textures(monkeypatch):
    monkeypatch.setattr("regnet.learning.crops.TEXTURE_SIDE", 72)


@pytest.fixture(scope="module")
def volumes():
    """Two volumes with texture at 1 and 2 mm; the lungs are a box in the middle."""
    generator = torch.Generator().manual_seed(1)
    texture = blurred(torch.randn(2, 1, 90, 80, 70, generator=generator), [2.0] * 3)
    texture = -600 + 200 * texture / texture.std()
    lungs = np.zeros((90, 80, 70), np.uint8)
    lungs[20:70, 20:60, 15:55] = 1
    return [Volume(hu[0].numpy(), lungs, spacing) for hu, spacing in zip(texture, (1.0, 2.0), strict=True)]


def crops(volumes, seed=0, **changes):
    return CropPairs(volumes, WINDOW, torch.Generator().manual_seed(seed), side=SIDE, **changes)


def test_the_displacement_leads_from_the_fixed_image_to_its_match(volumes):
    pairs = crops(volumes)
    middle = torch.arange(SIDE) - (SIDE - 1) / 2
    nodes = torch.stack(torch.meshgrid(middle, middle, middle, indexing="ij")[::-1])[None]
    for _ in range(4):
        crop = pairs.draw()
        places = nodes + crop.displacement
        matched = (places.abs().amax(dim=1) < SIDE / 2 - 2)[:, None]
        moved = functional.grid_sample(crop.moving, (places / (SIDE - 1) * 2).movedim(1, -1), align_corners=True)
        left, before = ((crop.fixed - image)[matched].abs().mean() for image in (moved, crop.moving))
        assert left < 0.3 * before


def test_amplitude_scales_all_displacements(volumes):
    lengths = []
    for amplitude in (1.0, 0.45):
        pairs = crops(volumes)
        pairs.amplitude = amplitude
        lengths.append(pairs.draw().displacement)
    torch.testing.assert_close(lengths[1], 0.45 * lengths[0])


def test_without_difficulty_appearance_leaves_little_but_noise(volumes):
    plain, changed = (crops(volumes, appearance=Appearance(), sliding=0.5) for _ in range(2))
    plain.difficulty = 0.0
    spread = [(pairs.draw().fixed - crops(volumes).draw().fixed).std() for pairs in (plain, changed)]
    assert spread[0] < spread[1]


def test_a_training_begins_with_textures_and_small_displacements(volumes):
    batches = CropBatches(crops(volumes), WINDOW, 1, 100)
    seen = []
    for step in (0, 6, 12, 30, 99):
        batches.drawn = step
        batches.batch()
        seen.append((batches.pairs.texture_share, batches.pairs.amplitude, batches.pairs.difficulty))
    shares, amplitudes, difficulties = np.transpose(seen)
    np.testing.assert_allclose(shares, [0.9, 0.5, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(amplitudes, [0.45, 0.56, 0.67, 1, 1])
    np.testing.assert_allclose(difficulties, [0, 0.2, 0.4, 1, 1])


def test_batches_go_on_where_they_were(volumes):
    batches = CropBatches(crops(volumes, appearance=Appearance()), WINDOW, 2, 50)
    batches.batch()
    state = batches.state_dict()
    expected = batches.batch()
    again = CropBatches(crops(volumes, seed=9, appearance=Appearance()), WINDOW, 2, 50)
    again.pairs._textures = batches.pairs._textures
    again.load_state_dict(state)
    assert all(torch.equal(*tensors) for tensors in zip(again.batch(), expected, strict=True))


def test_loss_and_errors_by_hand(volumes):
    _, _, displacement, lungs, spacing = stacked([crops(volumes).draw(1)], WINDOW)
    off = torch.tensor([3.0, 0.0, 4.0]).view(1, 3, 1, 1, 1)
    fields = [displacement[..., ::step, ::step, ::step] + off for step in (8, 4, 2)]
    loss, errors = distance_loss(fields, displacement, lungs, spacing)
    assert float(loss) == pytest.approx(1.75 * 5, rel=1e-4)
    torch.testing.assert_close(errors, torch.tensor([6.0, 0.0, 8.0]), atol=1e-3, rtol=0)
    zero = lung_errors(torch.zeros_like(fields[-1]), displacement, lungs, spacing)
    inside = lungs[0, 0, ::2, ::2, ::2] > 0
    expected = 2 * displacement[0, :, ::2, ::2, ::2][:, inside].abs().mean(dim=1)
    torch.testing.assert_close(zero, expected)


@pytest.mark.parametrize(("shift", "counts"), [(0.0, {0: 0.05, 16: 1.0}), (20.0, {0: 0.05, 16: 0.1})])
def test_nodes_outside_the_lungs_and_the_crop_count_less(shift, counts):
    """A shift of 20 voxels moves the node in the middle, at 16 of 33, out of the crop, but not the first one along x."""
    displacement, lungs = torch.zeros(1, 3, *(SIDE,) * 3), torch.zeros(1, 1, *(SIDE,) * 3)
    displacement[:, 0] = shift
    lungs[..., 12:21] = 1
    losses = {}
    for column in counts:
        fields = [displacement[..., ::step, ::step, ::step].clone() for step in (8, 4, 2)]
        fields[-1][0, 1, 8, 8, column // 2] += 100
        losses[column] = float(distance_loss(fields, displacement, lungs, torch.ones(1, 1, 1, 1, 1))[0])
    smallest = 1.75 * 0.01  # The distance that is added everywhere.
    ratio = (losses[16] - smallest) / (losses[0] - smallest)
    assert ratio == pytest.approx(counts[16] / counts[0], rel=1e-2)


@pytest.mark.slow
def test_a_short_training_moves_the_weights_and_keeps_curves(volumes, monkeypatch):
    monkeypatch.setattr("regnet.learning.pyramid_training.VALIDATION_SIDE", SIDE)
    monkeypatch.setattr("regnet.learning.crops.TEXTURE_SIDE", 96)
    settings = {"epochs": 2, "steps_per_epoch": 2, "batch": 1, "optimizer": "muon", "learning_rate": 1e-3, "rise": 1}
    settings |= {"appearance": None, "sliding": 0.0, "precision": "float32"}
    trainers = [
        train_pyramid(volumes, volumes[:1], settings, window=WINDOW, seed=3, device=torch.device("cpu")) for _ in range(2)
    ]
    assert [row["step"] for row in trainers[0].rows] == [2, 4]
    assert all(np.isfinite(row["validation_mae"]) for row in trainers[0].rows)
    first, second = (trainer.network.state_dict() for trainer in trainers)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (first["decoders.0.displacement.weight"] != 0).any()
