"""Errors at points of synthetic pairs against numbers worked out by hand."""

import numpy as np

from regnet.evaluation import point_errors
from regnet.evaluation.long_tables import POINT_COLUMNS
from regnet.evaluation.summaries import zero_field_mae


def points(variant="regnet", split="test"):
    """Two points: |error| (0.5, 1, 1.5) and (0, 0, 1); zero field 6 and 3 mm."""
    displacement = np.array([[1.0, -2, 3], [0, 0, -3]])
    predicted = np.array([[1.5, -1, 1.5], [0, 0, -2]])
    return point_errors.point_errors(variant, split, "i1", "original", "low", np.zeros((2, 3)), displacement, predicted)


def test_point_errors_sum_over_axes():
    table = points()
    assert list(table.columns) == list(POINT_COLUMNS)
    assert table["mae"].tolist() == [3, 1]
    assert table[["mae_x", "mae_y", "mae_z"]].to_numpy().tolist() == [[0.5, 1, 1.5], [0, 0, 1]]
    assert zero_field_mae(table) == 4.5
