"""Errors at landmarks and points against numbers worked out by hand; slices against images whose orientation is known."""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet import evaluation
from regnet.errors import ConfigError, InputError
from regnet.evaluation import LANDMARK_COLUMNS, POINT_COLUMNS
from regnet.transforms import field_transform
from regnet.volumes import Grid


def shift(*vector):
    return sitk.TranslationTransform(3, [float(component) for component in vector])


def pair(capture_range=8.0):
    """Two landmarks: 8 mm and 13 mm off after affine; RegNet leaves 3 (x 1, y -2, z 2) and 10 mm."""
    fixed = np.zeros((2, 3))
    moving = np.array([[8.0, 0, 0], [3.0, 4, 12]])
    transforms = {"affine": shift(0, 0, 0), "regnet": shift(9, -2, 2)}
    return evaluation.pair_errors("p1", transforms, fixed, moving, capture_range)


def test_landmark_errors_by_hand():
    table = evaluation.landmark_errors("regnet", "p1", shift(9, -2, 2), np.zeros((1, 3)), np.array([[8.0, 0, 0]]))
    assert list(table.columns) == [column for column in LANDMARK_COLUMNS if column != "within_capture_range"]
    row = table.iloc[0]
    assert (row["method"], row["pair"], row["landmark"]) == ("regnet", "p1", 0)
    assert row[["mapped_x", "mapped_y", "mapped_z"]].tolist() == [9, -2, 2]
    assert row[["error_x", "error_y", "error_z"]].tolist() == [1, 2, 2]
    assert row["error"] == pytest.approx(3)


def test_transform_maps_the_fixed_landmark_not_the_moving_one():
    fixed, moving = np.array([[1.0, 2, 3]]), np.array([[6.0, 2, 3]])
    assert evaluation.landmark_errors("m", "p", shift(5, 0, 0), fixed, moving)["error"].item() == pytest.approx(0)


@pytest.mark.parametrize(("capture_range", "expected"), [(8.0, [True, False]), (7.999, [False, False]), (13.0, [True, True])])
def test_capture_range_includes_its_boundary_and_is_the_same_for_every_method(capture_range, expected):
    table = pair(capture_range)
    assert table["error"].round(9).tolist() == [8, 13, 3, round(np.sqrt(36 + 36 + 100), 9)]
    for _, rows in table.groupby("method"):
        assert rows["within_capture_range"].tolist() == expected


def test_pair_without_affine_is_refused():
    with pytest.raises(ConfigError, match="needs affine"):
        evaluation.pair_errors("p", {"regnet": shift(0, 0, 0)}, np.zeros((1, 3)), np.zeros((1, 3)), 8.0)


def test_pair_without_landmarks_gives_an_empty_table():
    table = evaluation.pair_errors("p", {"affine": shift(0, 0, 0)}, np.empty((0, 3)), np.empty((0, 3)), 8.0)
    assert table.empty
    assert list(table.columns) == list(LANDMARK_COLUMNS)


def test_mismatched_points_are_refused_by_name():
    with pytest.raises(ValueError, match=r"moving: shape \(2, 3\), expected \(1, 3\)"):
        evaluation.landmark_errors("m", "p", shift(0, 0, 0), np.zeros((1, 3)), np.zeros((2, 3)))


def points(variant="regnet", split="test"):
    """Two points: |error| (0.5, 1, 1.5) and (0, 0, 1); zero field 6 and 3 mm."""
    displacement = np.array([[1.0, -2, 3], [0, 0, -3]])
    predicted = np.array([[1.5, -1, 1.5], [0, 0, -2]])
    return evaluation.point_errors(variant, split, "i1", "original", "low", np.zeros((2, 3)), displacement, predicted)


def test_point_errors_sum_over_axes():
    table = points()
    assert list(table.columns) == list(POINT_COLUMNS)
    assert table["mae"].tolist() == [3, 1]
    assert table[["mae_x", "mae_y", "mae_z"]].to_numpy().tolist() == [[0.5, 1, 1.5], [0, 0, 1]]
    assert evaluation.zero_field_mae(table) == 4.5


def test_residual_displacements_are_relative_to_affine():
    table = pair().assign(pair="p1")
    result = evaluation.residual_displacements(table.sample(frac=1, random_state=0), "regnet").sort_values("landmark")
    assert result[["true_x", "true_y", "true_z"]].to_numpy().tolist() == [[8, 0, 0], [3, 4, 12]]
    assert result[["predicted_x", "predicted_y", "predicted_z"]].to_numpy().tolist() == [[9, -2, 2], [9, -2, 2]]
    assert result["within_capture_range"].tolist() == [True, False]


def test_summary_uses_the_sample_standard_deviation():
    summary = evaluation.summarize(points(), ["mae", "mae_x"])
    assert summary.loc["mae"].tolist() == pytest.approx([2, 2, np.sqrt(2), 2])
    assert summary.loc["mae_x"].tolist() == pytest.approx([2, 0.25, 0.5 / np.sqrt(2), 0.25])
    assert np.isnan(evaluation.summarize(points()[:1], ["mae"]).loc["mae", "sd"])
    assert evaluation.summarize(points()[:0], ["mae"]).loc["mae", "n"] == 0


def test_errors_survive_a_round_trip(tmp_path):
    table = pair().assign(pair="007")
    evaluation.write_errors(table, tmp_path / "landmarks.csv")
    found = evaluation.read_errors(tmp_path / "landmarks.csv", LANDMARK_COLUMNS)
    assert found["pair"].unique().tolist() == ["007"]
    assert found["within_capture_range"].dtype == bool
    np.testing.assert_array_equal(found["error"], table["error"])


def test_a_table_without_rows_survives_a_round_trip(tmp_path):
    evaluation.write_errors(evaluation.collect([], LANDMARK_COLUMNS), tmp_path / "landmarks.csv")
    found = evaluation.read_errors(tmp_path / "landmarks.csv", LANDMARK_COLUMNS)
    assert found.empty
    assert found["within_capture_range"].dtype == bool


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method,pair\n", "lacks the columns landmark, fixed_x"),
        ("", "cannot be read as a CSV table"),
        (",".join(LANDMARK_COLUMNS) + "\n" + "affine,p,0" + ",1" * 9 + ",,1,1,1,True\n", "does not fit its column"),
    ],
)
def test_broken_tables_are_named(tmp_path, text, message):
    (tmp_path / "landmarks.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"landmarks\.csv: .*{message}"):
        evaluation.read_errors(tmp_path / "landmarks.csv", LANDMARK_COLUMNS)


def phantom():
    """Image whose value is 100 * z + x index (voxels 2 x 3 x 4 mm), with a mask that is largest at y = 2."""
    grid = Grid((5, 4, 6), (2.0, 3.0, 4.0), (10.0, 20.0, 30.0))
    z, y, x = np.indices(grid.shape)
    mask = (y == 2) | ((y == 1) & (x < 2))
    return grid, grid.image((100 * z + x).astype(np.int16)), grid.image(mask.astype(np.uint8)), y


def test_slices_are_coronal_through_the_largest_mask_with_superior_on_top():
    _, image, mask, _ = phantom()
    slices = evaluation.example_slices("p", image, mask, image, {"affine": shift(0, 0, 0), "regnet": shift(0, 0, 4)})
    assert list(slices) == ["pair", "spacing", "fixed", "mask", "affine", "regnet"]
    assert slices["spacing"].tolist() == [4, 2]
    assert slices["mask"].all()
    assert slices["fixed"][0].tolist() == [500, 501, 502, 503, 504]
    np.testing.assert_array_equal(slices["affine"], slices["fixed"])
    # T moves points one voxel up: the row shows what lies one row higher in the moving image; above it there is air.
    np.testing.assert_array_equal(slices["regnet"][1:], slices["fixed"][:-1])
    assert (slices["regnet"][0] == -1024).all()


def test_slices_do_not_depend_on_the_direction_of_the_image():
    _, image, mask, _ = phantom()
    turned, turned_mask = (sitk.DICOMOrient(each, "RAI") for each in (image, mask))
    expected = evaluation.example_slices("p", image, mask, image, {"affine": shift(0, 0, 0)})
    found = evaluation.example_slices("p", turned, turned_mask, image, {"affine": shift(0, 0, 0)})
    for name in ("spacing", "fixed", "mask", "affine"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_field_slices_hold_the_magnitude_in_mm(tmp_path):
    grid, image, mask, y = phantom()
    field = np.zeros((*grid.shape, 3))
    field[y == 2] = (1, 2, -2)
    field[0] = 0
    fields = {"low": field_transform(field, grid), "medium": shift(3, 4, 0), "high": shift(0, 0, 0)}
    evaluation.save_slices(tmp_path / "field_slices.npz", evaluation.field_slices(fields, image, mask))
    slices = evaluation.read_slices(tmp_path / "field_slices.npz", ["low", "medium", "high", "ct", "spacing"])
    np.testing.assert_allclose(slices["low"][:-1], 3)
    np.testing.assert_allclose(slices["low"][-1], 0)
    np.testing.assert_allclose(slices["medium"], 5)
    assert slices["high"].shape == slices["ct"].shape == (6, 5)
    assert not slices["high"].any()


def test_broken_slices_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: cannot be read"):
        evaluation.read_slices(tmp_path / "none.npz", ["ct"])
    (tmp_path / "text.npz").write_text("text", encoding="utf-8")
    with pytest.raises(InputError, match=r"text\.npz: cannot be read"):
        evaluation.read_slices(tmp_path / "text.npz", ["ct"])
    evaluation.save_slices(tmp_path / "slices.npz", {"ct": np.zeros((2, 2))})
    with pytest.raises(InputError, match=r"slices\.npz: lacks the arrays low; found ct"):
        evaluation.read_slices(tmp_path / "slices.npz", ["ct", "low"])


def test_the_spread_over_seeds_by_hand():
    errors = pair()
    moving = np.array([[8.0, 0, 0], [3.0, 4, 12]])
    again = [
        ("1", "regnet", "p1", sitk.TranslationTransform(3, (8.0, 0, 1))),
        ("2", "regnet", "p1", sitk.TranslationTransform(3, (8.0, 0, 0))),
    ]
    row = evaluation.seed_spread(errors, again).iloc[0]
    first = (3 + np.linalg.norm([6, -6, -10])) / 2
    means = [first, *(np.linalg.norm(np.array(transform.GetOffset()) - moving, axis=1).mean() for *_, transform in again)]
    assert (row["method"], row["seeds"], row["tre_mean"]) == ("regnet", 3, pytest.approx(first))
    assert row["tre_mean_mean"] == pytest.approx(np.mean(means))
    assert row["tre_mean_sd"] == pytest.approx(np.std(means, ddof=1))
    assert (row["tre_mean_lowest"], row["tre_mean_highest"]) == pytest.approx((min(means), max(means)))
    assert row["tre_median_highest"] == row["tre_mean_highest"]
    # Two landmarks have their mean as median, and affine was not registered again.
    assert list(evaluation.seed_spread(errors, again)["method"]) == ["regnet"]
