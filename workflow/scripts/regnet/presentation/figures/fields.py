"""Jacobian determinants and errors of the whole field: a map for each method, and their range in the lungs of all pairs."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from regnet.evaluation.long_tables import FIELD_ERROR_COLUMNS, REGULARITY_COLUMNS, read_errors, read_slices
from regnet.presentation.figures.style import (
    DOUBLE_COLUMN,
    LUNG_WINDOW,
    SLICE_NAMES,
    Look,
    crop_around,
    grid_of,
    log_axis,
    method_looks,
    method_name,
    new_figure,
    panel,
    scale_bar,
    shown_methods,
    styled,
)

READERS = {
    "regularity": partial(read_errors, columns=REGULARITY_COLUMNS),
    "field_errors": partial(read_errors, columns=FIELD_ERROR_COLUMNS),
}
"""How `workflow/scripts/figure.py` reads the tables that the figures show, by the names of the arguments."""

DETERMINANTS = (0.5, 2.0)
"""Colour range of Jacobian determinants: from half to twice the volume."""

SMALLEST_DETERMINANT = -0.5
"""Lower limit of the axis of determinants, unless 1 % of a pair's lungs are below."""

SMALLEST_ERROR = 0.1
"""Lower limit of the colours of field errors, in mm; errors below a tenth of it are drawn at that tenth."""


@styled
def figure_jacobian(regularity: pd.DataFrame, jacobian_slices: str | Path) -> Figure:
    """Maps of the Jacobian determinant of each method in the lungs of one pair, and its range in the lungs of all pairs.

    Parameters
    ----------
    regularity
        Columns as in `regnet.evaluation.long_tables.REGULARITY_COLUMNS`.
    jacobian_slices
        File with the arrays of `regnet.presentation.slices.jacobian_slices`.

    Raises
    ------
    InputError
        If the file does not hold these arrays, or holds no method.
    """

    def draw(axes: Axes, values: np.ndarray, inside: np.ndarray, **options) -> None:
        folded = inside & (values <= 0)
        axes.imshow(np.ma.masked_where(~folded, folded), cmap=ListedColormap(["#FF2D00"]), **options)
        if folded.any():
            # In grey, only the outline tells folded voxels from compressed ones.
            axes.contour(folded[::-1], levels=[0.5], colors="white", linewidths=0.6, extent=options["extent"])

    figure, axes, bar = _maps(
        jacobian_slices,
        colours={"cmap": "cividis", "norm": LogNorm(*DETERMINANTS)},
        label="Jacobian determinant (1: volume kept); red, outlined: folded",
        extend="both",
        count=regularity["method"].nunique(),
        title=lambda values: f"min. {values.min():.2f}".replace("-", "−"),
        draw=draw,
    )
    log_axis(bar, *DETERMINANTS)
    panel(axes, "b", "in the lungs of every pair: 1st to 99th percentile, 5th to 95th (thick), median; ×: smallest")
    low, high = min(SMALLEST_DETERMINANT, regularity["p1"].min()), regularity["p99"].max()
    for row, rows, look in _rows(axes, regularity):
        offsets = _offsets(len(rows))
        axes.hlines(row + offsets, rows["p1"], rows["p99"], color=look.colour, lw=0.8)
        axes.hlines(row + offsets, rows["p5"], rows["p95"], color=look.colour, lw=2.2)
        axes.plot(rows["median"], row + offsets, look.marker, color=look.colour, ms=4, mec="white", mew=0.5)
        is_shown = (rows["min"] >= low).to_numpy()
        axes.plot(rows["min"][is_shown], (row + offsets)[is_shown], "x", color=look.colour, ms=3, mew=0.8)
        axes.plot(np.full((~is_shown).sum(), low), (row + offsets)[~is_shown], "<", color=look.colour, ms=3)
        folded = 100 * np.average(rows["folded"], weights=rows["voxels"])
        note = f"min. {rows['min'].min():.2f}, {folded:.2g} % folded, sd log J {rows['sd_log'].mean():.2f}".replace("-", "−")
        axes.annotate(note, (1.0, row), xycoords=("axes fraction", "data"), ha="right", va="center")
    axes.set(xlim=(low - 0.05, high + 0.75 * (high - low)), xlabel="Jacobian determinant (no unit); ◂: smaller")
    axes.axvline(1, color="black", lw=0.6, zorder=0)
    axes.axvspan(low - 0.05, 0, color="0.9", zorder=0)
    axes.text(0, -0.48, "folded ", ha="right", va="top", color="0.3")
    return figure


@styled
def figure_field_error(field_errors: pd.DataFrame, error_slices: str | Path) -> Figure:
    """Maps of the error of the whole field in the lungs of one pair, and its range in the lungs of all pairs.

    Parameters
    ----------
    field_errors
        Columns as in `regnet.evaluation.long_tables.FIELD_ERROR_COLUMNS`.
    error_slices
        File with the arrays of `regnet.presentation.slices.field_error_slices`.

    Raises
    ------
    InputError
        If the file does not hold these arrays, or holds no method.
    """
    slices = read_slices(error_slices, SLICE_NAMES)
    errors = [slices[method][slices["mask"] != 0] for method in shown_methods(slices, error_slices)]
    largest = max(float(np.percentile(values, 99)) for values in errors)
    colour_range = SMALLEST_ERROR, max(largest, 10 * SMALLEST_ERROR)
    figure, axes, bar = _maps(
        error_slices,
        colours={"cmap": "viridis", "norm": LogNorm(*colour_range, clip=True)},
        label="distance to the true displacement (mm)",
        extend="both",
        count=field_errors["method"].nunique(),
        title=lambda values: f"mean {values.mean():.2f} mm",
    )
    log_axis(bar, *colour_range)
    panel(axes, "b", "in the lungs of every pair: 5th to 95th percentile, quartiles (thick), median; |: mean")
    for row, rows, look in _rows(axes, field_errors):
        offsets = _offsets(len(rows))
        limits = rows[["p5", "p25", "median", "p75", "p95", "mean"]].clip(lower=0.1 * SMALLEST_ERROR)
        axes.hlines(row + offsets, limits["p5"], limits["p95"], color=look.colour, lw=0.8)
        axes.hlines(row + offsets, limits["p25"], limits["p75"], color=look.colour, lw=2.2)
        axes.plot(limits["median"], row + offsets, look.marker, color=look.colour, ms=4, mec="white", mew=0.5)
        axes.plot(limits["mean"], row + offsets, "|", color=look.colour, ms=6, mew=1.2)
        mean = np.average(rows["mean"], weights=rows["voxels"])
        axes.annotate(f"mean {mean:.2f} mm", (1.0, row), xycoords=("axes fraction", "data"), ha="right", va="center")
    low = max(0.1 * SMALLEST_ERROR, field_errors["p5"].min())
    high = field_errors["p95"].max()
    axes.set(xscale="log", xlim=(low / 1.2, high * (high / low) ** 0.25), xlabel="distance to the true displacement (mm)")
    log_axis(axes.xaxis, *axes.get_xlim())
    return figure


def _maps(
    path: str | Path,
    *,
    colours: dict,
    label: str,
    extend: str,
    count: int,
    title: Callable[[np.ndarray], str],
    draw: Callable[..., None] | None = None,
) -> tuple[Figure, Axes, Axis]:
    """A figure with a map for each method of a file of slices, coloured in the lungs, and axes for `count` rows below them.

    Returns the figure, the axes below the maps and the axis of the colour bar.
    """
    slices = read_slices(path, SLICE_NAMES)
    methods = shown_methods(slices, path)
    crop = crop_around(slices["mask"], slices["spacing"])
    inside = slices["mask"][crop] != 0
    ct = slices["fixed"][crop]
    rows, columns = ct.shape * slices["spacing"]
    across, down = grid_of(len(methods))
    width = min(DOUBLE_COLUMN / across, 2.2)
    maps_height, rows_height = down * ((width - 0.08) * rows / columns + 0.2) + 0.75, 0.6 + 0.27 * count
    figure = new_figure(DOUBLE_COLUMN, maps_height + rows_height)
    upper, lower = figure.subfigures(2, 1, height_ratios=(maps_height, rows_height))
    cells = upper.subplots(down, across, squeeze=False)
    for axes in cells.flat:
        axes.set_axis_off()
    options = {"extent": (0, columns, rows, 0)}
    for axes, method in zip(cells.flat, methods, strict=False):
        values = slices[method][crop].astype(float)
        axes.imshow(ct, cmap="gray", norm=Normalize(*LUNG_WINDOW), alpha=0.6, **options)
        map_image = axes.imshow(np.ma.masked_where(~inside, values), **colours, **options)
        if draw is not None:
            draw(axes, values, inside, **options)
        axes.set_title(f"{method_name(method)}, {title(values[inside])}")
    scale_bar(cells[0, 0], rows, columns)
    upper.suptitle(rf"$\bf{{a}}$  {slices['pair']}, coronal slice", x=0.01, ha="left", fontsize=7)
    bar = upper.colorbar(map_image, ax=cells, location="bottom", fraction=0.05, pad=0.02, aspect=45, shrink=0.6, extend=extend)
    bar.set_label(label, labelpad=1)
    bar.outline.set_linewidth(0.6)
    return figure, lower.subplots(), bar.ax.xaxis


def _rows(axes: Axes, table: pd.DataFrame) -> list[tuple[int, pd.DataFrame, Look]]:
    """Name each method on the y axis; return its position there, its rows of the table and its look."""
    looks = method_looks(table["method"])
    axes.set_yticks(range(len(looks)), map(method_name, looks))
    axes.set_ylim(len(looks) - 0.5, -0.5)
    return [(row, table[table["method"] == method], look) for row, (method, look) in enumerate(looks.items())]


def _offsets(count: int) -> np.ndarray:
    """Offsets of the pairs of a method from its row."""
    return np.linspace(-0.25, 0.25, count) if count > 1 else np.zeros(1)
