"""The overview of one registered pair."""

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from regnet.presentation.figures.style import (
    DIFFERENCE_WINDOW,
    DOUBLE_COLUMN,
    LUNG_WINDOW,
    crop_around,
    new_figure,
    scale_bar,
    styled,
)


@styled
def overview(slices: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Three planes of a registered pair, one per row: fixed, moving, registered, and the differences before and after.

    All panels have the same scale. Each image shows the outline of the fixed lungs, which the lungs of the registered image
    should fill.

    Parameters
    ----------
    slices
        Result of `regnet.presentation.slices.overview_slices` with the transforms ``before`` and ``after``.
    """
    crops = {plane: crop_around(arrays["mask"] != 0, arrays["spacing"]) for plane, arrays in slices.items()}
    sizes = {plane: arrays["mask"][crops[plane]].shape * arrays["spacing"] for plane, arrays in slices.items()}
    heights, widest = [rows for rows, _ in sizes.values()], max(columns for _, columns in sizes.values())
    titles = ("fixed", "moving", "moving, registered", "fixed − moving", "fixed − registered")
    panel_width = DOUBLE_COLUMN / len(titles)
    figure = new_figure(DOUBLE_COLUMN, panel_width * sum(heights) / widest + 0.75)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.04, wspace=0.0, hspace=0.0)
    grid = figure.subplots(len(slices), len(titles), height_ratios=heights, squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    for line, (plane, arrays) in zip(grid, slices.items(), strict=True):
        rows, columns = sizes[plane]
        fixed, before, after = (arrays[name][crops[plane]].astype(float) for name in ("fixed", "before", "after"))
        inside = arrays["mask"][crops[plane]] != 0
        y, x = ((np.arange(n) + 0.5) * step for n, step in zip(inside.shape, arrays["spacing"], strict=True))
        for axes, image in zip(line, (fixed, before, after, fixed - before, fixed - after), strict=True):
            is_difference = axes in line[3:]
            colours, window = ("RdBu_r", DIFFERENCE_WINDOW) if is_difference else ("gray", LUNG_WINDOW)
            axes.imshow(image, cmap=colours, norm=Normalize(*window), extent=(0, columns, rows, 0))
            axes.contour(x, y, inside, levels=[0.5], colors="black" if is_difference else "#F0E442", linewidths=0.4)
            axes.set(xlim=((columns - widest) / 2, (columns + widest) / 2), ylim=(rows, 0))
            axes.set_axis_off()
            if is_difference:
                note = f"{np.abs(image[inside]).mean():.0f} HU"
                axes.text(0.5, -0.02, note, transform=axes.transAxes, ha="center", va="top")
        line[0].text(-0.02, 0.5, plane, transform=line[0].transAxes, rotation=90, ha="right", va="center")
    scale_bar(grid[0, 0], *next(iter(sizes.values())))
    for group, label in (
        (grid[:, :3], "image (HU)"),
        (grid[:, 3:], "difference (HU); below each: its mean size in the lungs"),
    ):
        image = group[0, 0].get_images()[0]
        bar = figure.colorbar(image, ax=group, location="bottom", fraction=0.03, pad=0.02, aspect=40, shrink=0.5)
        bar.set_label(label, labelpad=1)
        bar.outline.set_linewidth(0.6)
        bar.set_ticks([image.norm.vmin, (image.norm.vmin + image.norm.vmax) / 2, image.norm.vmax])
    return figure
