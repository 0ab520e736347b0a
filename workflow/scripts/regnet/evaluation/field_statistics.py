"""What synthetic fields are like: how far they displace, over which distances they vary, how much they compress and stretch.

All fields of a kind are taken together: the three frequencies, and the fields that make the second moving images.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from regnet.evaluation.long_tables import DISTRIBUTION_COLUMNS, SUMMARY_COLUMNS
from regnet.synthesis.pairs import SyntheticDVF
from regnet.synthesis.random_fields import slabs, voxel_axes

FIELD_KINDS = ("low", "medium", "high", "moving")
"""The kinds of fields: the frequencies in the order of the chapter, and what makes the second moving images."""

MAGNITUDE_STEP = 0.05
"""Width of the classes of ``||u||``, in mm."""

DETERMINANT_STEP = 0.01
"""Width of the classes of the Jacobian determinant."""

CLASSES_PER_OCTAVE = 8
"""Classes of wavelengths, in mm, within a factor of two."""

LATTICE_PER_SIGMA = 5
"""Points per sigma at which a field is sampled for its spectrum: far more than its wavelengths need."""

QUANTILES = {"p1": 0.01, "p5": 0.05, "median": 0.5, "p95": 0.95, "p99": 0.99}


def field_statistics(fields: Iterable[tuple[str, SyntheticDVF]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Distributions of what fields are like, and their summary.

    Parameters
    ----------
    fields
        The kind of each field, one of `FIELD_KINDS`, and the field. They are looked at one by one.

    Returns
    -------
    distributions : pandas.DataFrame
        Columns `DISTRIBUTION_COLUMNS`.
    summary : pandas.DataFrame
        Columns `SUMMARY_COLUMNS`; kinds without fields have no row.
    """
    parts, facts = [], []
    for kind, dvf in fields:
        classes, of_field = _one_field(dvf)
        parts.append(classes.assign(kind=kind))
        facts.append({"kind": kind, **of_field})
    classes, facts = pd.concat(parts, ignore_index=True), pd.DataFrame(facts)
    keys = ["kind", "quantity", "lower", "upper"]
    weights = classes.groupby(keys, as_index=False)["weight"].sum()
    totals = weights.groupby(["kind", "quantity"])["weight"].transform("sum")
    distributions = weights.assign(fraction=weights["weight"] / totals)[list(DISTRIBUTION_COLUMNS)]
    rows = []
    for kind in FIELD_KINDS:
        chosen = facts[facts["kind"] == kind]
        if chosen.empty:
            continue
        row = {"kind": kind, "fields": len(chosen), "voxels": chosen["voxels"].sum()}
        for quantity, of_quantity in distributions[distributions["kind"] == kind].groupby("quantity"):
            row |= {f"{quantity}_{name}": _quantile(of_quantity, level) for name, level in QUANTILES.items()}
        row["magnitude_mean"] = chosen["magnitude_sum"].sum() / row["voxels"]
        row["magnitude_max"] = chosen["magnitude_max"].max()
        row["determinant_min"], row["determinant_max"] = chosen["determinant_min"].min(), chosen["determinant_max"].max()
        row["folded"] = chosen["folded"].sum() / row["voxels"]
        rows.append(row)
    return distributions, pd.DataFrame(rows)[list(SUMMARY_COLUMNS)]


def wavelengths(dvf: SyntheticDVF) -> tuple[np.ndarray, np.ndarray]:
    """The Fourier components of a field: their wavelengths in mm and the power in each, which sums up to 1.

    The field is multiplied with a Hann window, so that its edges do not count; its mean, of infinite wavelength, is left out.
    """
    extent = (np.array(dvf.grid.size) - 1) * dvf.grid.spacing
    axes = [np.linspace(0, side, int(np.ceil(side / dvf.field.sigma * LATTICE_PER_SIGMA)) + 1) for side in extent]
    field = dvf.field.on_lattice(*map(torch.from_numpy, axes)).numpy()
    windows = np.ix_(*(np.hanning(len(along)) for along in reversed(axes)))
    centred = field - field.mean(axis=(1, 2, 3), keepdims=True)
    power = (np.abs(np.fft.fftn(centred * windows[0] * windows[1] * windows[2], axes=(1, 2, 3))) ** 2).sum(axis=0)
    frequencies = np.meshgrid(*(np.fft.fftfreq(len(along), along[1]) for along in reversed(axes)), indexing="ij")
    frequency = np.sqrt(sum(np.square(along) for along in frequencies))
    waves = frequency > 0
    return 1 / frequency[waves], power[waves] / power[waves].sum()


def _one_field(dvf: SyntheticDVF) -> tuple[pd.DataFrame, dict[str, float]]:
    """The classes of one field with their weights, and what they do not tell."""
    x, y, z = voxel_axes(dvf.grid.size, dvf.grid.spacing)
    parts, facts = [], []
    for planes in slabs(dvf.grid.shape):
        magnitude = torch.linalg.vector_norm(dvf.field.on_lattice(x, y, z[planes]), dim=0).numpy().ravel()
        determinant = dvf.field.determinant(x, y, z[planes]).numpy().ravel()
        parts.append(_classes("magnitude", _counted(magnitude / MAGNITUDE_STEP), MAGNITUDE_STEP))
        parts.append(_classes("determinant", _counted(determinant / DETERMINANT_STEP), DETERMINANT_STEP))
        facts.append(
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
    octaves = _classes("wavelength", _counted(CLASSES_PER_OCTAVE * np.log2(lengths), power), 1 / CLASSES_PER_OCTAVE)
    octaves[["lower", "upper"]] = 2 ** octaves[["lower", "upper"]]
    how = {"voxels": "sum", "magnitude_sum": "sum", "magnitude_max": "max", "folded": "sum"}
    how |= {"determinant_min": "min", "determinant_max": "max"}
    return pd.concat([*parts, octaves], ignore_index=True), pd.DataFrame(facts).agg(how).to_dict()


def _counted(values: np.ndarray, weights: np.ndarray | None = None) -> pd.Series:
    """Sum of weights, 1 each if None, of the values in classes of width 1, by the lower end of the class."""
    classes = np.floor(values).astype(int)
    first = classes.min()
    sums = np.bincount(classes - first, weights)
    return pd.Series(sums, index=first + np.arange(len(sums)))


def _classes(quantity: str, counted: pd.Series, step: float) -> pd.DataFrame:
    lower = np.round(counted.index.to_numpy() * step, 6)
    upper = np.round((counted.index.to_numpy() + 1) * step, 6)
    return pd.DataFrame({"quantity": quantity, "lower": lower, "upper": upper, "weight": counted.to_numpy(float)})


def _quantile(classes: pd.DataFrame, level: float) -> float:
    """Below what a fraction `level` lies, linear within the class."""
    ordered = classes.sort_values("lower")
    limits = [ordered["lower"].iloc[0], *ordered["upper"]]
    return float(np.interp(level, [0, *ordered["fraction"].cumsum()], limits))
