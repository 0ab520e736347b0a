"""Statistics of synthetic fields: their displacements, their wavelengths, and how much they compress and stretch.

All fields of a kind are pooled. The kinds are the three frequencies and the fields that make the second moving images.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from regnet.evaluation.long_tables import DISTRIBUTION_COLUMNS, SUMMARY_COLUMNS
from regnet.synthesis.pairs import SyntheticDVF
from regnet.synthesis.random_fields import slabs, voxel_axes

FIELD_KINDS = ("low", "medium", "high", "moving")
"""The kinds of fields: the frequencies in the order of the chapter, then the fields that make the second moving images."""

MAGNITUDE_BIN = 0.05
"""Width of the bins of ``||u||``, in mm."""

DETERMINANT_BIN = 0.01
"""Width of the bins of the Jacobian determinant."""

BINS_PER_OCTAVE = 8
"""Number of bins of wavelengths within a factor of two."""

LATTICE_PER_SIGMA = 5
"""Points per sigma at which a field is sampled for its spectrum: far denser than its wavelengths need."""

QUANTILES = {"p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99}


def field_statistics(fields: Iterable[tuple[str, SyntheticDVF]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Distributions of displacements, wavelengths and determinants of fields, and their summary.

    Parameters
    ----------
    fields
        The kind of each field, one of `FIELD_KINDS`, and the field. They are read one by one.

    Returns
    -------
    distributions : pandas.DataFrame
        Columns `regnet.evaluation.long_tables.DISTRIBUTION_COLUMNS`.
    summary : pandas.DataFrame
        Columns ``SUMMARY_COLUMNS`` of the same module; kinds without fields have no row.
    """
    histograms, rows = [], []
    for kind, dvf in fields:
        histogram, aggregates = _single_field_statistics(dvf)
        histograms.append(histogram.assign(kind=kind))
        rows.append({"kind": kind, **aggregates})
    by_field = pd.DataFrame(rows)
    keys = ["kind", "quantity", "lower", "upper"]
    weights = pd.concat(histograms, ignore_index=True).groupby(keys, as_index=False)["weight"].sum()
    totals = weights.groupby(["kind", "quantity"])["weight"].transform("sum")
    distributions = weights.assign(fraction=weights["weight"] / totals)[list(DISTRIBUTION_COLUMNS)]
    rows = []
    for kind in FIELD_KINDS:
        chosen = by_field[by_field["kind"] == kind]
        if chosen.empty:
            continue
        row = {"kind": kind, "fields": len(chosen), "voxels": chosen["voxels"].sum()}
        for quantity, bins in distributions[distributions["kind"] == kind].groupby("quantity"):
            row |= {f"{quantity}_{name}": _quantile(bins, level) for name, level in QUANTILES.items()}
        row["magnitude_mean"] = chosen["magnitude_sum"].sum() / row["voxels"]
        row["magnitude_max"] = chosen["magnitude_max"].max()
        row["determinant_min"], row["determinant_max"] = chosen["determinant_min"].min(), chosen["determinant_max"].max()
        row["folded"] = chosen["folded"].sum() / row["voxels"]
        rows.append(row)
    return distributions, pd.DataFrame(rows)[list(SUMMARY_COLUMNS)]


def wavelengths(dvf: SyntheticDVF) -> tuple[np.ndarray, np.ndarray]:
    """Wavelengths of the Fourier components of a field, in mm, and the share of the power in each; the shares add up to 1.

    A Hann window suppresses the edges of the field. Its mean, of infinite wavelength, is left out.
    """
    extent = (np.array(dvf.grid.size) - 1) * dvf.grid.spacing
    axes = [np.linspace(0, side, int(np.ceil(side / dvf.field.sigma * LATTICE_PER_SIGMA)) + 1) for side in extent]
    field = dvf.field.on_lattice(*map(torch.from_numpy, axes)).numpy()
    windows = np.ix_(*(np.hanning(len(points)) for points in reversed(axes)))
    centred = field - field.mean(axis=(1, 2, 3), keepdims=True)
    power = (np.abs(np.fft.fftn(centred * windows[0] * windows[1] * windows[2], axes=(1, 2, 3))) ** 2).sum(axis=0)
    frequencies = np.meshgrid(*(np.fft.fftfreq(len(points), points[1]) for points in reversed(axes)), indexing="ij")
    frequency = np.sqrt(sum(np.square(component) for component in frequencies))
    waves = frequency > 0
    return 1 / frequency[waves], power[waves] / power[waves].sum()


def _single_field_statistics(dvf: SyntheticDVF) -> tuple[pd.DataFrame, dict[str, float]]:
    """The histograms of one field, and the sums and extremes that cannot be computed from them."""
    x, y, z = voxel_axes(dvf.grid.size, dvf.grid.spacing)
    histograms, aggregates = [], []
    for planes in slabs(dvf.grid.shape):
        magnitude = torch.linalg.vector_norm(dvf.field.on_lattice(x, y, z[planes]), dim=0).numpy().ravel()
        determinant = dvf.field.determinant(x, y, z[planes]).numpy().ravel()
        histograms.append(_bins("magnitude", _bin_weights(magnitude / MAGNITUDE_BIN), MAGNITUDE_BIN))
        histograms.append(_bins("determinant", _bin_weights(determinant / DETERMINANT_BIN), DETERMINANT_BIN))
        aggregates.append(
            {
                "voxels": magnitude.size,
                "magnitude_sum": magnitude.sum(dtype=float),
                "magnitude_max": magnitude.max(),
                "determinant_min": determinant.min(),
                "determinant_max": determinant.max(),
                "folded": (determinant <= 0).sum(),
            }
        )
    lengths, power = wavelengths(dvf)
    octaves = _bins("wavelength", _bin_weights(BINS_PER_OCTAVE * np.log2(lengths), power), 1 / BINS_PER_OCTAVE)
    octaves[["lower", "upper"]] = 2 ** octaves[["lower", "upper"]]
    functions = {"voxels": "sum", "magnitude_sum": "sum", "magnitude_max": "max", "folded": "sum"}
    functions |= {"determinant_min": "min", "determinant_max": "max"}
    return pd.concat([*histograms, octaves], ignore_index=True), pd.DataFrame(aggregates).agg(functions).to_dict()


def _bin_weights(values: np.ndarray, weights: np.ndarray | None = None) -> pd.Series:
    """Sum of the weights (1 each if None) of the values in each bin of width 1, indexed by the lower end of the bin."""
    bins = np.floor(values).astype(int)
    first = bins.min()
    sums = np.bincount(bins - first, weights)
    return pd.Series(sums, index=first + np.arange(len(sums)))


def _bins(quantity: str, weights: pd.Series, width: float) -> pd.DataFrame:
    """The bins of `_bin_weights`, stretched from width 1 to `width`."""
    lower = np.round(weights.index.to_numpy() * width, 6)
    upper = np.round((weights.index.to_numpy() + 1) * width, 6)
    return pd.DataFrame({"quantity": quantity, "lower": lower, "upper": upper, "weight": weights.to_numpy(float)})


def _quantile(bins: pd.DataFrame, level: float) -> float:
    """The value below which a fraction `level` lies, linearly interpolated within its bin."""
    ordered = bins.sort_values("lower")
    limits = [ordered["lower"].iloc[0], *ordered["upper"]]
    return float(np.interp(level, [0, *ordered["fraction"].cumsum()], limits))
