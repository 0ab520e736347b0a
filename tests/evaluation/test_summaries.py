"""Summaries against numbers worked out by hand, and the bootstrap against draws made one by one."""

import numpy as np
import pandas as pd
import pytest
from made_landmarks import DRAWS, VOXELS, landmarks, shift

from regnet.errors import InputError
from regnet.evaluation import landmark_errors, point_errors, summaries


def pair(capture_range=8.0):
    """Two landmarks: 8 mm and 13 mm off after affine; RegNet leaves 3 (x 1, y -2, z 2) and 10 mm."""
    fixed = np.zeros((2, 3))
    moving = np.array([[8.0, 0, 0], [3.0, 4, 12]])
    transforms = {"affine": shift(0, 0, 0), "regnet": shift(9, -2, 2)}
    return landmark_errors.pair_errors("p1", transforms, fixed, moving, capture_range, VOXELS)


def points(variant="regnet", split="test"):
    """Two points: |error| (0.5, 1, 1.5) and (0, 0, 1); zero field 6 and 3 mm."""
    displacement = np.array([[1.0, -2, 3], [0, 0, -3]])
    predicted = np.array([[1.5, -1, 1.5], [0, 0, -2]])
    return point_errors.point_errors(variant, split, "i1", "original", "low", np.zeros((2, 3)), displacement, predicted)


def test_residual_displacements_are_relative_to_affine():
    table = pair().assign(pair="p1")
    result = summaries.residual_displacements(table.sample(frac=1, random_state=0), "regnet").sort_values("landmark")
    assert result[["true_x", "true_y", "true_z"]].to_numpy().tolist() == [[8, 0, 0], [3, 4, 12]]
    assert result[["predicted_x", "predicted_y", "predicted_z"]].to_numpy().tolist() == [[9, -2, 2], [9, -2, 2]]
    assert result["within_capture_range"].tolist() == [True, False]


def test_summary_uses_the_sample_standard_deviation():
    summary = summaries.summarize(points(), ["mae", "mae_x"])
    assert summary.loc["mae"].tolist() == pytest.approx([2, 2, np.sqrt(2), 2])
    assert summary.loc["mae_x"].tolist() == pytest.approx([2, 0.25, 0.5 / np.sqrt(2), 0.25])
    assert np.isnan(summaries.summarize(points()[:1], ["mae"]).loc["mae", "sd"])
    assert summaries.summarize(points()[:0], ["mae"]).loc["mae", "n"] == 0


def test_accuracy_by_hand():
    table = summaries.accuracy(landmarks([2, 6, 8, 20], [1.0, 2.0, 3.6, 10.0], ("p1", "p2")), [8, 6], **DRAWS)
    assert list(table.columns) == summaries.ACCURACY_COLUMNS
    keys = list(zip(table["evaluation"], table["capture_range"].fillna(0), table["method"], strict=True))
    assert keys == [
        (name, limit, method) for name, limit in (("TRE", 0), ("TRE'", 8), ("TRE'", 6)) for method in ("affine", "net")
    ]
    row = table.iloc[3]
    errors = [1, 2, 3.6] * 2
    assert (row["n"], row["n_pairs"], bool(row["few"])) == (6, 2, True)
    for name, value in (
        ("mean", 2.2),
        ("sd", np.std(errors, ddof=1)),
        ("median", 2),
        ("max", 3.6),
        ("x_mean", 2.2),
        ("y_mean", 0),
    ):
        assert row[name] == pytest.approx(value), name
    assert row["p75"] == pytest.approx(np.percentile(errors, 75))
    assert row["p95"] == pytest.approx(np.percentile(errors, 95))
    assert row["snapped_mean"] == pytest.approx(7 / 3)
    assert row["mean_low"] < 2.2 < row["mean_high"]
    assert table["n"].tolist() == [8, 8, 6, 6, 4, 4]


def test_ten_landmarks_are_not_few():
    for count, few in ((9, True), (10, False)):
        assert summaries.accuracy(landmarks([1] * count, 1.0), [], **DRAWS)["few"].tolist() == [few, few]


def test_no_landmarks_give_no_rows():
    nothing = landmarks([1], 1.0)[:0]
    assert summaries.accuracy(nothing, [8], **DRAWS).empty
    assert summaries.capture_curve(nothing, [2], **DRAWS).empty
    assert summaries.accurate_ranges(summaries.capture_curve(nothing, [2], **DRAWS)).empty


def test_a_draw_takes_pairs_first_and_as_many_landmarks_as_they_have(rng):
    pairs = np.array(["b", "a", "a", "a", "b", "c"])
    counts = summaries.drawn_counts(pairs, 3000, rng)
    assert counts.shape == (3000, 6)
    sizes = {"a": 3, "b": 2, "c": 1}
    of_pairs = np.stack([counts[:, pairs == name].sum(axis=1) / size for name, size in sizes.items()], axis=1)
    # Whole pairs, three of them in each draw, some twice or not at all.
    assert (of_pairs == of_pairs.astype(int)).all()
    assert (of_pairs.sum(axis=1) == 3).all()
    assert set(np.unique(of_pairs)) == {0, 1, 2, 3}
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)


def test_intervals_are_those_of_draws_made_one_by_one():
    rng = np.random.default_rng(2)
    pairs = np.repeat(["a", "b", "c", "d"], [20, 30, 25, 15])
    errors = rng.gamma(2, 1, 90) + np.repeat([0, 1, 2, 0.5], [20, 30, 25, 15])
    means, medians = [], []
    for _ in range(4000):
        drawn = [rng.choice(errors[pairs == name], (pairs == name).sum()) for name in rng.choice(list("abcd"), 4)]
        means.append(np.concatenate(drawn).mean())
        medians.append(np.median(np.concatenate(drawn)))
    expected = [*np.percentile(means, [2.5, 97.5]), *np.percentile(medians, [2.5, 97.5])]
    intervals = summaries.bootstrap_intervals(errors, summaries.drawn_counts(pairs, 4000, rng))
    assert list(intervals) == ["mean_low", "mean_high", "median_low", "median_high"]
    np.testing.assert_allclose(list(intervals.values()), expected, atol=0.08)
    # A bootstrap of landmarks alone has narrower intervals: here the pairs differ more than the landmarks within them.
    landmarks_alone = summaries.bootstrap_intervals(errors, summaries.drawn_counts(np.repeat("a", 90), 4000, rng))
    assert intervals["mean_high"] - intervals["mean_low"] > 1.5 * (landmarks_alone["mean_high"] - landmarks_alone["mean_low"])


def test_one_landmark_has_no_interval():
    assert all(np.isnan(limit) for limit in summaries.bootstrap_intervals(np.ones(1), np.ones((100, 1), int)).values())


def test_intervals_depend_on_the_seed_alone_and_methods_share_their_draws():
    table = landmarks(np.arange(1, 13), np.arange(1, 13) / 2)
    first, second = (summaries.accuracy(table, [8], **DRAWS) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert not first.equals(summaries.accuracy(table, [8], samples=400, seed=2))
    affine, net = first.iloc[0], first.iloc[1]
    assert net["mean_low"] == pytest.approx(affine["mean_low"] / 2)


def test_a_landmark_without_affine_is_named():
    table = landmarks([1, 2], 1.0)
    with pytest.raises(InputError, match="p1, landmark 0: found no row of affine"):
        summaries.accuracy(table[table["method"] != "affine"], [8], **DRAWS)


def test_a_landmark_without_a_method_is_named():
    table = landmarks([1, 2], 1.0)
    missing = table[(table["method"] == "affine") | (table["landmark"] == 0)]
    for measure in (lambda: summaries.accuracy(missing, [8], **DRAWS), lambda: summaries.capture_curve(missing, [4], **DRAWS)):
        with pytest.raises(InputError, match="p1, landmark 1: found no row of net, expected one of every method"):
            measure()


def test_the_order_of_the_rows_does_not_matter():
    table = landmarks(np.arange(1, 13), np.arange(1, 13) / 2, ("p1", "p2"))
    mixed = pd.concat([table[table["method"] == name][::-1] for name in ("affine", "net")], ignore_index=True)
    pd.testing.assert_frame_equal(summaries.accuracy(mixed, [8], **DRAWS), summaries.accuracy(table, [8], **DRAWS))
    pd.testing.assert_frame_equal(summaries.capture_curve(mixed, [4], **DRAWS), summaries.capture_curve(table, [4], **DRAWS))


def curve_of(*bins, count=12):
    """The curve of `count` landmarks for each (distance after affine, error of the method)."""
    initial, residual = zip(*(pair_of_errors for pair_of_errors in bins for _ in range(count)), strict=True)
    return summaries.capture_curve(landmarks(initial, residual), [2, 4, 8], **DRAWS)


def test_bins_of_the_curve_take_their_lower_edge():
    curve = curve_of((1, 0.5), (2, 0.6), (7.9, 1), (8, 3))
    assert list(curve.columns) == summaries.CURVE_COLUMNS
    net = curve[curve["method"] == "net"]
    assert net["lower"].tolist() == [0, 2, 4, 8]
    assert net["upper"].tolist() == [2, 4, 8, np.inf]
    assert net["n"].tolist() == [12] * 4
    assert net["median"].tolist() == [0.5, 0.6, 1, 3]
    assert net["initial_mean"].tolist() == pytest.approx([1, 2, 7.9, 8])
    assert curve["method"].tolist() == ["affine"] * 4 + ["net"] * 4


@pytest.mark.parametrize(
    ("bins", "expected"),
    [
        ([(1, 0.5), (3, 1), (5, 4), (9, 1)], (4, False)),
        ([(1, 0.5), (3, 1), (5, 2)], (8, True)),
        ([(1, 0.5), (9, 2)], (8, True)),
        ([(1, 3), (3, 1)], (0, False)),
        ([(1, 2.5), (3, 2.6)], (2, False)),
    ],
)
def test_the_accurate_range_ends_before_the_first_inaccurate_bin(bins, expected):
    row = summaries.accurate_ranges(curve_of(*bins)).loc["net"]
    assert (row["held_to"], row["is_least"]) == expected


def test_bins_of_few_landmarks_do_not_count():
    assert summaries.accurate_ranges(curve_of((1, 9), (3, 1), count=9)).empty


def test_the_low_accurate_range_is_that_of_the_interval():
    initial = [1] * 12 + [3] * 12
    curve = summaries.capture_curve(landmarks(initial, np.r_[np.ones(12), np.ones(7), np.full(5, 9)]), [2, 4], **DRAWS)
    row = summaries.accurate_ranges(curve).loc["net"]
    assert (row["held_to"], row["held_to_low"]) == (4, 2)
