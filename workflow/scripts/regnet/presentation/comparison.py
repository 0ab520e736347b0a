"""The table that compares methods: accuracy with intervals, tests between methods, time, memory and regularity.

All numbers come from the long tables in ``results/<experiment>/evaluation``; `COLUMNS` says from which.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from regnet.conventions import AXES
from regnet.evaluation.long_tables import method_name
from regnet.evaluation.summaries import ACCURACY_COLUMNS, ACCURATE_WITHIN, FEW, accurate_ranges
from regnet.presentation.markup import latex, latex_table, markdown, markdown_table, mean_and_sd, number
from regnet.system.files import whole_file

COST_COLUMNS = [
    *("seconds", "seconds_with_affine", "memory_mb"),
    *("jacobian_min", "folded", "sd_log"),
    *("field_error_mean", "field_error_p95"),
    *("held_to", "held_to_low", "is_least"),
]
"""Columns of `costs`. From ``runs.csv``: medians over pairs of the seconds of a registration job, without and with the affine
registration that it starts from, and the largest peak memory. From ``regularity.csv``: the smallest Jacobian determinant of
all pairs, the fraction of all lung voxels that are folded, and the mean over pairs of the standard deviation of the logarithm.
From ``field_errors.csv``, where the true DVF is known: the mean error of all lung voxels in mm, and the mean over pairs of its
95th percentile. The last three are those of `regnet.evaluation.summaries.accurate_ranges`."""

COLUMNS = [*ACCURACY_COLUMNS, *COST_COLUMNS]
"""Columns of the table: those of `regnet.evaluation.summaries.accuracy`, from ``landmarks.csv``, then `COST_COLUMNS`, which are
the same in all rows of a method."""

_ACCURACY_HEADER = [
    *("Evaluation", "Method", "mean ± sd", "95 % interval", "median", "95 % interval", "75th", "95th"),
    *AXES,
    *("snapped", "n", "pairs"),
]

_COST_HEADER = [
    *("Method", "seconds", "with affine", "memory (GB)", "min. Jacobian", "folded (%)", "sd log J"),
    *("field error", "its 95th", "holds to"),
]


def costs(
    runs: pd.DataFrame, regularity: pd.DataFrame, field_errors: pd.DataFrame | None, ranges: pd.DataFrame
) -> pd.DataFrame:
    """Time, memory, regularity, field error and accurate range of each method.

    Parameters
    ----------
    runs, regularity
        Columns as in `regnet.evaluation.long_tables.RUN_COLUMNS` and ``REGULARITY_COLUMNS``.
    field_errors
        Columns as in `regnet.evaluation.long_tables.FIELD_ERROR_COLUMNS`; None where the true DVF is not known.
    ranges
        Result of `regnet.evaluation.summaries.accurate_ranges`.

    Returns
    -------
    pandas.DataFrame
        Indexed by method, in the order of `runs`; columns `COST_COLUMNS`.
    """
    methods = runs["method"].unique()
    seconds = runs.pivot(index="pair", columns="method", values="seconds")[methods]
    table = pd.DataFrame({"seconds": seconds.median()})
    affine = seconds["affine"].to_numpy()[:, None] * (seconds.columns != "affine")
    table["seconds_with_affine"] = (seconds + affine).median()
    table["memory_mb"] = runs.groupby("method")["memory_mb"].max()
    by_method = regularity.groupby("method")
    table["jacobian_min"] = by_method["min"].min()
    table["folded"] = _over_voxels(regularity, "folded")
    table["sd_log"] = by_method["sd_log"].mean()
    if field_errors is not None:
        table["field_error_mean"] = _over_voxels(field_errors, "mean")
        table["field_error_p95"] = field_errors.groupby("method")["p95"].mean()
    return table.join(ranges).reindex(columns=COST_COLUMNS).rename_axis("method")


def comparison(accuracy: pd.DataFrame, method_costs: pd.DataFrame) -> pd.DataFrame:
    """Join the table of `regnet.evaluation.summaries.accuracy` with that of `costs`.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`. A method without landmarks has one row, for TRE, with ``n`` 0.
    """
    absent = [method for method in method_costs.index if method not in set(accuracy["method"])]
    empty = pd.DataFrame({"evaluation": "TRE", "method": absent, "n": 0, "n_pairs": 0, "few": True}, columns=ACCURACY_COLUMNS)
    filled = [frame for frame in (accuracy, empty) if len(frame)]
    return pd.concat(filled, ignore_index=True).join(method_costs, on="method")[COLUMNS]


def write_comparison(
    table: pd.DataFrame,
    tests: pd.DataFrame,
    *,
    csv: str | Path,
    tests_csv: str | Path,
    md: str | Path,
    tex: str | Path,
    capture_range: float,
) -> None:
    """Write the comparison for programs (two CSV files, all digits), for GitHub (Markdown) and for a paper (LaTeX).

    Parameters
    ----------
    table
        Result of `comparison`.
    tests
        Result of `regnet.evaluation.significance.paired_tests`. All tests go into `tests_csv`; those of TRE and of TRE' with
        the chapter's capture range also go into `md` and `tex`.
    csv, tests_csv, md, tex
        Files to write.
    capture_range
        The chapter's capture range, in mm.
    """
    for path, frame in ((csv, table), (tests_csv, tests)):
        with whole_file(path) as partial:
            frame.to_csv(partial, index=False, lineterminator="\n")
    text = "% Needs \\usepackage{booktabs}, and a page of 16 cm or more between its margins.\n"
    parts = []
    for name, header, rows, left, caption, notes in _sections(table, tests, capture_range):
        label, note = f"tab:comparison_{name}", " ".join(notes)
        text += latex_table(_each(latex, [header])[0], _each(latex, rows), left, caption=caption, label=label, notes=note)
        body = markdown_table(_each(markdown, [header])[0], _each(markdown, filter(None, rows)), left)
        lines = "".join(f"- {markdown(note)}\n" for note in notes)
        parts.append(f"**{markdown(caption)}**\n\n{body}\n{lines}")
    for path, content in ((md, "\n".join(parts)), (tex, text)):
        with whole_file(path) as partial:
            partial.write_text(content, encoding="utf-8")


def write_capture_curve(curve: pd.DataFrame, *, csv: str | Path, md: str | Path) -> None:
    """Write the errors against the distance after the affine registration as CSV, all digits, and as Markdown.

    Parameters
    ----------
    curve
        Result of `regnet.evaluation.summaries.capture_curve`.
    csv, md
        Files to write.
    """
    with whole_file(csv) as partial:
        curve.to_csv(partial, index=False, lineterminator="\n")
    methods = list(curve["method"].unique())
    rows = []
    for (lower, upper), bins in curve.groupby(["lower", "upper"]):
        cells = {
            row["method"]: _mark(f"{row['median']:.2f} ({_interval(row['median_low'], row['median_high'])})", row["few"])
            for _, row in bins.iterrows()
        }
        first = bins.iloc[0]
        limits = f"{lower:g} to {upper:g}" if np.isfinite(upper) else f"{lower:g} and more"
        counts = [_mark(f"{first['n']:,}", first["few"]), f"{first['n_pairs']}"]
        rows.append([limits, *counts, *(cells.get(method, "–") for method in methods)])
    if methods:
        ranges = accurate_ranges(curve).reindex(methods)
        rows.append([f"holds to ({ACCURATE_WITHIN:g} mm)", "", "", *(_accurate_range(row) for _, row in ranges.iterrows())])
    header = ["after affine", "landmarks", "pairs", *map(method_name, methods)]
    notes = [
        "Rows: distance of landmarks after the affine registration, in mm. Cells: median residual distance in mm and its 95 % "
        "interval, from a bootstrap that draws pairs, then landmarks within them.",
        f"holds to: distance up to which the median is at most {ACCURATE_WITHIN:g} mm in every bin with at least {FEW} "
        "landmarks; in brackets the same for the upper limit of its interval; ≥ where no bin is above.",
        *([f"† rests on fewer than {FEW} landmarks."] if curve["few"].astype(bool).any() else []),
    ]
    text = markdown_table(_each(markdown, [header])[0], _each(markdown, rows), 1)
    lines = "".join(f"- {markdown(note)}\n" for note in notes)
    with whole_file(md) as partial:
        partial.write_text(f"**Error against the distance after affine registration.**\n\n{text}\n{lines}", encoding="utf-8")


def _sections(
    table: pd.DataFrame, tests: pd.DataFrame, capture_range: float
) -> Iterator[tuple[str, list[str], list[list[str]], int, str, list[str]]]:
    """For each table: name, header, rows, number of left-aligned columns, caption and notes."""
    marked = [f"† rests on fewer than {FEW} landmarks."] if (table["few"].astype(bool) & (table["n"] > 0)).any() else []
    yield (
        "accuracy",
        _ACCURACY_HEADER,
        _accuracy_rows(table),
        2,
        "Landmark errors in mm.",
        [
            "TRE is the Euclidean distance over all landmarks, TRE' over those within the distance in brackets after the "
            "affine registration; 75th and 95th are percentiles; x, y, z the means of the absolute components.",
            "Intervals: bootstrap that draws pairs, then landmarks within them; with few pairs they are too narrow.",
            "snapped: mean distance of the voxels of the moving image, as it was given, nearest to the mapped point and to the "
            "landmark, as papers on DIR-Lab measure it.",
            *marked,
        ],
    )
    yield (
        "costs",
        _COST_HEADER,
        [_cost_cells(row) for _, row in table.drop_duplicates("method").iterrows()],
        1,
        "Time, memory and regularity.",
        [
            "seconds: median over pairs of the wall-clock time of the registration job alone, program start, reading and "
            "writing included; with affine: together with that of the affine registration it starts from.",
            "memory: largest peak of the resident memory of the job; what a GPU holds is not in it.",
            "Jacobian: determinant of the whole transform in the fixed lungs; folded: at most 0; sd log J: standard deviation "
            "of the logarithm of the others, mean over pairs.",
            "field error: mean over all lung voxels of the distance to the true DVF in mm, where that is known, and its 95th "
            "percentile.",
            "holds to: distance after affine registration, in mm, up to which the median error is at most "
            f"{ACCURATE_WITHIN:g} mm in every bin with at least {FEW} landmarks; in brackets the same for the upper limit of "
            "its interval; ≥ where no bin is above.",
        ],
    )
    shown = [("TRE", np.nan), ("TRE'", float(capture_range))]
    for name, (evaluation, limit) in zip(("tests", "tests_within"), shown, strict=True):
        chosen = tests[
            (tests["evaluation"] == evaluation) & (tests["capture_range"].fillna(-1) == np.nan_to_num(limit, nan=-1))
        ]
        if len(chosen):
            yield _tests_section(name, _evaluation(evaluation, limit), chosen)


def _tests_section(
    name: str, evaluation: str, tests: pd.DataFrame
) -> tuple[str, list[str], list[list[str]], int, str, list[str]]:
    landmarks, pairs = (tests[tests["level"] == level] for level in ("landmarks", "pairs"))
    rows = [
        [
            f"{method_name(test['method'])} − {method_name(test['other'])}",
            *(_mark(_difference(test[column]), test["few"]) for column in ("mean_difference", "median_difference")),
            *(_mark(_p(test[column]), test["few"]) for column in ("p", "p_holm")),
            f"{test['n']}",
            *(_mark(_p(pair_test[column]), test["few"]) for column in ("p", "p_holm")),
            f"{pair_test['n']}",
        ]
        for (_, test), (_, pair_test) in zip(landmarks.iterrows(), pairs.iterrows(), strict=True)
    ]
    return (
        name,
        ["Methods", "mean difference", "median", "p", "p, Holm", "landmarks", "p, pairs", "p, Holm, pairs", "pairs"],
        rows,
        1,
        f"Differences of {evaluation} in mm, and Wilcoxon signed-rank tests.",
        [
            "A negative difference means that the first method has the smaller error. Tests are two-sided, corrected after "
            f"Holm over the {len(rows)} comparisons of this table.",
            "Over landmarks, those of one pair count as independent, which they are not: such p values are too small. Over "
            "pairs, by the mean error of each, few pairs cannot show anything: with n pairs no p is below 2^(1 − n).",
        ],
    )


def _each(escape: Callable[[str], str], rows: Iterable[list[str]]) -> list[list[str]]:
    return [[escape(cell) for cell in row] for row in rows]


def _over_voxels(table: pd.DataFrame, column: str) -> pd.Series:
    """Mean of a column over the voxels of all pairs, for each method."""
    weighted = (table[column] * table["voxels"]).groupby(table["method"]).sum()
    return weighted / table.groupby("method")["voxels"].sum()


def _accuracy_rows(table: pd.DataFrame) -> list[list[str]]:
    rows: list[list[str]] = []
    last = None
    for _, row in table.iterrows():
        evaluation = _evaluation(row["evaluation"], row["capture_range"])
        if last not in (None, evaluation):
            rows.append([])
        last = evaluation
        numbers = [
            mean_and_sd(row["mean"], row["sd"]),
            _interval(row["mean_low"], row["mean_high"]),
            number(row["median"]),
            _interval(row["median_low"], row["median_high"]),
            *(number(row[column]) for column in ("p75", "p95", *(f"{axis}_mean" for axis in AXES), "snapped_mean", "n")),
        ]
        numbers[-1] = f"{row['n']:,}"
        rows.append(
            [
                evaluation,
                method_name(row["method"]),
                *(_mark(cell, row["few"] and row["n"]) for cell in numbers),
                str(row["n_pairs"]),
            ]
        )
    return rows


def _cost_cells(row: pd.Series) -> list[str]:
    return [
        method_name(row["method"]),
        number(row["seconds"], 1),
        number(row["seconds_with_affine"], 1),
        number(row["memory_mb"] / 1024),
        number(row["jacobian_min"]),
        number(100 * row["folded"], 3),
        number(row["sd_log"], 3),
        number(row["field_error_mean"]),
        number(row["field_error_p95"]),
        _accurate_range(row),
    ]


def _accurate_range(row: pd.Series) -> str:
    return "–" if pd.isna(row["held_to"]) else f"{'≥ ' if row['is_least'] else ''}{row['held_to']:g} ({row['held_to_low']:g})"


def _evaluation(evaluation: str, capture_range: float) -> str:
    return evaluation if pd.isna(capture_range) else f"{evaluation} ({capture_range:g} mm)"


def _interval(low: float, high: float) -> str:
    return "–" if pd.isna(low) else f"{low:.2f} to {high:.2f}"


def _difference(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _mark(text: str, few: object) -> str:
    """Mark a number that is based on few landmarks."""
    return f"{text}†" if few and text != "–" else text
