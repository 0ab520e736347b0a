"""Statistics of fields whose displacement, wavelength and determinant are known."""

import numpy as np
import pytest
import torch

from regnet.evaluation.field_statistics import field_statistics, wavelengths
from regnet.evaluation.long_tables import DISTRIBUTION_COLUMNS, SUMMARY_COLUMNS
from regnet.images.transforms import jacobian_determinant
from regnet.images.volumes import Grid
from regnet.presentation.figures.style import save_figure
from regnet.presentation.figures.synthesis import figure_field_statistics
from regnet.synthesis.pairs import SyntheticDVF, random_dvf
from regnet.synthesis.random_fields import RandomField

GRID = Grid((60, 55, 64), (2.0, 2.0, 2.0))


def draw(sigma, seed=0):
    return random_dvf(GRID, sigma=sigma, points=60, theta=6, border=33, rng=np.random.default_rng(seed))


def field_of_points(points, vectors, sigma):
    """The field of given points and vectors, without the scaling after the smoothing."""
    scale = torch.ones(3, 2, dtype=torch.float64)
    return SyntheticDVF(RandomField(torch.from_numpy(points), torch.from_numpy(vectors), sigma, scale), GRID)


@pytest.fixture(scope="module")
def fields():
    return [("low", draw(35)), ("low", draw(35, seed=1)), ("high", draw(15))]


def test_the_summary_pools_all_voxels_of_a_kind(fields):
    distributions, summary = field_statistics(fields)
    assert list(distributions.columns) == list(DISTRIBUTION_COLUMNS)
    assert list(summary.columns) == list(SUMMARY_COLUMNS)
    np.testing.assert_allclose(distributions.groupby(["kind", "quantity"])["fraction"].sum(), 1)
    low = summary.set_index("kind").loc["low"]
    magnitude = np.concatenate([np.linalg.norm(dvf.on_grid(), axis=-1).ravel() for kind, dvf in fields if kind == "low"])
    assert low["fields"] == 2
    assert low["voxels"] == magnitude.size
    assert low["magnitude_mean"] == pytest.approx(magnitude.mean(), rel=1e-4)
    assert low["magnitude_max"] == pytest.approx(magnitude.max(), rel=1e-4)
    for name, level in (("median", 0.5), ("p95", 0.95)):
        assert low[f"magnitude_{name}"] == pytest.approx(np.quantile(magnitude, level), abs=0.03)
    determinant = [jacobian_determinant(dvf.on_grid(), GRID)[1:-1, 1:-1, 1:-1] for kind, dvf in fields if kind == "low"]
    assert low["determinant_median"] == pytest.approx(np.median(determinant), abs=0.01)


def test_smoother_fields_have_longer_waves(fields):
    _, summary = field_statistics(fields)
    assert list(summary["kind"]) == ["low", "high"]
    low, high = summary["wavelength_median"]
    assert low > 1.3 * high


def test_the_wavelength_of_a_wave_is_found():
    """Gaussians of alternating sign, 20 mm apart along x and everywhere along y and z, are a wave of 40 mm."""
    x, y, z = np.meshgrid(np.arange(-40, 160, 20), np.arange(-20, 140, 10), np.arange(-20, 150, 10), indexing="ij")
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3).astype(float)
    vectors = np.where(points[:, :1] / 20 % 2 == 0, 1.0, -1.0) * [1, 0, 0]
    lengths, power = wavelengths(field_of_points(points, vectors, 10.0))
    assert power.sum() == pytest.approx(1)
    assert lengths[power.argmax()] == pytest.approx(40, rel=0.1)
    # The image is only three waves long, so the line in its spectrum is this wide.
    assert power[(lengths > 27) & (lengths < 63)].sum() > 0.9


def test_folded_voxels_are_counted():
    one_point = field_of_points(np.array([[59.0, 54.0, 63.0]]), np.array([[20.0, 0, 0]]), 8.0)
    _, summary = field_statistics([("high", one_point)])
    expected = (jacobian_determinant(one_point.on_grid(), GRID) <= 0).mean()
    assert summary["folded"][0] == pytest.approx(expected, rel=0.1)
    assert summary["folded"][0] > 0
    assert summary["determinant_min"][0] == pytest.approx(1 - 20 / 8 * np.exp(-0.5), abs=0.05)


def test_the_figure_says_how_much_folds(fields, tmp_path):
    figure = figure_field_statistics(*field_statistics(fields))
    save_figure(figure, tmp_path / "figure.png", tmp_path / "figure.pdf")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert figure.axes[2].get_title(loc="left").endswith("0 % folded")
    assert [line.get_label() for line in figure.axes[0].lines] == ["low frequency", "high frequency"]
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
