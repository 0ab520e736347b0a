"""Errors at landmarks against numbers worked out by hand."""

import numpy as np
import pytest
import SimpleITK as sitk
from made_landmarks import shift

from regnet.errors import ConfigError
from regnet.evaluation import landmark_errors
from regnet.evaluation.long_tables import LANDMARK_COLUMNS
from regnet.images.volumes import Grid

VOXELS = Grid((20, 20, 20), (2.0, 2.0, 5.0))


def pair(capture_range=8.0):
    """Two landmarks: 8 mm and 13 mm off after affine; RegNet leaves 3 (x 1, y -2, z 2) and 10 mm."""
    fixed = np.zeros((2, 3))
    moving = np.array([[8.0, 0, 0], [3.0, 4, 12]])
    transforms = {"affine": shift(0, 0, 0), "regnet": shift(9, -2, 2)}
    return landmark_errors.pair_errors("p1", transforms, fixed, moving, capture_range, VOXELS)


def test_landmark_errors_by_hand():
    table = landmark_errors.landmark_errors("regnet", "p1", shift(9, -2, 2), np.zeros((1, 3)), np.array([[8.0, 0, 0]]))
    assert list(table.columns) == [name for name in LANDMARK_COLUMNS if name not in ("error_snapped", "within_capture_range")]
    row = table.iloc[0]
    assert (row["method"], row["pair"], row["landmark"]) == ("regnet", "p1", 0)
    assert row[["mapped_x", "mapped_y", "mapped_z"]].tolist() == [9, -2, 2]
    assert row[["error_x", "error_y", "error_z"]].tolist() == [1, 2, 2]
    assert row["error"] == pytest.approx(3)


def test_transform_maps_the_fixed_landmark_not_the_moving_one():
    fixed, moving = np.array([[1.0, 2, 3]]), np.array([[6.0, 2, 3]])
    assert landmark_errors.landmark_errors("m", "p", shift(5, 0, 0), fixed, moving)["error"].item() == pytest.approx(0)


@pytest.mark.parametrize(("capture_range", "expected"), [(8.0, [True, False]), (7.999, [False, False]), (13.0, [True, True])])
def test_capture_range_includes_its_boundary_and_is_the_same_for_every_method(capture_range, expected):
    table = pair(capture_range)
    assert table["error"].round(9).tolist() == [8, 13, 3, round(np.sqrt(36 + 36 + 100), 9)]
    for _, rows in table.groupby("method"):
        assert rows["within_capture_range"].tolist() == expected


def snapped(transform, moving, grid):
    table = landmark_errors.pair_errors("p", {"affine": transform}, np.zeros((1, 3)), np.array([moving], float), 8.0, grid)
    return table["error_snapped"].item()


def test_snapped_errors_are_between_voxels_of_the_moving_image():
    # Voxels of 2 x 2 x 5 mm: 2.9 mm is nearest to voxel 1, 7.4 mm to voxel 1 along z.
    assert snapped(shift(2.9, 0, 7.4), (2, 0, 5), VOXELS) == 0
    assert snapped(shift(3.1, 0, 7.6), (2, 0, 5), VOXELS) == pytest.approx(np.hypot(2, 5))
    # A landmark off the centre of its voxel is rounded to that centre.
    assert snapped(shift(2, 0, 0), (2.9, 0, 0), VOXELS) == 0


def test_snapping_follows_the_voxels_wherever_the_image_lies(oblique_grid):
    voxel, mapped = oblique_grid.points(np.array([[10, 20, 30], [11.4, 19.6, 31.6]]))
    expected = np.linalg.norm(np.array([1, 0, 2]) * oblique_grid.spacing)
    assert snapped(shift(*mapped), voxel, oblique_grid) == pytest.approx(expected)


def test_pair_without_affine_is_refused():
    with pytest.raises(ConfigError, match="needs affine"):
        landmark_errors.pair_errors("p", {"regnet": shift(0, 0, 0)}, np.zeros((1, 3)), np.zeros((1, 3)), 8.0, VOXELS)


def test_pair_without_landmarks_gives_an_empty_table():
    table = landmark_errors.pair_errors("p", {"affine": shift(0, 0, 0)}, np.empty((0, 3)), np.empty((0, 3)), 8.0, VOXELS)
    assert table.empty
    assert list(table.columns) == list(LANDMARK_COLUMNS)


def test_mismatched_points_are_refused_by_name():
    with pytest.raises(ValueError, match=r"moving: shape \(2, 3\), expected \(1, 3\)"):
        landmark_errors.landmark_errors("m", "p", shift(0, 0, 0), np.zeros((1, 3)), np.zeros((2, 3)))


def test_the_spread_over_seeds_by_hand():
    errors = pair()
    moving = np.array([[8.0, 0, 0], [3.0, 4, 12]])
    repeats = [
        ("1", "regnet", "p1", sitk.TranslationTransform(3, (8.0, 0, 1))),
        ("2", "regnet", "p1", sitk.TranslationTransform(3, (8.0, 0, 0))),
    ]
    row = landmark_errors.seed_spread(errors, repeats).iloc[0]
    first = (3 + np.linalg.norm([6, -6, -10])) / 2
    means = [first, *(np.linalg.norm(np.array(transform.GetOffset()) - moving, axis=1).mean() for *_, transform in repeats)]
    assert (row["method"], row["seeds"], row["tre_mean"]) == ("regnet", 3, pytest.approx(first))
    assert row["tre_mean_mean"] == pytest.approx(np.mean(means))
    assert row["tre_mean_sd"] == pytest.approx(np.std(means, ddof=1))
    assert (row["tre_mean_lowest"], row["tre_mean_highest"]) == pytest.approx((min(means), max(means)))
    assert row["tre_median_highest"] == row["tre_mean_highest"]
    # The median of two landmarks is their mean. Affine has no row: it was not repeated.
    assert list(landmark_errors.seed_spread(errors, repeats)["method"]) == ["regnet"]
