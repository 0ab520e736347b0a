"""The training loop: it learns, and its curves, schedules and mirrored batches are right."""

import csv
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from regnet.errors import InputError, RegNetError
from regnet.images.volumes import Grid
from regnet.learning.batches import Feed, flip
from regnet.learning.devices import has_fast_bfloat16, pick_device
from regnet.learning.networks.regnet import RegNet
from regnet.learning.textures import TexturePairs, random_field, random_texture, smooth, warp_texture
from regnet.learning.training import COLUMNS, Trainer, learning_rate, mean_absolute_errors, train
from regnet.learning.training_job import write_curves
from regnet.learning.weight_files import load_network, save_network
from regnet.synthesis.pairs import deform, random_dvf
from regnet.synthesis.samples import SamplePool, Samples, output_points

WARMUP = {
    "steps": 120,
    "batch": 4,
    "block": 4,
    "optimizer": "adam",
    "learning_rate": 0.003,
    "schedule": "cosine",
    "decay": 1.25,
    "rise": 10,
    "freeze_after": None,
    "size": 84,
    "volumes": 1,
    "renew_every": 1000,
    "texture_sigma": 1.5,
    "field_sigma": [20, 40],
    "maximum": 2,
}
SETTINGS = {
    "batch": 2,
    "epochs": 2,
    "steps_per_epoch": 2,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "schedule": "decay",
    "decay": 1.25,
    "rise": 0,
    "freeze_after": None,
    "flips": True,
    "noise_sd": 5,
    "fresh": None,
    "precision": "auto",
    "warmup": None,
}
SYNTHESIS = {"frequencies": {"high": {"sigma": 20, "points": 40, "theta": 4}}, "noise_sd": 5, "border": 33, "appearance": None}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Twelve blocks of 2^3 outputs of one synthetic pair of textured volumes."""
    folder, rng = tmp_path_factory.mktemp("pair"), np.random.default_rng(0)
    grid = Grid((50, 44, 40), (2.0, 2.0, 2.0))
    texture = smooth(torch.randn(1, 1, *grid.shape), 1.5)[0, 0].numpy()
    moving = grid.image(np.int16(-600 + 200 * texture / texture.std()))
    dvf = random_dvf(grid, sigma=20, points=40, theta=4, border=33, rng=rng)
    np.save(folder / "moving.npy", sitk.GetArrayFromImage(moving))
    np.save(folder / "fixed.npy", sitk.GetArrayFromImage(deform(moving, dvf, noise_sd=5, rng=rng)))
    centres = rng.integers(12, 30, (12, 3)).astype(np.int32)
    samples = Samples(centres, grid.to_voxels(dvf.at(output_points(centres, 2))).astype(np.float32))
    samples.save(folder / "samples.npz")
    return SamplePool([folder / "samples.npz"], [folder / "fixed.npy"], [folder / "moving.npy"], (-1000, 400))


@pytest.mark.slow
def test_the_network_learns_a_texture_within_200_steps():
    """On other windows of its training volume; it reaches about 10 % of the zero field's error, far below the limit of 60 %."""
    device = torch.device("cpu")
    network = RegNet("regnet").to(memory_format=torch.channels_last_3d)
    trainer = Trainer(network, device, 1.0, bfloat16=has_fast_bfloat16(device))
    textures = TexturePairs(WARMUP, torch.Generator().manual_seed(1))
    trainer.run_stage("warmup", textures, WARMUP, 1, WARMUP["steps"], None)
    fixed, moving, target = textures.batch()
    network.eval()
    with torch.inference_mode():
        error = mean_absolute_errors(network(fixed, moving), target).sum()
    assert error < 0.6 * mean_absolute_errors(torch.zeros_like(target), target).sum()


def test_a_training_leaves_curves_and_best_weights(pool, tmp_path):
    trainer = train("regnet_1scale", pool, pool, SETTINGS, SYNTHESIS, spacing=2.0, seed=1, device=torch.device("cpu"))
    assert [row["stage"] for row in trainer.rows] == ["training", "training"]
    assert [row["blocks"] for row in trainer.rows] == [4, 8]
    assert [row["patches"] for row in trainer.rows] == [4 * 2**3, 8 * 2**3]
    zero_field = 2.0 * np.abs(pool.displacements).sum(axis=-1).mean()
    assert trainer.rows[0]["validation_zero_field"] == pytest.approx(zero_field, rel=1e-5)
    best = min(trainer.rows, key=lambda row: row["validation_mae"])
    assert trainer.best[0] == best["validation_mae"]
    write_curves(trainer.rows, tmp_path / "training.csv")
    with open(tmp_path / "training.csv", encoding="utf-8") as file:
        assert next(csv.reader(file)) == list(COLUMNS)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(pool):
    first, again, other = (
        train(
            "regnet", pool, pool, SETTINGS, SYNTHESIS, spacing=2.0, seed=seed, device=torch.device("cpu")
        ).network.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["joint.2.weight"], other["joint.2.weight"])


def test_without_steps_per_epoch_every_sample_is_seen_once(pool):
    settings = {**SETTINGS, "steps_per_epoch": None, "epochs": 1, "batch": 5}
    trainer = train("regnet_1scale", pool, pool, settings, SYNTHESIS, spacing=2.0, seed=1, device=torch.device("cpu"))
    assert trainer.rows[0]["step"] == math.ceil(len(pool) / 5)


def test_the_chapters_learning_rate_falls_by_its_factor_each_epoch():
    rates = [learning_rate(SETTINGS, step=100 * epoch, steps=1500, epoch=epoch) for epoch in range(15)]
    np.testing.assert_allclose(rates, 0.001 / 1.25 ** np.arange(15))


@pytest.mark.slow
def test_frozen_normalization_keeps_its_statistics(pool):
    """With 3 of 4 steps frozen, the running statistics have moved once, at low resolution four times; weights moved on."""
    frozen, one_step = (
        train("regnet", pool, pool, {**SETTINGS, **changes}, SYNTHESIS, spacing=2.0, seed=1, device=torch.device("cpu"))
        for changes in ({"freeze_after": 1}, {"epochs": 1, "steps_per_epoch": 1})
    )
    name = "original.streams.0.1"
    frozen, one_step = frozen.network.state_dict(), one_step.network.state_dict()
    torch.testing.assert_close(frozen[f"{name}.running_mean"], one_step[f"{name}.running_mean"])
    assert not torch.equal(frozen[f"{name}.weight"], one_step[f"{name}.weight"])
    assert frozen[f"{name}.num_batches_tracked"] == 1
    assert frozen["low.streams.0.1.num_batches_tracked"] == frozen["low.merged.13.num_batches_tracked"] == 4


def test_a_cosine_rises_and_falls():
    settings = {**SETTINGS, "schedule": "cosine", "rise": 10}
    rates = [learning_rate(settings, step, 200, 0) for step in range(200)]
    assert rates[0] == pytest.approx(0.0001, rel=0.01)
    assert max(rates) == pytest.approx(0.001, rel=0.02)
    assert rates[-1] == pytest.approx(0.001 / 50, rel=0.05)


def test_errors_are_means_over_points_for_each_axis():
    predicted, target = torch.zeros(2, 3, 1, 1, 1), torch.zeros(2, 3, 1, 1, 1)
    target[0, :, 0, 0, 0] = torch.tensor([1.0, -2.0, 3.0])
    assert mean_absolute_errors(predicted, target).tolist() == [0.5, 1.0, 1.5]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_batch_is_the_batch_of_mirrored_images(axis):
    """Mirroring a volume and its field, then cutting, equals cutting and then mirroring."""
    generator = torch.Generator().manual_seed(3)
    moving = random_texture(58, 1.5, generator)
    field = random_field(58, 15, 3.0, generator)
    fixed = warp_texture(moving, field)
    outputs = torch.nn.functional.avg_pool3d(field[:, :, 26:32, 26:32, 26:32], 2)
    mirrored_fixed, mirrored_moving, target = flip((fixed, moving, outputs), (axis,))
    dim = 4 - axis
    sign = torch.tensor([-1.0 if component == axis else 1.0 for component in range(3)]).view(1, 3, 1, 1, 1)
    mirrored_field = field.flip(dim) * sign
    torch.testing.assert_close(target, torch.nn.functional.avg_pool3d(mirrored_field[:, :, 26:32, 26:32, 26:32], 2))
    torch.testing.assert_close(warp_texture(mirrored_moving, mirrored_field), mirrored_fixed, atol=1e-3, rtol=0)


def test_a_texture_pair_is_related_by_its_field():
    fixed, moving, target = TexturePairs({**WARMUP, "batch": 3, "block": 2}, torch.Generator().manual_seed(1)).batch()
    assert fixed.shape == moving.shape == (3, 1, 56, 56, 56)
    assert target.shape == (3, 3, 2, 2, 2)
    # At the outputs the field shifts the moving texture onto the fixed one.
    field = torch.nn.functional.interpolate(target.mean(dim=(2, 3, 4), keepdim=True), size=(56,) * 3)
    centre = (..., slice(24, 32), slice(24, 32), slice(24, 32))
    for number in range(3):
        sample = slice(number, number + 1)
        before = (fixed[sample] - moving[sample])[centre].abs().mean()
        after = (fixed[sample] - warp_texture(moving[sample], field[sample]))[centre].abs().mean()
        assert after < 0.5 * before


def test_textures_look_like_normalized_ct_and_fields_reach_their_maximum():
    generator = torch.Generator().manual_seed(0)
    texture = random_texture(40, 1.5, generator)
    assert float(texture.mean()) == pytest.approx(0.7, abs=1e-3)
    assert float(texture.std()) == pytest.approx(0.5, abs=1e-3)
    assert float(random_field(40, 15, 4.0, generator).abs().max()) == pytest.approx(4, rel=0.1)


def test_a_loss_that_is_not_finite_stops_the_training(pool):
    with pytest.raises(RegNetError, match="loss is nan"):
        train(
            "regnet",
            pool,
            pool,
            {**SETTINGS, "learning_rate": 1e30},
            SYNTHESIS,
            spacing=2.0,
            seed=1,
            device=torch.device("cpu"),
        )


def test_a_resolution_without_features_is_reported(pool, caplog):
    network = RegNet()
    network.low.merged[-2].bias.data.fill_(-100)
    with caplog.at_level("INFO"):
        Trainer(network, torch.device("cpu"), 1.0, False).log_responding_features(Feed(pool, torch.device("cpu")), 1)
    assert "low resolution: 0 of 30 features respond" in caplog.text
    assert [record.args for record in caplog.records if record.levelname == "WARNING"] == [("low",)]


@pytest.mark.slow
def test_finetuning_starts_from_the_given_weights(pool, tmp_path):
    """A rate of nearly 0 leaves them as they are; frozen normalization too."""
    start = tmp_path / "start.safetensors"
    save_network(RegNet("regnet_1scale"), start, spacing=4.0, window=(-1000, 400), blocks_seen=10, patches_seen=80)
    settings = {**SETTINGS, "learning_rate": 1e-12, "freeze_after": 0}
    options = {"spacing": 2.0, "seed": 1, "device": torch.device("cpu"), "start": start}
    trainer = train("regnet_1scale", pool, pool, settings, SYNTHESIS, **options)
    assert [(row["blocks"], row["patches"]) for row in trainer.rows] == [(14, 80 + 4 * 2**3), (18, 80 + 8 * 2**3)]
    trained = trainer.network.state_dict()
    given = load_network(start)[0].state_dict()
    assert all(torch.allclose(trained[name], value, atol=1e-6) for name, value in given.items())
    scratch = train("regnet_1scale", pool, pool, settings, SYNTHESIS, **{**options, "start": None}).network.state_dict()
    assert not torch.allclose(scratch["joint.2.weight"], given["joint.2.weight"], atol=1e-3)
    with pytest.raises(InputError, match=r"start\.safetensors: found weights of the variant regnet_1scale, expected regnet$"):
        train("regnet", pool, pool, settings, SYNTHESIS, **options)


def test_weights_survive_the_disk(tmp_path):
    network = RegNet("regnet_early").eval()
    save_network(network, tmp_path / "model.safetensors", spacing=2.0, window=(-1000, 400), patches_seen=7)
    stored, facts = load_network(tmp_path / "model.safetensors")
    assert facts == {"variant": "regnet_early", "spacing": 2.0, "window": [-1000, 400], "patches_seen": 7}
    assert all(torch.equal(value, stored.state_dict()[name]) for name, value in network.state_dict().items())


def test_other_files_are_refused_as_weights(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        load_network(path)
    other = RegNet("regnet_1scale")
    other.variant = "regnet"
    save_network(other, path, spacing=2.0, window=(-1000, 400))
    with pytest.raises(InputError, match="do not fit the variant regnet"):
        load_network(path)
    with pytest.raises(InputError, match=r"model\.safetensors: found weights of the spacing 2\.0, expected 1\.0"):
        load_network(path, spacing=1.0)


def test_without_a_granted_gpu_the_cpu_is_taken():
    assert pick_device(0).type == "cpu"
