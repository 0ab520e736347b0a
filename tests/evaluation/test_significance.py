"""Tests between methods against scipy, and Holm's correction against p values corrected by hand."""

import numpy as np
import pytest
from made_landmarks import landmarks
from scipy import stats

from regnet.evaluation.long_tables import LANDMARK_COLUMNS, collect
from regnet.evaluation.significance import TEST_COLUMNS, holm, paired_tests


def three_methods(pairs=("p1", "p2", "p3")):
    rng = np.random.default_rng(1)
    table = landmarks(rng.uniform(1, 12, 20), rng.uniform(0, 3, 20), pairs)
    other = table[table["method"] == "net"].assign(method="other")
    other["error"] += rng.normal(0.4, 0.5, len(other))
    return collect([table, other], LANDMARK_COLUMNS)


def errors_of(table, method):
    return table[table["method"] == method].set_index(["pair", "landmark"])["error"]


def test_landmarks_are_paired_by_their_names_not_by_their_order():
    table = three_methods()
    difference = errors_of(table, "net") - errors_of(table, "other")
    tests = paired_tests(table.sample(frac=1, random_state=1), [8])
    assert list(tests.columns) == TEST_COLUMNS
    row = tests[(tests["evaluation"] == "TRE") & (tests["level"] == "landmarks")].set_index(["method", "other"])
    key = next(key for key in row.index if set(key) == {"net", "other"})
    sign = 1 if key == ("net", "other") else -1
    assert row.loc[key, "n"] == 60
    assert row.loc[key, "mean_difference"] == pytest.approx(sign * difference.mean())
    assert row.loc[key, "p"] == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert row.loc[key, "p"] < 0.001


def test_pairs_are_tested_by_their_means():
    table = three_methods()
    tests = paired_tests(table, [])
    row = tests[(tests["level"] == "pairs") & (tests["method"] == "net") & (tests["other"] == "other")].squeeze()
    means = (errors_of(table, "net") - errors_of(table, "other")).groupby("pair").mean()
    assert row["n"] == 3
    assert row["p"] == pytest.approx(stats.wilcoxon(means).pvalue)
    assert row["p"] >= 0.25


def test_the_correction_covers_one_evaluation_and_level():
    tests = paired_tests(three_methods(), [8, 4])
    assert len(tests) == 3 * 2 * 3
    for _, group in tests.groupby(["evaluation", "capture_range", "level"], dropna=False):
        assert len(group) == 3
        np.testing.assert_allclose(group["p_holm"], holm(group["p"].to_numpy()))
    assert (tests["p_holm"] >= tests["p"]).all()


def test_no_difference_is_not_significant():
    table = landmarks([1, 2, 3], [1.0, 2.0, 3.0])
    assert (paired_tests(table, [8])[["p", "p_holm"]] == 1).all(axis=None)


def test_nothing_to_test():
    assert paired_tests(landmarks([1], 1.0)[:0], [8]).empty
    alone = landmarks([1, 2], 1.0)
    assert paired_tests(alone[alone["method"] == "affine"], []).empty


def test_holm_by_hand():
    """Three tests: 0.01 x 3, then 0.02 x 2 = 0.04, then 0.03 x 1, which may not be smaller than the one before."""
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.02])), [0.04, 0.03, 0.04])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1, 1])
    assert holm(np.array([])).size == 0
