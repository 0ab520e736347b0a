"""The style of all figures. Each method has the same colour, marker and line in every figure.

Colours of methods are those of Okabe and Ito and some between them, which colour-blind readers can tell apart; markers and
lines tell methods apart in grey. Everything else, such as axes or stages of a training, has other colours.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter

from regnet.conventions import job_seed
from regnet.errors import InputError
from regnet.evaluation.long_tables import method_name
from regnet.images.boxes import bounding_box
from regnet.system.files import whole_file

# At INFO it logs, once per font and file, which font tables it drops.
logging.getLogger("fontTools").setLevel(logging.WARNING)

DOUBLE_COLUMN = 7.0
"""Width, in inches, of a figure across both columns of a page."""

LUNG_WINDOW = (-1350, 150)
"""Range of HU from black to white."""

DIFFERENCE_WINDOW = (-500, 500)
"""Range of HU of difference images, from "fixed image darker" to "fixed image brighter"."""

MARGIN = 15.0
"""How far example slices reach beyond the lungs, in mm."""

PER_ROW = 5
"""The largest number of slices in a row."""

SLICE_NAMES = ("pair", "spacing", "fixed", "mask")
"""The arrays of a file of slices that are not a method's."""

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
}


class Look(NamedTuple):
    """Colour, marker and line of a method, as matplotlib writes them."""

    colour: str
    marker: str
    line: str | tuple


METHOD_LOOKS = {
    "affine": Look("#7F7F7F", "s", ":"),
    "bspline_1r": Look("#56B4E9", "^", "-."),
    "bspline_3r": Look("#0072B2", "D", "--"),
    "bspline_best": Look("#0B2A5B", "h", (0, (6, 1.5))),
    "regnet": Look("#D55E00", "o", "-"),
    "regnet_pyramid": Look("#8B1A1A", "*", (0, (7, 1))),
    "regnet_refined": Look("#C71585", "d", (0, (4, 1, 1, 1, 1, 1))),
    "demons": Look("#009E73", "v", (0, (5, 1, 1, 1))),
    "syn": Look("#CC79A7", "P", (0, (3, 1, 1, 1, 1, 1))),
    "greedy": Look("#E69F00", "X", (0, (8, 2, 2, 2))),
    "convexadam": Look("#6A3D9A", ">", (0, (2, 1))),
}
"""Looks of the methods that come with the workflow."""

OTHER_LOOKS = [
    Look("#8C564B", "<", (0, (4, 1.5))),
    Look("#999933", "8", (0, (1, 0.8))),
    Look("#44AA99", "p", (0, (5, 1, 2, 1))),
    Look("#3F3F3F", "H", (0, (3, 1.5))),
]
"""Looks for a user's own methods, chosen by their names."""

AXIS_LOOKS = {"x": Look("#117733", "v", ":"), "y": Look("#AA4499", "P", "--"), "z": Look("#B8860B", "X", "-.")}
"""Looks of the components along the axes."""


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under this module's style, whatever the user's matplotlibrc says."""

    @wraps(draw)
    def styled(*args, **options) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **options)

    return styled


@styled
def save_figure(figure: Figure, png: str | Path, pdf: str | Path | None = None) -> None:
    """Write a figure as PNG, 300 dpi, and as PDF with embedded fonts; neither file carries a date or a version."""
    with whole_file(png) as partial:
        figure.savefig(partial, dpi=300, metadata={"Software": None})
    if pdf is None:
        return
    with whole_file(pdf) as partial:
        figure.savefig(partial, dpi=300, metadata={"CreationDate": None, "Creator": None, "Producer": None})


def method_looks(methods: Iterable[str]) -> dict[str, Look]:
    """The look of each method, in the order given.

    A method that is not in `METHOD_LOOKS` gets one of `OTHER_LOOKS` by its name, the same in every figure. Only if two such
    methods of a figure would share a look, the later one gets the next free look.
    """
    looks: dict[str, Look] = {}
    for method in dict.fromkeys(methods):
        first = job_seed(0, "look", method) % len(OTHER_LOOKS)
        candidates = [OTHER_LOOKS[(first + step) % len(OTHER_LOOKS)] for step in range(len(OTHER_LOOKS))]
        free = [look for look in candidates if look not in looks.values()]
        looks[method] = METHOD_LOOKS.get(method) or (free or candidates)[0]
    return looks


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches that makes room for its labels."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel(axes: Axes, letter: str, title: str) -> None:
    """Write letter and title of a panel."""
    axes.set_title(rf"$\bf{{{letter}}}$  {title}", loc="left")


def has_methods(landmarks: pd.DataFrame, axes: Axes, *methods: str, absent: str = "no landmarks in this cohort") -> bool:
    """Whether there are landmarks of all `methods`; if not, the panel gets a note that says so."""
    missing = [method for method in methods if not (landmarks["method"] == method).any()]
    if not landmarks.empty and not missing:
        return True
    write_note(axes, absent if landmarks.empty else f"no results of {', '.join(map(method_name, missing))}")
    return False


def write_note(axes: Axes, note: str) -> None:
    """Write into an empty panel why it is empty."""
    axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center", color="0.4")
    axes.set(xticks=[], yticks=[])


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis from `low` to `high` with round numbers in plain digits."""
    ticks = log_ticks(low, high)
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_formatter(NullFormatter())


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, about evenly spread over a logarithmic axis."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    steps = (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    return [float(decade * step) for decade in decades for step in steps if low <= decade * step <= high]


def legend_below(axes: Axes) -> None:
    """Draw the legend below the panel, where it cannot hide landmarks."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.48, -0.13), ncols=2, handlelength=2.8, columnspacing=1.2)


def shown_methods(slices: Mapping[str, np.ndarray], path: str | Path) -> list[str]:
    """The methods in a file of slices, in the order of the file.

    Raises
    ------
    InputError
        If there is none.
    """
    methods = [name for name in slices if name not in SLICE_NAMES]
    if not methods:
        raise InputError(f"{path}: found no method, expected at least one")
    return methods


def grid_of(count: int) -> tuple[int, int]:
    """Numbers of columns and rows for `count` cells, with at most `PER_ROW` columns and about equally full rows."""
    rows = -(-count // PER_ROW)
    return -(-count // rows), rows


def crop_around(mask: np.ndarray, spacing: np.ndarray) -> tuple[slice, ...]:
    """The part of a slice ``(rows, columns)`` with the mask and a margin of `MARGIN` around it."""
    return bounding_box(mask, [round(MARGIN / step) for step in spacing])


def scale_bar(axes: Axes, rows: float, columns: float, length: float = 50.0) -> None:
    """Draw a bar of `length` mm in the lower left corner of an image of ``rows x columns`` mm."""
    left, bottom = 0.04 * columns, 0.95 * rows
    axes.plot(
        [left, left + length], [bottom, bottom], color="white", lw=2, path_effects=[withStroke(linewidth=3, foreground="black")]
    )
    label = axes.text(left, bottom - 0.025 * rows, f"{length:g} mm", color="white", ha="left", va="bottom")
    label.set_path_effects([withStroke(linewidth=1.2, foreground="black")])
