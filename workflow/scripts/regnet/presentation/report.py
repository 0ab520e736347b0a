"""The pages of the report that are neither figures nor viewers: images, tables, run times, versions and the config.

Each is a self-contained HTML file, because the report shows it in a frame.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import SimpleITK as sitk
import yaml
from markdown import markdown

from regnet.evaluation.long_tables import BENCHMARK_COLUMNS, read_benchmark
from regnet.experiment.cohort import Cohort
from regnet.images.volumes import mask_litres, read_grid, read_image
from regnet.presentation.slices import overview_slices
from regnet.system.files import whole_file

THUMBNAIL_WINDOW = (-1350, 150)
"""Range of HU from black to white in the small pictures of the images: a lung window."""

THUMBNAILS = 60
"""The largest number of images that a page shows pictures of."""

RUN_TIME_COLUMNS = ("step", "jobs", "seconds_mean", "seconds_max", "seconds_total", "cpu_seconds_total", "memory_mib_max")
"""Columns of the table of run times."""

_STYLE = """
body { font: 14px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1f2933; margin: 24px; }
h1 { font-size: 20px; } h2 { font-size: 16px; margin-top: 1.6em; } p, li { max-width: 62em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 1em 3px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #d9e2ec; }
th, td { white-space: nowrap; } th { color: #52606d; font-weight: 600; border-bottom: 1px solid #829ab1; }
pre { background: #f5f7fa; padding: 12px 16px; border-radius: 4px; font-size: 13px; overflow-x: auto; }
img { background: #000; vertical-align: middle; }
"""


def write_page(path: str | Path, title: str, body: str) -> None:
    """Write a page; never leaves a partial file.

    Parameters
    ----------
    path
        The HTML file to make.
    title
        Its title, as text.
    body
        The text below the title, in Markdown with tables; HTML in it is kept.
    """
    content = markdown(body, extensions=["tables"], output_format="html")
    title = html.escape(title)
    with whole_file(path) as partial:
        partial.write_text(
            f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{content}\n</body>\n</html>\n",
            encoding="utf-8",
        )


def cohort_page(cohort: Cohort, resampled: Sequence[str | Path], masks: Sequence[str | Path]) -> str:
    """Return the body of the page of images, with a coronal slice of each, and pairs.

    Parameters
    ----------
    cohort
        Images and pairs; the image files must exist.
    resampled, masks
        The resampled image and lung mask of each image.

    Raises
    ------
    InputError
        If a file cannot be read as an image.
    """
    images, rows = cohort.images, []
    for number, (name, image) in enumerate(images.iterrows()):
        grid = read_grid(image["path"])
        mask = read_image(masks[number])
        picture = _thumbnail(read_image(resampled[number]), mask) if number < THUMBNAILS else ""
        voxels = " x ".join(f"{side:g}" for side in grid.size), " x ".join(f"{side:.4g}" for side in grid.spacing)
        rows.append([picture, str(name), image["subject"], image["split"], *voxels, f"{mask_litres(mask):.2f}"])
    header = ["", "image", "subject", "used for", "voxels", "voxel size (mm)", "lungs (litres)"]
    pairs = cohort.pairs[["fixed", "moving", "split"]].reset_index()
    pairs["landmarks"] = np.where(cohort.pairs["fixed_landmarks"] == "", "none", "yes")
    counts = ", ".join(f"{(images['split'] == split).sum()} for {split}" for split in images["split"].unique())
    return "\n\n".join(
        [
            f"{len(images)} images of {images['subject'].nunique()} subjects: {counts}. No subject is in two of these.",
            _table(header, rows),
            "## Pairs",
            _table(["pair", "fixed", "moving", "used for", "landmarks"], pairs.to_numpy().tolist()),
        ]
    )


def run_times(benchmarks: Sequence[str | Path]) -> pd.DataFrame:
    """Run times of the jobs of each step.

    Parameters
    ----------
    benchmarks
        Snakemake's benchmark files, one per job, in a folder ``benchmarks``. The jobs of one of its subfolders make up a step,
        such as all pairs of a method, but each network in ``train`` is a step of its own.

    Returns
    -------
    pandas.DataFrame
        One row per step, in the order of their first files, columns `RUN_TIME_COLUMNS`.

    Raises
    ------
    InputError
        If a file is not a benchmark file.
    """
    jobs = pd.DataFrame([read_benchmark(path) for path in benchmarks], columns=list(BENCHMARK_COLUMNS))
    by_step = jobs.assign(step=[_step(path) for path in benchmarks]).groupby("step", sort=False)
    table = by_step.agg(
        jobs=("s", "size"),
        seconds_mean=("s", "mean"),
        seconds_max=("s", "max"),
        seconds_total=("s", "sum"),
        cpu_seconds_total=("cpu_time", "sum"),
        memory_mib_max=("max_rss", "max"),
    )
    return table.reset_index()[list(RUN_TIME_COLUMNS)]


def run_times_page(table: pd.DataFrame) -> str:
    """Return the body of the page of run times, from the table of `run_times`."""
    rows = [
        [
            row.step,
            str(row.jobs),
            *(_duration(seconds) for seconds in (row.seconds_mean, row.seconds_max, row.seconds_total)),
            _duration(row.cpu_seconds_total),
            "-" if np.isnan(row.memory_mib_max) else f"{row.memory_mib_max / 1024:.1f} GiB",
        ]
        for row in table.itertuples()
    ]
    header = ["step", "jobs", "mean", "longest", "total", "CPU time", "peak memory"]
    return _table(header, rows) + "\n\nAll times but the CPU time are wall-clock times. Jobs of a step may run in parallel."


def versions_page(versions: Mapping[str, str]) -> str:
    """Return the body of the page of versions, from the result of `regnet.system.machine.versions`."""
    return _table(["component", "version"], [[name, version] for name, version in versions.items()])


def config_page(config: Mapping[str, Any]) -> str:
    """Return the body of the page of the complete config of a run, including defaults."""
    text = yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return f"<pre>{html.escape(text)}</pre>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; its cells are text, except for pictures."""

    def cell(text: str) -> str:
        return text if text.startswith("<img ") else html.escape(text)

    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in header)]
    lines += ["".join(f"<td>{cell(text)}</td>" for text in row) for row in rows]
    return "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"


def _thumbnail(image: sitk.Image, mask: sitk.Image) -> str:
    """The coronal slice of an image with the largest area of lung, as a small HTML picture."""
    arrays = overview_slices(image, mask, image, {})["coronal"]
    png = io.BytesIO()
    low, high = THUMBNAIL_WINDOW
    matplotlib.image.imsave(png, arrays["fixed"], cmap="gray", vmin=low, vmax=high, format="png")
    rows, columns = arrays["fixed"].shape * arrays["spacing"]
    packed = base64.b64encode(png.getvalue()).decode()
    return f'<img alt="" height="96" width="{96 * columns / rows:.0f}" src="data:image/png;base64,{packed}">'


def _step(path: str | Path) -> str:
    parts = Path(path).with_suffix("").parts
    *folders, name = parts[parts.index("benchmarks") + 1 :]
    return " ".join([*folders, name] if folders == ["train"] else folders)


def _duration(seconds: float) -> str:
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
