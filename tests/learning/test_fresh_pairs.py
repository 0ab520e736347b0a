"""Pairs that are made during training: what they hold, and that an interrupted training continues with the same ones."""

import numpy as np
import pytest
import torch

from regnet.learning.fresh_pairs import FIXED, FreshPairs
from regnet.learning.textures import smooth
from regnet.learning.training import train
from regnet.synthesis.random_fields import interpolate, spline_coefficients
from regnet.synthesis.samples import SamplePool, Samples

SETTINGS = {"fresh": 2, "batch": 3, "flips": True, "noise_sd": 0}
SYNTHESIS = {
    "frequencies": {"low": {"sigma": 35, "points": 30, "theta": 5}, "high": {"sigma": 20, "points": 40, "theta": 4}},
    "noise_sd": 0,
    "border": 33,
    "appearance": {"density": 0.0, "local_changes": 0.0, "blur": 0.0, "noise": 0.0},
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Samples in two textured volumes of different size."""
    folder, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    paths = {"samples": [], "moving": []}
    for number, shape in enumerate([(36, 40, 44), (42, 38, 36)]):
        texture = smooth(torch.randn(1, 1, *shape), 2.0)[0, 0].numpy()
        np.save(folder / f"moving_{number}.npy", np.int16(-400 + 150 * texture / texture.std()))
        displacements = np.tile(rng.uniform(-2, 2, (30, 1, 1, 1, 3)), (1, 2, 2, 2, 1)).astype(np.float32)
        Samples(rng.integers(14, 24, (30, 3)).astype(np.int32), displacements).save(folder / f"{number}.npz")
        paths["samples"].append(folder / f"{number}.npz")
        paths["moving"].append(folder / f"moving_{number}.npy")
    return SamplePool(paths["samples"], paths["moving"], paths["moving"], (-1000, 400))


def fresh_pairs(pool, seed=1, **changes):
    options = {"spacing": 2.0, "steps_per_epoch": 4, "seed": seed, "device": CPU}
    return FreshPairs(pool, {**SETTINGS, **changes}, SYNTHESIS, **options)


def test_targets_lead_from_the_fixed_window_to_the_moving_one(pool):
    """At the outputs, between voxels, both windows have the same value there; without displacement they differ."""
    fixed, moving, target = fresh_pairs(pool, batch=8).batch()
    assert fixed.shape == moving.shape == (8, 1, 56, 56, 56)
    assert target.shape == (8, 3, 2, 2, 2)
    z, y, x = torch.meshgrid(*(torch.tensor([26.5, 28.5]),) * 3, indexing="ij")
    errors, differences = [], []
    for fixed_window, moving_window, displacement in zip(fixed[:, 0], moving[:, 0], target, strict=True):
        expected = interpolate(spline_coefficients(fixed_window), x, y, z)
        coefficients = spline_coefficients(moving_window)
        displaced = interpolate(coefficients, x + displacement[0], y + displacement[1], z + displacement[2])
        errors.append((expected - displaced).abs().mean())
        differences.append((expected - interpolate(coefficients, x, y, z)).abs().mean())
    assert torch.stack(errors).mean() < 0.1 * torch.stack(differences).mean()


def test_centres_show_the_lungs(pool):
    pairs = fresh_pairs(pool, flips=False)
    pairs.batch()
    lungs = np.concatenate(pairs.lungs)
    for pair in pairs.pairs.values():
        centres = torch.from_numpy(pair.centres).double()
        displaced = (centres + pair.field.at(centres * 2.0) / 2.0).numpy()
        distances = np.linalg.norm(displaced[:, None] - lungs, axis=-1).min(axis=1)
        # Rounding a centre to a voxel moves it by at most half the diagonal, and the field stretches that.
        assert distances.max() < 1.3


def test_every_pair_is_renewed_once_per_epoch_one_after_the_other(pool):
    pairs = fresh_pairs(pool)
    kept = []
    for _ in range(5):
        pairs.batch()
        kept.append(list(pairs.pairs))
    assert kept == [[0, 1], [0, 1], [1, 2], [1, 2], [2, 3]]


def test_both_images_of_a_pair_are_changed_where_the_config_says_so(pool):
    """Fields and places are those of plain pairs."""
    synthesis = {**SYNTHESIS, "appearance": {**SYNTHESIS["appearance"], "noise": 1.0}}
    options = {"spacing": 2.0, "steps_per_epoch": 4, "seed": 1, "device": CPU}
    plain, changed = (FreshPairs(pool, SETTINGS, given, **options).batch() for given in (SYNTHESIS, synthesis))
    assert torch.equal(changed[2], plain[2])
    for one, other in zip(changed[:2], plain[:2], strict=True):
        # The softest noise has 4 HU; the network sees 500 HU as 1.
        assert (one - other).std() > 4 / 500
    again = FreshPairs(pool, SETTINGS, synthesis, **options).batch()
    assert all(torch.equal(*tensors) for tensors in zip(changed, again, strict=True))


@pytest.mark.parametrize("before", [1, 3])
def test_after_an_interruption_the_same_batches_follow(pool, before):
    uninterrupted, again = fresh_pairs(pool, noise_sd=5), fresh_pairs(pool, noise_sd=5)
    for _ in range(before):
        uninterrupted.batch()
    again.load_state_dict(uninterrupted.state_dict())
    for _ in range(2):
        for expected, tensor in zip(uninterrupted.batch(), again.batch(), strict=True):
            assert torch.equal(tensor, expected)
    assert not torch.equal(uninterrupted.batch()[0], fresh_pairs(pool, seed=2).batch()[0])


def test_no_pair_folds(pool):
    pairs = fresh_pairs(pool)
    pairs.batch()
    for pair in pairs.pairs.values():
        axes = [2.0 * torch.arange(count, dtype=torch.float64) for count in reversed(pair.volumes.shapes[FIXED].tolist())]
        assert float(pair.field.determinant(*axes).min()) > 0


@pytest.mark.slow
def test_a_network_trains_on_fresh_pairs(pool):
    settings = {
        **SETTINGS,
        **{"epochs": 1, "steps_per_epoch": 2, "optimizer": "adam", "learning_rate": 0.001, "schedule": "decay"},
        **{"decay": 1.25, "rise": 0, "freeze_after": None, "precision": "auto", "warmup": None},
    }
    first, other = (
        train("regnet_1scale", pool, pool, {**settings, "fresh": fresh}, SYNTHESIS, spacing=2.0, seed=1, device=CPU)
        for fresh in (2, None)
    )
    assert first.rows[0]["blocks"] == 6
    assert np.isfinite(first.rows[0]["loss"])
    assert first.rows[0]["loss"] != other.rows[0]["loss"]
