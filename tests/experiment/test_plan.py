"""Plans: how they grow with a cohort and a config, and how they are described."""

import copy
from pathlib import Path

import pytest
from made_cohorts import CHAPTER_MM3, cohort_of

from regnet.errors import ConfigError
from regnet.experiment.checking import read_config
from regnet.experiment.plan import block_flop, describe, image_volumes, plan_run, remaining_jobs

ROOT = Path(__file__).parents[2]


def planned(tested=2, change=lambda config: None):
    config = copy.deepcopy(read_config([]))
    change(config)
    cohort = cohort_of(tested)
    return plan_run(config, cohort, image_volumes(config, cohort), {"train": 3, "table_2_1": 1})


def test_costs_grow_in_proportion_to_the_pairs():
    small, large = planned(2), planned(20)
    for rule in ("register", "register_regnet", "viewer", "evaluate_landmarks", "evaluate_regularity"):
        assert large.core_hours[rule] == pytest.approx(10 * small.core_hours[rule])
    assert large.core_hours["resample"] == pytest.approx(44 / 8 * small.core_hours["resample"])
    assert large.gpu_flop["train"] == small.gpu_flop["train"]
    for files in ("transforms", "viewers"):
        assert large.kept[files] == pytest.approx(10 * small.kept[files])


def test_the_chapters_cohort_fits_on_60_gb():
    """19 pairs of 446 x 315 x 129 voxels of 0.78 x 0.78 x 2.5 mm; 10 of them train and 7 test."""
    config = read_config([ROOT / "config" / "chapter.yaml"])
    cohort = cohort_of(tested=7, trained=10, validated=2)
    volumes = dict.fromkeys(cohort.images.index, CHAPTER_MM3)
    plan = plan_run(config, cohort, volumes, {})
    assert 10e9 < sum(plan.kept.values()) + sum(plan.removed.values()) < 60e9


def test_a_finer_grid_has_more_voxels():
    coarse, fine = planned(), planned(change=lambda config: config["resampling"].update(spacing=1.0))
    for volumes in ("kept", "removed"):
        assert getattr(fine, volumes)["synthetic volumes"] == pytest.approx(8 * getattr(coarse, volumes)["synthetic volumes"])
    assert fine.gpu_flop["register_regnet"] == pytest.approx(8 * coarse.gpu_flop["register_regnet"])


def test_training_is_counted_in_operations():
    half, whole = planned(), planned(change=lambda config: config["training"].update(epochs=10))
    without = planned(change=lambda config: config["training"].update(warmup=None))
    assert without.gpu_flop["train"] < half.gpu_flop["train"] < whole.gpu_flop["train"] < 2 * half.gpu_flop["train"]
    released = planned(change=lambda config: config["training"].update(mode="released"))
    assert "train" not in released.gpu_flop
    # Two of four subjects are tested. Without training, no volumes are made of the training image and none are kept.
    assert released.kept["synthetic volumes"] == 0
    assert half.kept["synthetic volumes"] == pytest.approx(half.removed["synthetic volumes"])
    assert released.removed["synthetic volumes"] == pytest.approx(1.5 * half.removed["synthetic volumes"])
    # The first convolution of a stream takes 2 operations for each of 27 weights and 30 maps at each of at least 25^3 voxels.
    assert block_flop("regnet", 1) > 2 * 27 * 30 * 25**3
    # Outputs of a block share most of their features.
    assert block_flop("regnet", 1) < block_flop("regnet", 4) < 3 * block_flop("regnet", 1)


def test_a_feature_pyramid_without_weights_is_trained():
    pyramid = {"module": "pyramid", "weights": "regnet_pyramid", "spacings": [2]}
    given = planned(change=lambda config: config["methods"].update(regnet_pyramid=pyramid))
    trained = planned(change=lambda config: config["methods"].update(regnet_pyramid={**pyramid, "weights": None}))
    assert "train_pyramid" not in given.core_hours
    assert given.core_hours["register"] == trained.core_hours["register"]
    assert trained.core_hours["train_pyramid"] > 480 / 3600


def test_a_plan_is_described_in_lines():
    text = describe(planned(), gpu_tflops=50)
    for line in ("jobs to run      4", "core hours       ", "GPU hours        ", "disk             ", "synthetic volumes"):
        assert line in text
    assert "at 50 TFLOP/s" in text


def test_a_dry_run_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"snakemake --dry-run: .*Snakefile"):
        remaining_jobs([], [])
