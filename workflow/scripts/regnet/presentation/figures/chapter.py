"""Figures 2.2 to 2.5 of the chapter."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter

from regnet.conventions import AXES
from regnet.evaluation.long_tables import FREQUENCIES, LANDMARK_COLUMNS, read_errors, read_slices
from regnet.evaluation.summaries import residual_displacements
from regnet.presentation.figures.style import (
    DIFFERENCE_WINDOW,
    DOUBLE_COLUMN,
    LUNG_WINDOW,
    METHOD_LOOKS,
    SLICE_NAMES,
    crop_around,
    grid_of,
    has_methods,
    legend_below,
    log_axis,
    method_looks,
    method_name,
    new_figure,
    panel,
    scale_bar,
    shown_methods,
    styled,
)

READERS = {"landmarks": partial(read_errors, columns=LANDMARK_COLUMNS)}
"""How `workflow/scripts/figure.py` reads the tables that the figures show, by the names of the arguments."""

SHORTEST = 0.05
"""The smallest distance on a logarithmic axis, in mm; smaller ones are drawn there."""


@styled
def figure_2_2(field_slices: str | Path) -> Figure:
    """Heat maps of the magnitude of synthetic fields, one per frequency, with the outlines of body and lungs.

    Parameters
    ----------
    field_slices
        File with the arrays of `regnet.presentation.slices.field_slices`.

    Raises
    ------
    InputError
        If the file does not hold these arrays.
    """
    slices = read_slices(field_slices, [*FREQUENCIES, "ct", "spacing"])
    rows, columns = slices["ct"].shape * slices["spacing"]
    # Smoothed, so that the outline follows the lungs and not their vessels.
    outline = gaussian_filter(slices["ct"].astype(float), 3.0 / slices["spacing"])
    largest = max(float(slices[frequency].max()) for frequency in FREQUENCIES)
    width = 2.1
    figure = new_figure(DOUBLE_COLUMN, width * rows / columns + 0.3)
    all_axes = figure.subplots(1, len(FREQUENCIES))
    for axes, frequency in zip(all_axes, FREQUENCIES, strict=True):
        heat = axes.imshow(slices[frequency], cmap="viridis", norm=Normalize(0, largest), extent=(0, columns, rows, 0))
        y, x = ((np.arange(n) + 0.5) * step for n, step in zip(outline.shape, slices["spacing"], strict=True))
        axes.contour(x, y, outline, levels=[-500], colors="white", linewidths=0.6, linestyles="solid")
        axes.set_title(f"{frequency} frequency, max. {slices[frequency].max():.1f} mm")
        axes.set_axis_off()
    scale_bar(all_axes[0], rows, columns)
    bar = figure.colorbar(heat, ax=all_axes, fraction=0.05, pad=0.01, aspect=25)
    bar.set_label("displacement (mm)")
    bar.outline.set_linewidth(0.6)
    return figure


@styled
def figure_2_3(landmarks: pd.DataFrame, capture_range: float) -> Figure:
    """Residual distances of all landmarks, and RegNet's prediction of the displacement left after affine.

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`; may have no rows.
    capture_range
        In mm; marked in both panels.
    """
    figure = new_figure(DOUBLE_COLUMN, 3.1 + 0.14 * (landmarks["method"].nunique() // 2 + 1))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    count = len(landmarks.drop_duplicates(["pair", "landmark"]))
    panel(left, "a", f"all landmarks (n = {count}), every method")
    panel(right, "b", f"all landmarks (n = {count}), RegNet")
    left.set(xlabel="distance after affine registration (mm)", ylabel="residual distance (mm)")
    right.set(xlabel="true displacement after affine (mm)", ylabel="predicted displacement along it (mm)")
    if has_methods(landmarks, left, "affine"):
        _residuals_by_distance(left, landmarks, capture_range)
    if has_methods(landmarks, right, "affine", "regnet"):
        _predicted_along_true(right, landmarks, capture_range)
    return figure


@styled
def figure_2_4(landmarks: pd.DataFrame, capture_range: float) -> Figure:
    """Residual distances of the landmarks in the capture range, and RegNet against the truth along each axis.

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.long_tables.LANDMARK_COLUMNS`; may have no rows, or none within the capture range.
    capture_range
        In mm; the limit of the axes.
    """
    within = landmarks[landmarks["within_capture_range"].astype(bool)]
    absent = "no landmarks in this cohort" if landmarks.empty else "no landmarks in the capture range"
    count = len(within.drop_duplicates(["pair", "landmark"]))
    boxes_height = 0.3 + 0.24 * max(4, within["method"].nunique())
    figure = new_figure(DOUBLE_COLUMN, 2.6 + boxes_height)
    mosaic = figure.subplot_mosaic([["a", "a", "a"], ["b", "c", "d"]], height_ratios=(boxes_height, 2.2))
    panel(mosaic["a"], "a", f"landmarks within {capture_range:g} mm after affine registration (n = {count}), every method")
    mosaic["a"].set(xlabel="residual distance (mm)")
    if has_methods(within, mosaic["a"], absent=absent):
        _box_plots(mosaic["a"], within)
    for letter, axis in zip("bcd", AXES, strict=True):
        axes = mosaic[letter]
        panel(axes, letter, f"the same landmarks, RegNet, {axis}")
        axes.set(xlabel=f"true displacement, {axis} (mm)", ylabel=f"predicted displacement, {axis} (mm)")
        if has_methods(within, axes, "affine", "regnet", absent=absent):
            _predicted_against_true(axes, residual_displacements(within, "regnet"), axis, capture_range)
    return figure


@styled
def figure_2_5(example_slices: str | Path) -> Figure:
    """Fixed and warped moving slices, with fixed minus warped below; more than `PER_ROW` cells are split over several rows.

    Parameters
    ----------
    example_slices
        File with the arrays of `regnet.presentation.slices.example_slices`; each method gets a column.

    Raises
    ------
    InputError
        If the file does not hold these arrays, or holds no method.
    """
    slices = read_slices(example_slices, SLICE_NAMES)
    methods = shown_methods(slices, example_slices)
    crop = crop_around(slices["mask"], slices["spacing"])
    inside = slices["mask"][crop] != 0
    fixed = slices["fixed"][crop].astype(float)
    rows, columns = fixed.shape * slices["spacing"]
    across, down = grid_of(len(methods) + 1)
    width = DOUBLE_COLUMN / across
    figure = new_figure(DOUBLE_COLUMN, 2 * down * ((width - 0.1) * rows / columns + 0.2))
    cells = figure.subplots(2 * down, across, squeeze=False)
    tops, bottoms = cells[::2].ravel(), cells[1::2].ravel()
    options = {"extent": (0, columns, rows, 0)}
    grey = tops[0].imshow(fixed, cmap="gray", norm=Normalize(*LUNG_WINDOW), **options)
    tops[0].set_title(f"fixed, {slices['pair']}")
    scale_bar(tops[0], rows, columns)
    for above, below, method in zip(tops[1:], bottoms[1:], methods, strict=False):
        warped = slices[method][crop].astype(float)
        difference = fixed - warped
        above.imshow(warped, cmap="gray", norm=Normalize(*LUNG_WINDOW), **options)
        above.set_title(f"moving, {method_name(method)}")
        shade = below.imshow(difference, cmap="gray", norm=Normalize(*DIFFERENCE_WINDOW), **options)
        below.set_title(f"mean |difference| {np.abs(difference[inside]).mean():.0f} HU")
    for axes in cells.flat:
        axes.set_axis_off()
    _legend_cell(bottoms[0], {"image (HU)": grey, "fixed − moving (HU)": shade})
    return figure


def _residuals_by_distance(axes: Axes, landmarks: pd.DataFrame, capture_range: float) -> None:
    """Points and binned medians of every method, on logarithmic axes, as distances span two orders of magnitude."""
    errors = landmarks.pivot(index=["pair", "landmark"], columns="method", values="error").clip(lower=SHORTEST)
    before = errors["affine"]
    bins = _bins(before.to_numpy())
    looks = method_looks(landmarks["method"])
    colour, _, line = looks.pop("affine")
    axes.axline((1, 1), (2, 2), color=colour, ls=line, label=method_name("affine"))
    for method, (colour, marker, line) in looks.items():
        axes.plot(before, errors[method], marker, color=colour, ms=2, mew=0, alpha=0.3)
        medians = errors[["affine", method]].groupby(bins).median()
        # A white line below the coloured one keeps the median visible among its own points.
        axes.plot(medians["affine"], medians[method], color="white", lw=3, zorder=3)
        style = {"color": colour, "ls": line, "marker": marker, "ms": 4.5, "mec": "white", "mew": 0.6}
        axes.plot(medians["affine"], medians[method], **style, zorder=4, label=f"{method_name(method)}, median")
    axes.axvline(capture_range, color="black", lw=0.6, label=f"capture range, {capture_range:g} mm")
    smallest, largest = errors.min().min(), errors.max().max()
    axes.set(xscale="log", yscale="log", xlim=(before.min() / 1.1, before.max() * 1.1), ylim=(smallest / 1.2, largest * 1.2))
    log_axis(axes.xaxis, *axes.get_xlim())
    log_axis(axes.yaxis, *axes.get_ylim())
    legend_below(axes)


def _bins(values: np.ndarray) -> np.ndarray:
    """The bin of each value: 4 to 10 bins with about equal counts, of at least 10 values each if there are 40 or more."""
    count = int(np.clip(len(values) // 10, 4, 10))
    return np.searchsorted(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]), values)


def _predicted_along_true(axes: Axes, landmarks: pd.DataFrame, capture_range: float) -> None:
    table = residual_displacements(landmarks, "regnet")
    true, predicted = (table[[f"{name}_{axis}" for axis in AXES]].to_numpy() for name in ("true", "predicted"))
    distance = np.linalg.norm(true, axis=1)
    along = np.divide((true * predicted).sum(axis=1), distance, out=np.zeros_like(distance), where=distance > 0)
    within = table["within_capture_range"].to_numpy(bool)
    colour = METHOD_LOOKS["regnet"][0]
    axes.axline((0, 0), slope=1, color="black", lw=0.8, ls="--", label="prediction = truth")
    axes.axvline(capture_range, color="black", lw=0.6, label=f"capture range, {capture_range:g} mm")
    axes.plot(distance[within], along[within], "o", color=colour, ms=2.5, mew=0, alpha=0.7, label="in the capture range")
    axes.plot(distance[~within], along[~within], "o", mfc="none", mec=colour, ms=2.5, mew=0.5, label="beyond it")
    limit = 1.05 * float(distance.max())
    axes.set(xlim=(0, limit), ylim=(min(0.0, 1.1 * float(along.min())), 1.05 * max(limit / 1.05, float(along.max()))))
    legend_below(axes)


def _box_plots(axes: Axes, landmarks: pd.DataFrame) -> None:
    looks = method_looks(landmarks["method"])
    jitter = np.random.default_rng(0)
    for row, (method, (colour, marker, _)) in enumerate(looks.items()):
        errors = landmarks.loc[landmarks["method"] == method, "error"].to_numpy()
        axes.plot(errors, row + jitter.uniform(-0.32, 0.32, len(errors)), marker, color=colour, ms=2.2, mew=0, alpha=0.45)
        axes.boxplot(
            errors,
            positions=[row],
            orientation="horizontal",
            widths=0.64,
            showfliers=False,
            boxprops={"linewidth": 0.8},
            whiskerprops={"linewidth": 0.8},
            capprops={"linewidth": 0.8},
            medianprops={"color": "black", "linewidth": 1.6},
        )
    axes.set_yticks(range(len(looks)), map(method_name, looks))
    axes.set_ylim(len(looks) - 0.5, -0.5)
    axes.set_xlim(0, 1.02 * landmarks["error"].max())


def _predicted_against_true(axes: Axes, table: pd.DataFrame, axis: str, capture_range: float) -> None:
    true, predicted = table[f"true_{axis}"].to_numpy(), table[f"predicted_{axis}"].to_numpy()
    axes.axline((0, 0), slope=1, color="black", lw=0.8, ls="--")
    axes.plot(true, predicted, "o", color=METHOD_LOOKS["regnet"][0], ms=2.5, mew=0, alpha=0.6)
    limit = 1.05 * max(capture_range, float(np.abs(predicted).max()))
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    for ruler in (axes.xaxis, axes.yaxis):
        ruler.set_major_locator(MaxNLocator(5, steps=[1, 2, 4, 5, 10]))
    note = f"mean |error| {np.abs(predicted - true).mean():.2f} mm"
    if len(true) > 2 and true.std() > 0 and predicted.std() > 0:
        note += f"\nr = {np.corrcoef(true, predicted)[0, 1]:.2f}"
    axes.text(0.04, 0.97, note, transform=axes.transAxes, va="top")


def _legend_cell(axes: Axes, images: Mapping[str, AxesImage]) -> None:
    """The colour bars of two images, with their labels, in an otherwise empty cell."""
    for level, (label, image) in zip((0.75, 0.22), images.items(), strict=True):
        bar = axes.figure.colorbar(image, cax=axes.inset_axes((0.08, level, 0.84, 0.07)), orientation="horizontal")
        bar.set_label(label, labelpad=1)
        bar.outline.set_linewidth(0.6)
        bar.set_ticks([image.norm.vmin, (image.norm.vmin + image.norm.vmax) / 2, image.norm.vmax])
