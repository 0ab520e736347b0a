"""Figures that compare methods: residual distances with intervals, accuracy over initial distance, and accuracy over time."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regnet.evaluation.long_tables import LANDMARK_COLUMNS, read_errors, read_table
from regnet.evaluation.summaries import ACCURACY_COLUMNS, ACCURATE_WITHIN, CURVE_COLUMNS, FEW, accurate_ranges
from regnet.presentation.figures.style import (
    DOUBLE_COLUMN,
    Look,
    has_methods,
    log_axis,
    method_looks,
    method_name,
    new_figure,
    panel,
    styled,
    write_note,
)

READERS = {
    "landmarks": partial(read_errors, columns=LANDMARK_COLUMNS),
    "comparison": partial(read_table, columns=[*ACCURACY_COLUMNS, "seconds_with_affine"]),
    "curve": partial(read_table, columns=CURVE_COLUMNS),
}
"""How `workflow/scripts/figure.py` reads the tables that the figures show, by the names of the arguments."""

SHORTEST = 0.05
"""The smallest distance on a logarithmic axis, in mm; smaller ones are drawn there."""


@styled
def figure_comparison(landmarks: pd.DataFrame, comparison: pd.DataFrame, capture_range: float) -> Figure:
    """The share of landmarks within each residual distance, and means and medians with their intervals.

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`; may have no rows.
    comparison
        Columns as in `regnet.presentation.comparison.COLUMNS`.
    capture_range
        The chapter's capture range, in mm.
    """
    looks = method_looks(comparison["method"])
    figure = new_figure(DOUBLE_COLUMN, 2.6 + 0.12 * len(looks))
    share, everywhere, within = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    count = len(landmarks.drop_duplicates(["pair", "landmark"]))
    panel(share, "a", f"all landmarks (n = {count})")
    share.set(xlabel="residual distance (mm)", ylabel="share of landmarks at most that far (%)")
    if has_methods(landmarks, share):
        errors = landmarks["error"].clip(lower=SHORTEST)
        for method, look in looks.items():
            chosen = np.sort(errors[landmarks["method"] == method])
            share.step(chosen, 100 * np.arange(1, len(chosen) + 1) / len(chosen), color=look.colour, ls=look.line, where="post")
            _markers_along(share, chosen, look)
        share.set(xscale="log", ylim=(0, 101), xlim=(errors.min() / 1.1, errors.max() * 1.1))
        log_axis(share.xaxis, *share.get_xlim())
    for axes, letter, evaluation, title in (
        (everywhere, "b", "TRE", "TRE"),
        (within, "c", "TRE'", f"TRE′, within {capture_range:g} mm"),
    ):
        chosen = _chosen(comparison, evaluation, capture_range)
        numbers = chosen["n"].unique()
        panel(axes, letter, f"{title} (n = {numbers[0] if len(numbers) else 0})")
        axes.set(xlabel="distance (mm), 95 % interval")
        _intervals(axes, chosen, looks)
    within.set_yticklabels([])
    handles = [_handle(look, method_name(method)) for method, look in looks.items()]
    handles += [
        Line2D([], [], color="black", marker="o", ls="", ms=4, label="mean"),
        Line2D([], [], color="black", marker="o", mfc="white", ls="", ms=4, label="median"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, handlelength=3.2)
    return figure


@styled
def figure_capture_range(curve: pd.DataFrame, capture_range: float) -> Figure:
    """Median residual distance against the distance after affine registration, in bins, with intervals and counts.

    Parameters
    ----------
    curve
        Columns as in `regnet.evaluation.summaries.CURVE_COLUMNS`; may have no rows.
    capture_range
        The chapter's capture range, in mm.
    """
    figure = new_figure(DOUBLE_COLUMN, 4.2)
    axes, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    axes.set(ylabel="median residual distance (mm), 95 % interval")
    counts.set(xlabel="distance after affine registration (mm)", ylabel="landmarks")
    if not has_methods(curve, axes, "affine"):
        write_note(counts, "")
        return figure
    bins = curve[curve["method"] == "affine"].set_index("lower")
    last = bins["upper"].max()
    if not np.isfinite(last):
        last = 2 * bins["initial_mean"].iloc[-1] - bins.index[-1]
    widths = np.minimum(bins["upper"], last) - bins.index
    looks = method_looks(curve["method"])
    affine = looks.pop("affine")
    ranges = accurate_ranges(curve)
    drawn = curve[curve["method"] != "affine"]
    lowest = max(SHORTEST, curve[["median", "median_low"]].min().min())
    line = np.geomspace(lowest / 2, 2 * last)
    axes.plot(line, line, color=affine.colour, ls=affine.line)
    for number, (method, look) in enumerate(looks.items()):
        rows = drawn[drawn["method"] == method]
        # The methods of a bin are drawn side by side, so that no interval hides another.
        shift = ((number + 1) / (len(looks) + 1) - 0.5) * 0.8 * widths.loc[rows["lower"]].to_numpy()
        centre = rows["lower"].to_numpy() + widths.loc[rows["lower"]].to_numpy() / 2
        x = centre + shift
        y, low, high = (rows[name].clip(lower=SHORTEST).to_numpy() for name in ("median", "median_low", "median_high"))
        axes.vlines(x, low, high, color=look.colour, lw=1.0)
        axes.plot(x, y, color=look.colour, ls=look.line, lw=0.9)
        few = rows["few"].to_numpy(bool)
        axes.plot(x[~few], y[~few], look.marker, color=look.colour, ms=4.5, mec="white", mew=0.5)
        axes.plot(x[few], y[few], look.marker, mfc="white", mec=look.colour, ms=4, mew=0.8)
    top = np.nanmax(curve[["median", "median_high"]].to_numpy())
    axes.set(yscale="log", ylim=(lowest / 1.15, top * 1.15), xlim=(0, max(last, 1.3 * capture_range)))
    log_axis(axes.yaxis, *axes.get_ylim())
    axes.axhline(ACCURATE_WITHIN, color="black", lw=0.6, ls=(0, (1, 2)))
    axes.text(axes.get_xlim()[1], ACCURATE_WITHIN * 1.03, f"accurate: {ACCURATE_WITHIN:g} mm", ha="right", va="bottom")
    axes.axvline(capture_range, color="black", lw=0.6)
    axes.text(capture_range, top * 1.12, f" capture range, {capture_range:g} mm", ha="left", va="top")
    for edge in bins.index[1:]:
        for panel_axes in (axes, counts):
            panel_axes.axvline(edge, color="0.88", lw=0.5, zorder=0)
    counts.bar(bins.index + widths / 2, bins["n"], 0.9 * widths, color="0.75", edgecolor="0.35", lw=0.5)
    for left, width, number in zip(bins.index, widths, bins["n"], strict=True):
        counts.text(left + width / 2, number, f"{number}" if number >= FEW else f"{number}†", ha="center", va="bottom")
    counts.set(ylim=(0, 1.25 * bins["n"].max()))
    ticks = [0.0, *bins.index[1:], *bins["upper"][np.isfinite(bins["upper"])][-1:]]
    counts.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    if (bins["n"] < FEW).any():
        counts.text(1, 1, f"†, open marks: fewer than {FEW}", transform=counts.transAxes, ha="right", va="top")
    handles = [Line2D([], [], color=affine.colour, ls=affine.line, label="Affine: residual = distance")]
    handles += [_handle(look, f"{method_name(method)}: {_accurate_range(ranges, method)}") for method, look in looks.items()]
    title = f"method, and distance up to which its median is at most {ACCURATE_WITHIN:g} mm"
    figure.legend(handles=handles, loc="outside lower center", ncols=4, title=title, handlelength=3.2)
    return figure


@styled
def figure_accuracy_time(comparison: pd.DataFrame, capture_range: float) -> Figure:
    """Mean TRE and TRE' against the seconds that a registration takes.

    Parameters
    ----------
    comparison
        Columns as in `regnet.presentation.comparison.COLUMNS`.
    capture_range
        The chapter's capture range, in mm.
    """
    looks = method_looks(comparison["method"])
    figure = new_figure(DOUBLE_COLUMN, 3.0)
    all_axes = figure.subplots(1, 2)
    for axes, letter, evaluation, title in zip(
        all_axes, "ab", ("TRE", "TRE'"), ("all landmarks", f"landmarks within {capture_range:g} mm"), strict=True
    ):
        chosen = _chosen(comparison, evaluation, capture_range)
        panel(axes, letter, title)
        axes.set(
            xlabel="time of a registration, affine included (s)",
            ylabel=f"mean {evaluation.replace(chr(39), '′')} (mm), 95 % interval",
        )
        if chosen.empty:
            write_note(axes, "no landmarks in this cohort")
            continue
        for _, row in chosen.iterrows():
            look = looks[row["method"]]
            axes.vlines(row["seconds_with_affine"], row["mean_low"], row["mean_high"], color=look.colour, lw=1.0)
            axes.plot(row["seconds_with_affine"], row["mean"], look.marker, color=look.colour, ms=6, mec="white", mew=0.6)
        seconds = chosen["seconds_with_affine"]
        errors = chosen[["mean", "mean_low", "mean_high"]].clip(lower=SHORTEST)
        low, high = errors.min().min(), errors.max().max()
        axes.set(xscale="log", yscale="log", xlim=(seconds.min() / 1.4, seconds.max() * 1.4), ylim=(low / 1.2, high * 1.2))
        log_axis(axes.xaxis, *axes.get_xlim())
        log_axis(axes.yaxis, *axes.get_ylim())
        axes.grid(color="0.92", lw=0.5)
        axes.set_axisbelow(True)
        axes.annotate(
            "better",
            (0.03, 0.03),
            (0.14, 0.14),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color="0.4",
            arrowprops={"arrowstyle": "->", "color": "0.4", "lw": 0.8},
        )
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, ls="", ms=5, label=method_name(method))
        for method, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _chosen(comparison: pd.DataFrame, evaluation: str, capture_range: float) -> pd.DataFrame:
    """The rows of TRE, or those of TRE' with the chapter's capture range, that have landmarks."""
    rows = comparison[(comparison["evaluation"] == evaluation) & (comparison["n"] > 0)]
    return rows if evaluation == "TRE" else rows[rows["capture_range"] == capture_range]


def _intervals(axes: Axes, chosen: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    axes.set_yticks(range(len(looks)), map(method_name, looks))
    axes.set_ylim(len(looks) - 0.5, -0.5)
    if chosen.empty:
        axes.text(0.5, 0.5, "no landmarks", transform=axes.transAxes, ha="center", va="center", color="0.4")
        return
    for number, (method, look) in enumerate(looks.items()):
        for _, row in chosen[chosen["method"] == method].iterrows():
            for name, shift, fill in (("mean", -0.16, look.colour), ("median", 0.16, "white")):
                axes.hlines(number + shift, row[f"{name}_low"], row[f"{name}_high"], color=look.colour, lw=1.0)
                axes.plot(row[name], number + shift, look.marker, mfc=fill, mec=look.colour, ms=4.5, mew=0.8)
            if row["few"]:
                axes.annotate("†", (row["mean"], number - 0.16), (4, 0), textcoords="offset points", va="center")
    numbers = chosen[["mean", "median", "mean_low", "mean_high", "median_low", "median_high"]]
    low, high = max(SHORTEST, numbers.min().min()), numbers.max().max()
    axes.set(xscale="log", xlim=(low / 1.25, high * 1.25))
    log_axis(axes.xaxis, *axes.get_xlim())


def _markers_along(axes: Axes, ordered: np.ndarray, look: Look) -> None:
    """Draw a few markers on a curve of shares, so that it can be told apart in grey."""
    places = np.unique(np.linspace(0.1, 0.9, 5) * (len(ordered) - 1)).astype(int)
    axes.plot(ordered[places], 100 * (places + 1) / len(ordered), look.marker, color=look.colour, ms=4, mec="white", mew=0.5)


def _handle(look: Look, label: str) -> Line2D:
    return Line2D([], [], color=look.colour, marker=look.marker, ls=look.line, ms=4.5, mec="white", mew=0.5, label=label)


def _accurate_range(ranges: pd.DataFrame, method: str) -> str:
    if method not in ranges.index:
        return "not measured"
    row = ranges.loc[method]
    return f"{'≥ ' if row['is_least'] else ''}{row['held_to']:g} mm"
