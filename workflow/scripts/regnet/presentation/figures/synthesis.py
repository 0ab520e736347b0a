"""Statistics of the synthetic fields of a training."""

from functools import partial
from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from regnet.evaluation.long_tables import DISTRIBUTION_COLUMNS, SUMMARY_COLUMNS, read_errors
from regnet.presentation.figures.style import DOUBLE_COLUMN, log_axis, new_figure, panel, styled

READERS = {
    "distributions": partial(read_errors, columns=DISTRIBUTION_COLUMNS),
    "summary": partial(read_errors, columns=SUMMARY_COLUMNS),
}
"""How `workflow/scripts/figure.py` reads the tables that the figures show, by the names of the arguments."""

KIND_NAMES = {
    "low": "low frequency",
    "medium": "medium frequency",
    "high": "high frequency",
    "moving": "second moving image",
}
"""Display names of the kinds of fields."""

SHORTEST_WAVE = 30.0
"""Lower limit of the axis of wavelengths, in mm: shorter waves have almost no power."""


@styled
def figure_field_statistics(distributions: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Displacements, spectra and Jacobian determinants of synthetic fields, one line per kind of field.

    Parameters
    ----------
    distributions, summary
        Columns as in `regnet.evaluation.long_tables.DISTRIBUTION_COLUMNS` and ``SUMMARY_COLUMNS``.
    """
    figure = new_figure(DOUBLE_COLUMN, 2.4)
    panels = dict(zip(("magnitude", "wavelength", "determinant"), figure.subplots(1, 3), strict=True))
    folded = float((summary["folded"] * summary["voxels"]).sum() / summary["voxels"].sum())
    panel(panels["magnitude"], "a", "displacement")
    panel(panels["wavelength"], "b", "spectrum")
    panel(panels["determinant"], "c", f"compression, {100 * folded:g} % folded")
    panels["magnitude"].set(xlabel="length of the displacement (mm)", ylabel="share of voxels that move farther")
    panels["wavelength"].set(xlabel="wavelength (mm)", ylabel="share of power at shorter waves", xscale="log")
    panels["determinant"].set(xlabel="Jacobian determinant", ylabel="share of voxels below it", yscale="log")
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(summary)))
    for colour, line, kind in zip(shades, cycle(("-", "--", "-.", ":")), summary["kind"], strict=False):
        for quantity, axes in panels.items():
            rows = distributions[(distributions["kind"] == kind) & (distributions["quantity"] == quantity)].sort_values("lower")
            below = rows["fraction"].cumsum()
            share = 1 - below if quantity == "magnitude" else below
            axes.plot(rows["upper"], share, color=colour, ls=line, label=KIND_NAMES.get(kind, kind))
    panels["magnitude"].set(xlim=(0, None), ylim=(0, 1))
    panels["magnitude"].legend(handlelength=3.5)
    panels["wavelength"].set(xlim=(SHORTEST_WAVE, None), ylim=(0, 1))
    log_axis(panels["wavelength"].xaxis, *panels["wavelength"].get_xlim())
    panels["determinant"].set(xlim=(min(0.0, float(summary["determinant_min"].min())), 1.5), ylim=(1e-6, 1))
    panels["determinant"].axvline(0, color="black", lw=0.6)
    return figure
