"""Statistical tests between methods.

They are not in the summaries because scipy.stats is slow to import and the figures do not need it.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from regnet.evaluation.summaries import FEW, by_method, evaluations

TEST_COLUMNS = [
    *("evaluation", "capture_range", "level", "method", "other", "n", "few"),
    *("mean_difference", "median_difference", "statistic", "p", "p_holm"),
]
"""Columns of `paired_tests`; differences in mm, negative where `method` has the smaller error."""


def paired_tests(landmarks: pd.DataFrame, capture_ranges: Sequence[float]) -> pd.DataFrame:
    """Wilcoxon signed-rank tests, two-sided, between the errors of all methods at the same landmarks.

    There are two levels. Tests over landmarks, as in most papers, treat the landmarks of a pair as independent and therefore
    report too many differences. Tests over pairs compare the mean errors of each pair. Holm's correction covers all comparisons
    of one evaluation and level.

    Parameters
    ----------
    landmarks, capture_ranges
        As in `regnet.evaluation.summaries.accuracy`.

    Returns
    -------
    pandas.DataFrame
        Columns `TEST_COLUMNS`, one row per evaluation, level (``landmarks`` or ``pairs``) and two methods; ``p`` is 1 where
        all differences are 0.
    """
    frames = [pd.DataFrame(columns=TEST_COLUMNS)]
    for evaluation, capture_range, chosen in evaluations(landmarks, capture_ranges):
        errors = by_method(chosen)
        for level, table in (("landmarks", errors), ("pairs", errors.groupby("pair").mean())):
            rows = []
            for method, other in combinations(errors.columns, 2):
                difference = (table[method] - table[other]).to_numpy()
                row = {
                    "evaluation": evaluation,
                    "capture_range": capture_range,
                    "level": level,
                    "method": method,
                    "other": other,
                }
                row |= {"n": len(difference), "few": len(errors) < FEW}
                row |= {"mean_difference": difference.mean(), "median_difference": np.median(difference)}
                test = stats.wilcoxon(difference) if difference.any() else None
                rows.append(row | {"statistic": test.statistic if test else 0.0, "p": test.pvalue if test else 1.0})
            tests = pd.DataFrame(rows, columns=TEST_COLUMNS)
            frames.append(tests.assign(p_holm=holm(tests["p"].to_numpy(float))))
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


def holm(p: np.ndarray) -> np.ndarray:
    """Return the p values ``(m,)``, corrected for m tests by Holm's method (Scand. J. Statist. 6, 1979)."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected
