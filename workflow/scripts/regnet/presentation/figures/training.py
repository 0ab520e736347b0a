"""Training curves."""

from collections.abc import Mapping
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from regnet.evaluation.long_tables import read_table
from regnet.presentation.figures.style import (
    AXIS_LOOKS,
    DOUBLE_COLUMN,
    METHOD_LOOKS,
    OTHER_LOOKS,
    Look,
    new_figure,
    panel,
    styled,
)

TRAINING_LOOKS = (METHOD_LOOKS["regnet"], *OTHER_LOOKS)
"""Looks of compared trainings; the first has that of RegNet."""

LOSS_LOOK = Look("#4D4D4D", "D", "--")
"""Look of the loss."""

COUNTED = {"patches": "patches", "blocks": "crops"}
"""What the figure calls the columns of curves that it can count samples by."""

CURVES = (
    *COUNTED,
    "seconds",
    "loss",
    *(f"validation_{measure}{axis}" for measure in ("mae", "zero_field") for axis in ("", "_x", "_y", "_z")),
)
"""The columns of the curves that are drawn."""

READERS = {"curves": partial(read_table, columns=CURVES)}
"""How `workflow/scripts/figure.py` reads the tables that the figures show, by the names of the arguments."""


@styled
def training_curves(curves: pd.DataFrame, counted: str = "patches") -> Figure:
    """Loss and validation MAE of a training over what it has seen and over time, and the validation MAE along each axis.

    Parameters
    ----------
    curves
        Columns as in `regnet.learning.training.COLUMNS`, one row per epoch. A stage without validation shows only its
        loss.
    counted
        The column that counts what was seen, one of `COUNTED`.
    """
    unit, seconds = ("hours", 3600) if curves["seconds"].max() > 2 * 3600 else ("minutes", 60)
    count, per_unit = ("million", 1e6) if curves[counted].max() >= 1e6 else ("thousand", 1e3)
    seen, samples = curves[counted] / per_unit, COUNTED[counted]
    figure = new_figure(DOUBLE_COLUMN, 2.7)
    over_samples, over_time, along_axes = figure.subplots(1, 3)
    panel(over_samples, "a", f"error over {samples}")
    panel(over_time, "b", "error over time")
    panel(along_axes, "c", "validation MAE along each axis")
    _curves(over_samples, curves, seen)
    _curves(over_time, curves, curves["seconds"] / seconds)
    for axis, (colour, marker, line) in AXIS_LOOKS.items():
        style = {"color": colour, "ls": line}
        error, zero_field = curves[f"validation_mae_{axis}"], curves[f"validation_zero_field_{axis}"]
        along_axes.plot(seen, error, marker=marker, ms=2.5, label=axis, **style)
        along_axes.plot(seen, zero_field, lw=0.6, label=f"{axis}, zero field", **style)
    over_samples.set(xlabel=f"{samples} seen ({count})", ylabel="error, sum over x, y, z (mm)")
    over_time.set(xlabel=f"training time ({unit})", ylabel="error, sum over x, y, z (mm)")
    along_axes.set(xlabel=f"{samples} seen ({count})", ylabel="error (mm)")
    for axes in (over_samples, over_time, along_axes):
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.legend(loc="upper center", bbox_to_anchor=(0.48, -0.2), ncols=2, handlelength=2.8, columnspacing=1.2)
    return figure


@styled
def compared_trainings(trainings: Mapping[str, pd.DataFrame]) -> Figure:
    """The validation MAE of several trainings over the patches seen, and that of the zero field.

    Parameters
    ----------
    trainings
        The curves of each training under its name, columns as in `regnet.learning.training.COLUMNS`, all validated on the same
        samples. Patches seen before the first validation count.
    """
    figure = new_figure(DOUBLE_COLUMN / 2, 2.6)
    axes = figure.subplots()
    for (name, curves), (colour, marker, line) in zip(trainings.items(), TRAINING_LOOKS, strict=False):
        validated = curves.dropna(subset="validation_mae")
        axes.plot(validated["patches"], validated["validation_mae"], color=colour, ls=line, marker=marker, ms=2.5, label=name)
    axes.axhline(validated["validation_zero_field"].iloc[0], color="black", lw=0.8, label="zero field")
    axes.set(xlabel="patches seen", ylabel="validation MAE, sum over x, y, z (mm)", xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.legend(loc="upper center", bbox_to_anchor=(0.48, -0.2), ncols=2, handlelength=2.8, columnspacing=1.2)
    return figure


def _curves(axes: Axes, curves: pd.DataFrame, x: pd.Series) -> None:
    colour, marker, line = LOSS_LOOK
    for stage, rows in curves.groupby("stage", sort=False):
        fill = {} if rows["validation_mae"].notna().any() else {"mfc": "white"}
        label = f"loss, {stage}"
        axes.plot(x[rows.index], rows["loss"], color=colour, ls=line, marker=marker, ms=2.5, label=label, **fill)
    colour, marker, line = METHOD_LOOKS["regnet"]
    axes.plot(x, curves["validation_mae"], color=colour, ls=line, marker=marker, ms=2.5, label="validation MAE")
    axes.plot(x, curves["validation_zero_field"], color="black", lw=0.8, label="zero field")
