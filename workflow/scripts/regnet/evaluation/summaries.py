"""Summaries of the long tables: statistics with intervals, and error against initial displacement.

Landmarks of one pair are not independent: one registration is good or bad for all of them. Intervals therefore come from a
hierarchical bootstrap (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Each sample draws
pairs with replacement, then draws within each of these as many landmarks as the pair has. The limits are percentiles of the
statistic over all samples. With few pairs these intervals are too narrow; with one pair they are valid for that pair only.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from regnet.conventions import AXES, job_seed
from regnet.errors import InputError
from regnet.evaluation.long_tables import components

FEW = 10
"""Tables and figures mark every number that is based on fewer landmarks than this."""

COVERAGE = 0.95
"""Coverage of all intervals."""

BOOTSTRAP_SAMPLES = 2000
"""Number of samples of the bootstrap."""

FURTHER_CAPTURE_RANGES = (4, 12)
"""Capture ranges in mm for which TRE' is computed besides the config's ``evaluation.capture_range``."""

DISTANCE_BINS = (2, 4, 6, 8, 10, 12, 16, 20)
"""Upper limits of the bins of the distance after the affine registration, in mm; the first bin begins at 0, and an open bin
follows the last limit."""

ACCURATE_WITHIN = 2.5
"""The largest median error, in mm, at which a method counts as accurate."""

ACCURACY_COLUMNS = [
    *("evaluation", "capture_range", "method", "n", "n_pairs", "few"),
    *("mean", "sd", "mean_low", "mean_high"),
    *("median", "median_low", "median_high", "p75", "p95", "max"),
    *(f"{axis}_{statistic}" for axis in AXES for statistic in ("mean", "sd")),
    *("snapped_mean", "snapped_sd", "snapped_median"),
]
"""Columns of `accuracy`: TRE, or TRE' and its capture range; lengths in mm. ``low`` and ``high`` are the limits of the 95 %
intervals, ``few`` says whether `n` is below `FEW`, ``x_mean`` ... are of the absolute components, and ``snapped`` is the
``error_snapped`` of `regnet.evaluation.long_tables.LANDMARK_COLUMNS`."""

CURVE_COLUMNS = [
    *("method", "lower", "upper", "n", "n_pairs", "few", "initial_mean"),
    *("mean", "mean_low", "mean_high", "median", "median_low", "median_high"),
]
"""Columns of `capture_curve`: bins of the distance after the affine registration, ``lower <= distance < upper``, and the
errors of a method at the landmarks in the bin; lengths in mm."""


def summarize(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Number of values, mean, standard deviation and median of each column.

    The chapter does not say which standard deviation it prints. This is that of a sample (division by n - 1), undefined for one
    value. At the chapter's 503 landmarks the choice changes the largest printed value by 0.002 mm.

    Returns
    -------
    pandas.DataFrame
        One row per column of `columns`: n, mean, sd, median; all but n are NaN without values.
    """
    values = frame[list(columns)].astype(float)
    return pd.DataFrame(
        {"n": values.count(), "mean": values.mean(), "sd": values.std(ddof=1), "median": values.median()}, index=values.columns
    )


def zero_field_mae(points: pd.DataFrame) -> float:
    """MAE, in mm, that a network that always predicts no displacement would have at these points; NaN without points.

    `points` has columns as in `regnet.evaluation.long_tables.POINT_COLUMNS`.
    """
    return float(points[components("displacement")].abs().sum(axis=1).mean())


def residual_displacements(landmarks: pd.DataFrame, method: str) -> pd.DataFrame:
    """Displacements that the affine registration left, the true ones and those of `method`: one row per landmark.

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`; the rows of ``affine`` and of `method` are
        matched by pair and landmark.
    method
        A method that runs after the affine registration.

    Returns
    -------
    pandas.DataFrame
        Columns pair, landmark, within_capture_range, ``true_x`` ... = ``x_M - A(x_F)`` and ``predicted_x`` ... =
        ``T(x_F) - A(x_F)``, in mm.
    """
    keys = ["pair", "landmark"]
    affine, after = (landmarks[landmarks["method"] == name] for name in ("affine", method))
    both = affine.merge(after[[*keys, *components("mapped")]], on=keys, suffixes=("", "_by_method"), validate="one_to_one")
    result = both[[*keys, "within_capture_range"]].copy()
    for axis in AXES:
        result[f"true_{axis}"] = both[f"moving_{axis}"] - both[f"mapped_{axis}"]
        result[f"predicted_{axis}"] = both[f"mapped_{axis}_by_method"] - both[f"mapped_{axis}"]
    return result


def initial_distances(landmarks: pd.DataFrame) -> pd.Series:
    """Distance after the affine registration, in mm, of the landmark in each row.

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`.

    Raises
    ------
    InputError
        If a landmark has no row of ``affine``.
    """
    keys = ["pair", "landmark"]
    affine = landmarks.loc[landmarks["method"] == "affine", [*keys, "error"]]
    distances = landmarks[keys].merge(affine, on=keys, how="left", validate="many_to_one")["error"]
    if distances.isna().any():
        row = landmarks.loc[distances.isna().to_numpy()].iloc[0]
        raise InputError(f"landmarks: {row['pair']}, landmark {row['landmark']}: found no row of affine, expected one")
    return pd.Series(distances.to_numpy(float), index=landmarks.index)


def accuracy(
    landmarks: pd.DataFrame, capture_ranges: Sequence[float], *, samples: int = BOOTSTRAP_SAMPLES, seed: int
) -> pd.DataFrame:
    """TRE of every method, and TRE' for every capture range, with intervals.

    Parameters
    ----------
    landmarks
        Errors at the landmarks of the test pairs, columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`; may have no
        rows.
    capture_ranges
        In mm; TRE' is over the landmarks whose error after the affine registration is at most this.
    samples
        Number of samples of the bootstrap.
    seed
        Seed of the experiment, from which those of the samples are derived. All methods share the landmarks drawn.

    Returns
    -------
    pandas.DataFrame
        One row per evaluation and method, in the order of the ranges and of the input; columns `ACCURACY_COLUMNS`.
    """
    rows = []
    for evaluation, capture_range, chosen in evaluations(landmarks, capture_ranges):
        table = by_method(chosen)
        rng = np.random.default_rng(job_seed(seed, "bootstrap", evaluation, f"{capture_range:g}"))
        counts = drawn_counts(table.index.get_level_values("pair").to_numpy(), samples, rng)
        for method, errors in chosen.groupby("method", sort=False):
            error = errors["error"]
            row = {"evaluation": evaluation, "capture_range": capture_range, "method": method}
            row |= {"n": len(errors), "n_pairs": errors["pair"].nunique(), "few": len(errors) < FEW}
            row |= {"mean": error.mean(), "sd": error.std(ddof=1), "median": error.median(), "max": error.max()}
            row |= {"p75": error.quantile(0.75), "p95": error.quantile(0.95)}
            row |= bootstrap_intervals(table[method].to_numpy(), counts)
            for axis in AXES:
                row |= {f"{axis}_mean": errors[f"error_{axis}"].mean(), f"{axis}_sd": errors[f"error_{axis}"].std(ddof=1)}
            snapped = errors["error_snapped"]
            row |= {"snapped_mean": snapped.mean(), "snapped_sd": snapped.std(ddof=1), "snapped_median": snapped.median()}
            rows.append(row)
    return pd.DataFrame(rows, columns=ACCURACY_COLUMNS)


def by_method(landmarks: pd.DataFrame) -> pd.DataFrame:
    """Errors in mm with one row per landmark (indexed by pair and landmark) and one column per method (in input order).

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`.

    Raises
    ------
    InputError
        If a method lacks a landmark that another has: methods are compared at the same landmarks.
    """
    table = landmarks.pivot(index=["pair", "landmark"], columns="method", values="error")[landmarks["method"].unique()]
    for method in table.columns[table.isna().any()]:
        pair, landmark = table.index[table[method].isna()][0]
        raise InputError(f"landmarks: {pair}, landmark {landmark}: found no row of {method}, expected one of every method")
    return table


def bootstrap_intervals(errors: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """The 95 % intervals of mean and median, from the hierarchical bootstrap of this module.

    Parameters
    ----------
    errors
        Shape ``(n,)``: the errors of a method.
    counts
        Shape ``(samples, n)``: the result of `drawn_counts`.

    Returns
    -------
    dict
        ``mean_low``, ``mean_high``, ``median_low``, ``median_high``; NaN for fewer than two landmarks, which have no spread.
    """
    names = ("mean_low", "mean_high", "median_low", "median_high")
    if len(errors) < 2:
        return dict.fromkeys(names, np.nan)
    totals = counts.sum(axis=1)
    means = counts @ errors / totals
    order = np.argsort(errors)
    reached = counts[:, order].cumsum(axis=1)
    middle = [errors[order][(reached >= rank[:, None]).argmax(axis=1)] for rank in ((totals + 1) // 2, totals // 2 + 1)]
    levels = (1 - COVERAGE) / 2, (1 + COVERAGE) / 2
    limits = [*np.quantile(means, levels), *np.quantile(np.mean(middle, axis=0), levels)]
    return dict(zip(names, map(float, limits), strict=True))


def drawn_counts(pairs: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each sample of the hierarchical bootstrap draws each landmark: int ``(samples, n)``.

    `pairs` names the pair of each landmark, ``(n,)``. A pair of m landmarks that is drawn k times contributes k m draws of its
    landmarks, whose counts are multinomial.
    """
    _, members = np.unique(pairs, return_inverse=True)
    sizes = np.bincount(members)
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=samples)
    counts = np.empty((samples, len(pairs)), int)
    for number, size in enumerate(sizes):
        counts[:, members == number] = rng.multinomial(drawn[:, number] * size, np.full(size, 1 / size))
    return counts


def capture_curve(
    landmarks: pd.DataFrame, edges: Sequence[float] = DISTANCE_BINS, *, samples: int = BOOTSTRAP_SAMPLES, seed: int
) -> pd.DataFrame:
    """Error of every method in bins of the distance that the affine registration left.

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`; may have no rows.
    edges
        Upper limits of the bins, in mm, increasing; as in `DISTANCE_BINS`.
    samples, seed
        As in `accuracy`.

    Returns
    -------
    pandas.DataFrame
        One row per method and non-empty bin; columns `CURVE_COLUMNS`, ``upper`` is infinite in the open bin.
    """
    limits = np.array([0.0, *edges, np.inf])
    distances = initial_distances(landmarks)
    bins = np.digitize(distances, limits) - 1
    rows = []
    for number in np.unique(bins):
        chosen = landmarks[bins == number]
        table = by_method(chosen)
        pairs = table.index.get_level_values("pair").to_numpy()
        counts = drawn_counts(pairs, samples, np.random.default_rng(job_seed(seed, "bootstrap", "curve", str(number))))
        common = {"lower": limits[number], "upper": limits[number + 1], "n": len(table), "n_pairs": len(np.unique(pairs))}
        common |= {"few": len(table) < FEW, "initial_mean": table["affine"].mean()}
        for method, errors in table.items():
            row = {"method": method, **common, "mean": errors.mean(), "median": errors.median()}
            rows.append(row | bootstrap_intervals(errors.to_numpy(), counts))
    order = {method: rank for rank, method in enumerate(landmarks["method"].unique())}
    curve = pd.DataFrame(rows, columns=CURVE_COLUMNS)
    return curve.sort_values(["method", "lower"], key=lambda column: column.replace(order), ignore_index=True)


def accurate_ranges(curve: pd.DataFrame) -> pd.DataFrame:
    """The distance after the affine registration up to which the median error of each method stays small.

    Parameters
    ----------
    curve
        Result of `capture_curve`. Bins with fewer than `FEW` landmarks do not count.

    Returns
    -------
    pandas.DataFrame
        Indexed by method. ``held_to``, in mm, is the upper limit (of an open bin: the lower limit) of the last bin before the
        first whose median is above `ACCURATE_WITHIN`, or 0 if that is the first bin. ``held_to_low`` is the same for the upper
        limits of the intervals of the median. ``is_least`` is true if no median is above: the method is accurate at least that
        far.
    """
    rows = {}
    for method, bins in curve[~curve["few"].astype(bool)].groupby("method", sort=False):
        ends = [0.0, *np.where(np.isfinite(bins["upper"]), bins["upper"], bins["lower"])]
        end, end_low = (
            int(np.append(bins[name].to_numpy() > ACCURATE_WITHIN, True).argmax()) for name in ("median", "median_high")
        )
        rows[method] = {"held_to": ends[end], "held_to_low": ends[end_low], "is_least": end == len(bins)}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["held_to", "held_to_low", "is_least"])
    return frame.rename_axis("method")


def evaluations(landmarks: pd.DataFrame, capture_ranges: Sequence[float]) -> list[tuple[str, float, pd.DataFrame]]:
    """TRE with all landmarks, then TRE' within each capture range: name, range (NaN for TRE) and rows of each that has rows."""
    distances = initial_distances(landmarks)
    parts = [("TRE", np.nan, landmarks)]
    parts += [("TRE'", float(capture_range), landmarks[distances <= capture_range]) for capture_range in capture_ranges]
    return [part for part in parts if len(part[2])]
