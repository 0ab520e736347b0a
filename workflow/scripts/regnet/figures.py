"""Figures 2.2 to 2.5 of the chapter and the curves of a training, drawn from tables and slices alone.

Every function returns a figure; `save_figure` writes it. A method has one colour, marker and line everywhere: the colours are
those of Okabe and Ito, which stay apart for colour-blind readers, markers and lines tell them apart in grey.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullFormatter
from scipy.ndimage import gaussian_filter

from regnet.conventions import AXES
from regnet.errors import InputError
from regnet.evaluation import FREQUENCIES, METHOD_NAMES, read_slices, residual_displacements
from regnet.files import whole_file

DOUBLE_COLUMN = 7.0
"""Width, in inches, of a figure across both columns of a page."""

LUNG_WINDOW = (-1350, 150)
"""Range of HU from black to white."""

DIFFERENCE_WINDOW = (-500, 500)
"""Range of HU of difference images, from the colour for "fixed image darker" to that for "fixed image brighter"."""

SHORTEST = 0.05
"""Distances below this, in mm, are drawn at it where the axes are logarithmic."""

SHORTEST_WAVE = 30.0
"""Where the axis of wavelengths begins, in mm: shorter waves have next to no power."""

MARGIN = 15.0
"""How far example slices reach beyond the lungs, in mm."""

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

_LOOKS = {
    "affine": ("#7F7F7F", "s", ":"),
    "bspline_1r": ("#56B4E9", "^", "-."),
    "bspline_3r": ("#0072B2", "D", "--"),
    "regnet": ("#D55E00", "o", "-"),
}

_AXIS_LOOKS = {"x": ("#009E73", "v", ":"), "y": ("#CC79A7", "P", "--"), "z": ("#E69F00", "X", "-.")}

_MORE_LOOKS = [
    ("#009E73", "v", (0, (5, 1, 1, 1))),
    ("#CC79A7", "P", (0, (3, 1, 1, 1, 1, 1))),
    ("#E69F00", "X", (0, (7, 2))),
    ("#000000", "*", (0, (1, 1))),
]


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function under this module's style, whatever the user's matplotlibrc says."""

    @wraps(draw)
    def styled(*args, **options) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **options)

    return styled


@_styled
def save_figure(figure: Figure, png: str | Path, pdf: str | Path | None = None) -> None:
    """Write a figure as PNG, 300 dpi, and as PDF with embedded fonts; neither file carries a date or a version."""
    with whole_file(png) as partial:
        figure.savefig(partial, dpi=300, metadata={"Software": None})
    if pdf is None:
        return
    with whole_file(pdf) as partial:
        figure.savefig(partial, dpi=300, metadata={"CreationDate": None, "Creator": None, "Producer": None})


@_styled
def figure_2_2(field_slices: str | Path) -> Figure:
    """Heat maps of the magnitude of synthetic fields, one per frequency, with the outlines of body and lungs.

    Parameters
    ----------
    field_slices
        File of `regnet.evaluation.field_slices`.

    Raises
    ------
    InputError
        If the file is not such a file.
    """
    slices = read_slices(field_slices, [*FREQUENCIES, "ct", "spacing"])
    rows, columns = slices["ct"].shape * slices["spacing"]
    # Smoothed, so that the outlines follow the lungs and not their vessels.
    outline = gaussian_filter(slices["ct"].astype(float), 3.0 / slices["spacing"])
    largest = max(float(slices[frequency].max()) for frequency in FREQUENCIES)
    width = 2.1
    figure = _figure(DOUBLE_COLUMN, width * rows / columns + 0.3)
    all_axes = figure.subplots(1, len(FREQUENCIES))
    for axes, frequency in zip(all_axes, FREQUENCIES, strict=True):
        heat = axes.imshow(slices[frequency], cmap="viridis", norm=Normalize(0, largest), extent=(0, columns, rows, 0))
        y, x = ((np.arange(n) + 0.5) * step for n, step in zip(outline.shape, slices["spacing"], strict=True))
        axes.contour(x, y, outline, levels=[-500], colors="white", linewidths=0.6, linestyles="solid")
        axes.set_title(f"{frequency} frequency, max. {slices[frequency].max():.1f} mm")
        axes.set_axis_off()
    _scale_bar(all_axes[0], rows, columns)
    bar = figure.colorbar(heat, ax=all_axes, fraction=0.05, pad=0.01, aspect=25)
    bar.set_label("displacement (mm)")
    bar.outline.set_linewidth(0.6)
    return figure


@_styled
def figure_2_3(landmarks: pd.DataFrame, capture_range: float) -> Figure:
    """Residual distances of all landmarks, and what RegNet predicted of the displacement that was left after affine.

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.LANDMARK_COLUMNS`; it may have no rows.
    capture_range
        In mm; marked in both panels.
    """
    figure = _figure(DOUBLE_COLUMN, 3.5)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    count = len(landmarks.drop_duplicates(["pair", "landmark"]))
    _panel(left, "a", f"all landmarks (n = {count}), every method")
    _panel(right, "b", f"all landmarks (n = {count}), RegNet")
    left.set(xlabel="distance after affine registration (mm)", ylabel="residual distance (mm)")
    right.set(xlabel="true displacement after affine (mm)", ylabel="predicted displacement along it (mm)")
    if _has(landmarks, left, "affine"):
        _residuals_by_distance(left, landmarks, capture_range)
    if _has(landmarks, right, "affine", "regnet"):
        _predicted_along_true(right, landmarks, capture_range)
    return figure


@_styled
def figure_2_4(landmarks: pd.DataFrame, capture_range: float) -> Figure:
    """Residual distances of the landmarks in the capture range, and RegNet against the truth along each axis.

    Parameters
    ----------
    landmarks
        Columns as in `regnet.evaluation.LANDMARK_COLUMNS`; it may have no rows, or none within the capture range.
    capture_range
        In mm; the limit of the axes.
    """
    within = landmarks[landmarks["within_capture_range"].astype(bool)]
    absent = "no landmarks in this cohort" if landmarks.empty else "no landmarks in the capture range"
    count = len(within.drop_duplicates(["pair", "landmark"]))
    figure = _figure(DOUBLE_COLUMN, 4.2)
    mosaic = figure.subplot_mosaic([["a", "a", "a"], ["b", "c", "d"]], height_ratios=(0.95, 1.25))
    _panel(mosaic["a"], "a", f"landmarks within {capture_range:g} mm after affine registration (n = {count}), every method")
    mosaic["a"].set(xlabel="residual distance (mm)")
    if _has(within, mosaic["a"], absent=absent):
        _boxes(mosaic["a"], within)
    for letter, axis in zip("bcd", AXES, strict=True):
        axes = mosaic[letter]
        _panel(axes, letter, f"the same landmarks, RegNet, {axis}")
        axes.set(xlabel=f"true displacement, {axis} (mm)", ylabel=f"predicted displacement, {axis} (mm)")
        if _has(within, axes, "affine", "regnet", absent=absent):
            _predicted_against_true(axes, residual_displacements(within, "regnet"), axis, capture_range)
    return figure


@_styled
def figure_2_5(example_slices: str | Path) -> Figure:
    """Fixed and warped moving slices in the top row, fixed minus warped below them.

    Parameters
    ----------
    example_slices
        File of `regnet.evaluation.example_slices`; one column per method in it.

    Raises
    ------
    InputError
        If the file is not such a file, or has no method in it.
    """
    slices = read_slices(example_slices, ["pair", "spacing", "fixed", "mask"])
    methods = [name for name in slices if name not in ("pair", "spacing", "fixed", "mask")]
    if not methods:
        raise InputError(f"{example_slices}: holds the image of no method, expected at least one")
    window = _around(slices["mask"], slices["spacing"])
    inside = slices["mask"][window] != 0
    fixed = slices["fixed"][window].astype(float)
    rows, columns = fixed.shape * slices["spacing"]
    width = DOUBLE_COLUMN / (len(methods) + 1)
    figure = _figure(DOUBLE_COLUMN, 2 * ((width - 0.1) * rows / columns + 0.2))
    top, bottom = figure.subplots(2, len(methods) + 1)
    options = {"extent": (0, columns, rows, 0)}
    grey = top[0].imshow(fixed, cmap="gray", norm=Normalize(*LUNG_WINDOW), **options)
    top[0].set_title(f"fixed, {slices['pair']}")
    _scale_bar(top[0], rows, columns)
    for above, below, method in zip(top[1:], bottom[1:], methods, strict=True):
        warped = slices[method][window].astype(float)
        difference = fixed - warped
        above.imshow(warped, cmap="gray", norm=Normalize(*LUNG_WINDOW), **options)
        above.set_title(f"moving, {METHOD_NAMES.get(method, method)}")
        colour = below.imshow(difference, cmap="RdBu_r", norm=Normalize(*DIFFERENCE_WINDOW), **options)
        below.set_title(f"mean |difference| {np.abs(difference[inside]).mean():.0f} HU")
    for axes in (*top, *bottom):
        axes.set_axis_off()
    _legend_cell(bottom[0], {"image (HU)": grey, "difference (HU)": colour})
    return figure


@_styled
def figure_field_statistics(distributions: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """How far synthetic fields displace, their spectrum and their Jacobian determinants, one line per kind of field.

    Parameters
    ----------
    distributions, summary
        Columns as in `regnet.field_statistics.DISTRIBUTION_COLUMNS` and ``SUMMARY_COLUMNS``.
    """
    figure = _figure(DOUBLE_COLUMN, 2.4)
    panels = dict(zip(("magnitude", "wavelength", "determinant"), figure.subplots(1, 3), strict=True))
    folded = float((summary["folded"] * summary["voxels"]).sum() / summary["voxels"].sum())
    _panel(panels["magnitude"], "a", "displacement")
    _panel(panels["wavelength"], "b", "spectrum")
    _panel(panels["determinant"], "c", f"compression, {100 * folded:g} % folded")
    panels["magnitude"].set(xlabel="length of the displacement (mm)", ylabel="share of voxels that move farther")
    panels["wavelength"].set(xlabel="wavelength (mm)", ylabel="share of power at shorter waves", xscale="log")
    panels["determinant"].set(xlabel="Jacobian determinant", ylabel="share of voxels below it", yscale="log")
    for (colour, _, line), kind in zip(_MORE_LOOKS, summary["kind"], strict=False):
        for quantity, axes in panels.items():
            rows = distributions[(distributions["kind"] == kind) & (distributions["quantity"] == quantity)].sort_values("lower")
            below = rows["fraction"].cumsum()
            share = 1 - below if quantity == "magnitude" else below
            axes.plot(rows["upper"], share, color=colour, ls=line, label=kind)
    panels["magnitude"].set(xlim=(0, None), ylim=(0, 1))
    panels["magnitude"].legend(handlelength=3.5)
    panels["wavelength"].set(xlim=(SHORTEST_WAVE, None), ylim=(0, 1))
    ticks = _ticks(*panels["wavelength"].get_xlim())
    panels["wavelength"].xaxis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    panels["wavelength"].xaxis.set_minor_formatter(NullFormatter())
    panels["determinant"].set(xlim=(min(0.0, float(summary["determinant_min"].min())), 1.5), ylim=(1e-6, 1))
    panels["determinant"].axvline(0, color="black", lw=0.6)
    return figure


@_styled
def training_curves(curves: pd.DataFrame) -> Figure:
    """Loss and validation MAE of a training over the patches seen and over time, and the validation MAE along each axis.

    Parameters
    ----------
    curves
        Columns as in `regnet.training.COLUMNS`, one row per epoch. A stage without validation has its loss alone.
    """
    unit, seconds = ("hours", 3600) if curves["seconds"].max() > 2 * 3600 else ("minutes", 60)
    figure = _figure(DOUBLE_COLUMN, 2.7)
    over_patches, over_time, along_axes = figure.subplots(1, 3)
    _panel(over_patches, "a", "error over patches")
    _panel(over_time, "b", "error over time")
    _panel(along_axes, "c", "validation MAE along each axis")
    _curves(over_patches, curves, curves["patches"])
    _curves(over_time, curves, curves["seconds"] / seconds)
    for axis, (colour, marker, line) in _AXIS_LOOKS.items():
        style = {"color": colour, "ls": line}
        error, zero_field = curves[f"validation_mae_{axis}"], curves[f"validation_zero_field_{axis}"]
        along_axes.plot(curves["patches"], error, marker=marker, ms=2.5, label=axis, **style)
        along_axes.plot(curves["patches"], zero_field, lw=0.6, label=f"{axis}, zero field", **style)
    over_patches.set(xlabel="patches seen", ylabel="error, sum over x, y, z (mm)")
    over_time.set(xlabel=f"training time ({unit})", ylabel="error, sum over x, y, z (mm)")
    along_axes.set(xlabel="patches seen", ylabel="error (mm)")
    for axes in (over_patches, over_time, along_axes):
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.legend(loc="upper center", bbox_to_anchor=(0.48, -0.2), ncols=2, handlelength=2.8, columnspacing=1.2)
    return figure


def _curves(axes: Axes, curves: pd.DataFrame, abscissa: pd.Series) -> None:
    colour, marker, line = _LOOKS["bspline_3r"]
    for stage, rows in curves.groupby("stage", sort=False):
        fill = {} if rows["validation_mae"].notna().any() else {"mfc": "white"}
        label = f"loss, {stage}"
        axes.plot(abscissa[rows.index], rows["loss"], color=colour, ls=line, marker=marker, ms=2.5, label=label, **fill)
    colour, marker, line = _LOOKS["regnet"]
    axes.plot(abscissa, curves["validation_mae"], color=colour, ls=line, marker=marker, ms=2.5, label="validation MAE")
    axes.plot(abscissa, curves["validation_zero_field"], color="black", lw=0.8, label="zero field")


@_styled
def compared_trainings(trainings: Mapping[str, pd.DataFrame]) -> Figure:
    """The validation MAE of several trainings over the patches seen, and the zero field's.

    Parameters
    ----------
    trainings
        For each training what it is called and its curves, columns as in `regnet.training.COLUMNS`, all validated on the same
        samples. Patches seen before the first validation count.
    """
    figure = _figure(DOUBLE_COLUMN / 2, 2.6)
    axes = figure.subplots()
    for (name, curves), (colour, marker, line) in zip(trainings.items(), reversed(_LOOKS.values()), strict=False):
        validated = curves.dropna(subset="validation_mae")
        axes.plot(validated["patches"], validated["validation_mae"], color=colour, ls=line, marker=marker, ms=2.5, label=name)
    axes.axhline(validated["validation_zero_field"].iloc[0], color="black", lw=0.8, label="zero field")
    axes.set(xlabel="patches seen", ylabel="validation MAE, sum over x, y, z (mm)", xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.legend(loc="upper center", bbox_to_anchor=(0.48, -0.2), ncols=2, handlelength=2.8, columnspacing=1.2)
    return figure


@_styled
def overview(slices: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Three planes of a registered pair, one per row: fixed, moving, registered, and the differences before and after.

    All panels are to the same scale. The outline of the fixed lungs is drawn into each image: the lungs of the registered image
    should fill it.

    Parameters
    ----------
    slices
        Of `regnet.evaluation.overview_slices` with the transforms ``before`` and ``after``.
    """
    windows = {plane: _around(arrays["mask"] != 0, arrays["spacing"]) for plane, arrays in slices.items()}
    sizes = {plane: arrays["mask"][windows[plane]].shape * arrays["spacing"] for plane, arrays in slices.items()}
    heights, widest = [rows for rows, _ in sizes.values()], max(columns for _, columns in sizes.values())
    titles = ("fixed", "moving", "moving, registered", "fixed − moving", "fixed − registered")
    panel = DOUBLE_COLUMN / len(titles)
    figure = _figure(DOUBLE_COLUMN, panel * sum(heights) / widest + 0.75)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.04, wspace=0.0, hspace=0.0)
    grid = figure.subplots(len(slices), len(titles), height_ratios=heights, squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    for line, (plane, arrays) in zip(grid, slices.items(), strict=True):
        rows, columns = sizes[plane]
        fixed, before, after = (arrays[name][windows[plane]].astype(float) for name in ("fixed", "before", "after"))
        inside = arrays["mask"][windows[plane]] != 0
        y, x = ((np.arange(n) + 0.5) * step for n, step in zip(inside.shape, arrays["spacing"], strict=True))
        for axes, image in zip(line, (fixed, before, after, fixed - before, fixed - after), strict=True):
            is_difference = axes in line[3:]
            look = ("RdBu_r", DIFFERENCE_WINDOW) if is_difference else ("gray", LUNG_WINDOW)
            shown = axes.imshow(image, cmap=look[0], norm=Normalize(*look[1]), extent=(0, columns, rows, 0))
            axes.contour(x, y, inside, levels=[0.5], colors="black" if is_difference else "#F0E442", linewidths=0.4)
            axes.set(xlim=((columns - widest) / 2, (columns + widest) / 2), ylim=(rows, 0))
            axes.set_axis_off()
            if is_difference:
                note = f"{np.abs(image[inside]).mean():.0f} HU"
                axes.text(0.5, -0.02, note, transform=axes.transAxes, ha="center", va="top")
        line[0].text(-0.02, 0.5, plane, transform=line[0].transAxes, rotation=90, ha="right", va="center")
    _scale_bar(grid[0, 0], *next(iter(sizes.values())))
    for group, label in (
        (grid[:, :3], "image (HU)"),
        (grid[:, 3:], "difference (HU); below each: its mean size in the lungs"),
    ):
        shown = group[0, 0].get_images()[0]
        bar = figure.colorbar(shown, ax=group, location="bottom", fraction=0.03, pad=0.02, aspect=40, shrink=0.5)
        bar.set_label(label, labelpad=1)
        bar.outline.set_linewidth(0.6)
        bar.set_ticks([shown.norm.vmin, (shown.norm.vmin + shown.norm.vmax) / 2, shown.norm.vmax])
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panel(axes: Axes, letter: str, title: str) -> None:
    axes.set_title(rf"$\bf{{{letter}}}$  {title}", loc="left")


def _has(landmarks: pd.DataFrame, axes: Axes, *methods: str, absent: str = "no landmarks in this cohort") -> bool:
    """Whether there are landmarks of all `methods`; if not, say so in the panel."""
    missing = [method for method in methods if not (landmarks["method"] == method).any()]
    if not landmarks.empty and not missing:
        return True
    note = absent if landmarks.empty else f"no results of {', '.join(map(_name, missing))}"
    axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center", color="0.4")
    axes.set(xticks=[], yticks=[])
    return False


def _name(method: str) -> str:
    return METHOD_NAMES.get(method, method)


def _looks(landmarks: pd.DataFrame) -> dict[str, tuple]:
    """Colour, marker and line of every method in the table: the chapter's first, then others in their order."""
    found = list(landmarks["method"].unique())
    others = [method for method in found if method not in _LOOKS]
    looks = {method: look for method, look in _LOOKS.items() if method in found}
    return looks | {method: _MORE_LOOKS[index % len(_MORE_LOOKS)] for index, method in enumerate(others)}


def _residuals_by_distance(axes: Axes, landmarks: pd.DataFrame, capture_range: float) -> None:
    """Points and binned medians of every method, on logarithmic axes: distances span two orders of magnitude."""
    errors = landmarks.pivot(index=["pair", "landmark"], columns="method", values="error").clip(lower=SHORTEST)
    before = errors["affine"]
    bins = _bins(before.to_numpy())
    looks = _looks(landmarks)
    colour, _, line = looks.pop("affine")
    axes.axline((1, 1), (2, 2), color=colour, ls=line, label=_name("affine"))
    for method, (colour, marker, line) in looks.items():
        axes.plot(before, errors[method], marker, color=colour, ms=2, mew=0, alpha=0.3)
        medians = errors[["affine", method]].groupby(bins).median()
        # A white line below the coloured one keeps the median in sight among its own points.
        axes.plot(medians["affine"], medians[method], color="white", lw=3, zorder=3)
        style = {"color": colour, "ls": line, "marker": marker, "ms": 4.5, "mec": "white", "mew": 0.6}
        axes.plot(medians["affine"], medians[method], **style, zorder=4, label=f"{_name(method)}, median")
    axes.axvline(capture_range, color="black", lw=0.6, label=f"capture range, {capture_range:g} mm")
    smallest, largest = errors.min().min(), errors.max().max()
    axes.set(xscale="log", yscale="log", xlim=(before.min() / 1.1, before.max() * 1.1), ylim=(smallest / 1.2, largest * 1.2))
    for ruler, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = _ticks(low, high)
        ruler.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        ruler.set_minor_formatter(NullFormatter())
    _legend_below(axes)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, about evenly spread over a logarithmic axis."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    steps = (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    return [float(decade * step) for decade in decades for step in steps if low <= decade * step <= high]


def _legend_below(axes: Axes) -> None:
    """The legend under the panel, where it hides no landmark wherever they lie."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.48, -0.13), ncols=2, handlelength=2.8, columnspacing=1.2)


def _bins(values: np.ndarray) -> np.ndarray:
    """The bin of each value: 4 to 10 bins with about as many values each, at least 10 where there are enough."""
    count = int(np.clip(len(values) // 10, 4, 10))
    return np.searchsorted(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]), values)


def _predicted_along_true(axes: Axes, landmarks: pd.DataFrame, capture_range: float) -> None:
    table = residual_displacements(landmarks, "regnet")
    true, predicted = (table[[f"{name}_{axis}" for axis in AXES]].to_numpy() for name in ("true", "predicted"))
    distance = np.linalg.norm(true, axis=1)
    along = np.divide((true * predicted).sum(axis=1), distance, out=np.zeros_like(distance), where=distance > 0)
    within = table["within_capture_range"].to_numpy(bool)
    colour = _LOOKS["regnet"][0]
    axes.axline((0, 0), slope=1, color="black", lw=0.8, ls="--", label="prediction = truth")
    axes.axvline(capture_range, color="black", lw=0.6, label=f"capture range, {capture_range:g} mm")
    axes.plot(distance[within], along[within], "o", color=colour, ms=2.5, mew=0, alpha=0.7, label="in the capture range")
    axes.plot(distance[~within], along[~within], "o", mfc="none", mec=colour, ms=2.5, mew=0.5, label="beyond it")
    limit = 1.05 * float(distance.max())
    axes.set(xlim=(0, limit), ylim=(min(0.0, 1.1 * float(along.min())), 1.05 * max(limit / 1.05, float(along.max()))))
    _legend_below(axes)


def _boxes(axes: Axes, landmarks: pd.DataFrame) -> None:
    looks = _looks(landmarks)
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
    axes.set_yticks(range(len(looks)), map(_name, looks))
    axes.set_ylim(len(looks) - 0.5, -0.5)
    axes.set_xlim(0, 1.02 * landmarks["error"].max())


def _predicted_against_true(axes: Axes, table: pd.DataFrame, axis: str, capture_range: float) -> None:
    true, predicted = table[f"true_{axis}"].to_numpy(), table[f"predicted_{axis}"].to_numpy()
    axes.axline((0, 0), slope=1, color="black", lw=0.8, ls="--")
    axes.plot(true, predicted, "o", color=_LOOKS["regnet"][0], ms=2.5, mew=0, alpha=0.6)
    limit = 1.05 * max(capture_range, float(np.abs(predicted).max()))
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    for ruler in (axes.xaxis, axes.yaxis):
        ruler.set_major_locator(MaxNLocator(5, steps=[1, 2, 4, 5, 10]))
    note = f"mean |error| {np.abs(predicted - true).mean():.2f} mm"
    if len(true) > 2 and true.std() > 0 and predicted.std() > 0:
        note += f"\nr = {np.corrcoef(true, predicted)[0, 1]:.2f}"
    axes.text(0.04, 0.97, note, transform=axes.transAxes, va="top")


def _around(mask: np.ndarray, spacing: np.ndarray) -> tuple[slice, slice]:
    """The part of a slice ``(rows, columns)`` that holds the mask and `MARGIN` around it."""
    ranges = []
    for along, step in zip((1, 0), spacing, strict=True):
        inside = np.flatnonzero(mask.any(axis=along))
        margin = round(MARGIN / step)
        ranges.append(slice(max(0, inside[0] - margin), inside[-1] + margin + 1))
    return tuple(ranges)


def _scale_bar(axes: Axes, rows: float, columns: float, length: float = 50.0) -> None:
    """A bar of `length` mm in the lower left corner of an image of ``rows x columns`` mm."""
    left, bottom = 0.04 * columns, 0.95 * rows
    axes.plot(
        [left, left + length], [bottom, bottom], color="white", lw=2, path_effects=[withStroke(linewidth=3, foreground="black")]
    )
    label = axes.text(left, bottom - 0.025 * rows, f"{length:g} mm", color="white", ha="left", va="bottom")
    label.set_path_effects([withStroke(linewidth=1.2, foreground="black")])


def _legend_cell(axes: Axes, images: Mapping[str, AxesImage]) -> None:
    """The colour bars of two images, with their labels, in an otherwise empty cell."""
    for level, (label, image) in zip((0.75, 0.22), images.items(), strict=True):
        bar = axes.figure.colorbar(image, cax=axes.inset_axes((0.08, level, 0.84, 0.07)), orientation="horizontal")
        bar.set_label(label, labelpad=1)
        bar.outline.set_linewidth(0.6)
        bar.set_ticks([image.norm.vmin, (image.norm.vmin + image.norm.vmax) / 2, image.norm.vmax])
