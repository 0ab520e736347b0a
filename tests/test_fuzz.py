"""Random files: every reader returns data or raises our error in one line, and nothing else."""

import json
import string
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regnet.datasets.adapters import read_list
from regnet.errors import InputError, RegNetError
from regnet.experiment.cohort import read_cohort
from regnet.experiment.schemas import check_config
from regnet.images.landmark_formats import LANDMARK_FORMATS, SLICER_FORMATS, SUFFIXES
from regnet.images.landmarks import format_landmarks, read_landmarks, read_point_table
from regnet.images.volumes import Grid, read_grid, read_image

settings.register_profile(
    "fixed",
    derandomize=True,
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("fixed")

ROOT = Path(__file__).parents[1]

GRID = Grid((30, 20, 10), (0.8, 0.9, 2.5), (-10.0, 5.0, 3.0))

CELLS = st.one_of(
    st.integers(-20, 40).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["point", "index", "x", "y", "z", "0", "3", "#", "x,y,z", "# CoordinateSystem = RAS", "nan", "1e999", '"', "\ufeff"]
    ),
    st.text(max_size=6),
)

ROWS = st.lists(st.tuples(st.lists(CELLS, max_size=5), st.sampled_from([" ", ",", "\t", ";"])), max_size=6).map(
    lambda rows: "\n".join(separator.join(cells) for cells, separator in rows)
)
"""Texts that are almost tables."""

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["LPS", "RAS"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["markups", "coordinateSystem", "controlPoints", "position", "label"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)

NAMES = sorted({"points.txt", "points.json", *(f"points{suffix}" for suffix in SUFFIXES.values())})


def data_or_our_error(read, *arguments):
    """The data, or None if our error was raised; checks that no line of the error is blank or unprintable."""
    try:
        return read(*arguments)
    except RegNetError as error:
        lines = str(error).split("\n")
        assert all(line.strip() and line.isprintable() for line in lines), lines
        return None


def assert_points(points):
    if points is not None:
        assert points.ndim == 2
        assert points.shape[1] == 3
        assert len(points)
        assert np.isfinite(points).all()


@given(name=st.sampled_from(NAMES), content=st.one_of(ROWS.map(str.encode), st.binary(max_size=60)))
def test_landmarks(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    for grid in (None, GRID):
        assert_points(data_or_our_error(read_landmarks, tmp_path / name, grid))


@given(content=JSON)
def test_markups(content, tmp_path):
    (tmp_path / "points.mrk.json").write_text(json.dumps(content), encoding="utf-8")
    assert_points(data_or_our_error(read_landmarks, tmp_path / "points.mrk.json"))


@given(
    kind=st.sampled_from(list(LANDMARK_FORMATS)),
    system=st.sampled_from(["LPS", "RAS"]),
    indices=st.lists(st.tuples(*(st.floats(0, side - 1) for side in GRID.size)), min_size=1, max_size=5),
)
def test_written_landmarks_are_read_back(kind, system, indices, tmp_path):
    points = GRID.points(indices)
    text = format_landmarks(points, kind, GRID, system if kind in SLICER_FORMATS else "LPS")
    path = tmp_path / f"points{SUFFIXES.get(kind, '.txt')}"
    path.write_text(text, encoding="utf-8", newline="")
    np.testing.assert_allclose(read_landmarks(path, GRID), points, atol=2e-4)


@given(
    kind=st.sampled_from(list(LANDMARK_FORMATS)),
    place=st.integers(0, 200),
    length=st.integers(0, 20),
    inserted=st.text(alphabet=string.printable, max_size=5),
)
def test_damaged_landmarks(kind, place, length, inserted, tmp_path):
    """Valid files in which some characters are replaced."""
    text = format_landmarks(GRID.points([[1, 2, 3], [4, 5, 6], [29, 19, 9]]), kind, GRID)
    path = tmp_path / f"points{SUFFIXES.get(kind, '.txt')}"
    path.write_text(text[:place] + inserted + text[place + length :], encoding="utf-8", newline="")
    assert_points(data_or_our_error(read_landmarks, path, GRID))


@given(content=st.one_of(ROWS.map(str.encode), st.binary(max_size=60)))
def test_point_tables_and_lists_of_files(content, tmp_path):
    (tmp_path / "pairs.csv").write_bytes(content)
    data_or_our_error(read_point_table, tmp_path / "pairs.csv")
    data_or_our_error(read_list, tmp_path)


@given(
    table=st.sampled_from(["images.tsv", "pairs.tsv"]),
    place=st.integers(0, 400),
    length=st.integers(0, 60),
    inserted=st.one_of(st.binary(max_size=8), st.sampled_from([b"\t", b"\n", b"\r", b"\0", b"\xff", b"test", b"\t\n\t"])),
)
def test_damaged_tables(table, place, length, inserted, tmp_path):
    for name in ("images.tsv", "pairs.tsv"):
        data = (ROOT / "config" / "cohorts" / "phantom" / name).read_bytes()
        (tmp_path / name).write_bytes(data[:place] + inserted + data[place + length :] if name == table else data)
    cohort = data_or_our_error(read_cohort, tmp_path, "data", True)
    assert cohort is None or cohort.test_pairs()


@given(content=st.one_of(ROWS.map(str.encode), st.binary(max_size=60)))
def test_tables_at_random(content, tmp_path):
    (tmp_path / "images.tsv").write_bytes(content)
    (tmp_path / "pairs.tsv").write_bytes(content)
    assert data_or_our_error(read_cohort, tmp_path, "data", True) is None


BASE = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.one_of(st.text(max_size=4), st.integers()), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(config, prefix=()):
    for key, value in config.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from places(value, (*prefix, key))


def changed(config, place, value):
    """The config with another value at one key."""
    key, *rest = place
    return {**config, key: changed(config[key], rest, value) if rest else value}


@given(place=st.sampled_from(list(places(BASE))), value=VALUES)
def test_configs(place, value):
    data_or_our_error(check_config, changed(BASE, place, value))


@pytest.fixture(scope="module")
def image_files(tmp_path_factory):
    """The bytes of a small image in the usual formats, and the lengths of the headers."""
    folder, image = tmp_path_factory.mktemp("images"), GRID.image(np.arange(6000, dtype=np.int16).reshape(GRID.shape) - 1000)
    files = {}
    for suffix, header in ((".nii", 352), (".nii.gz", 60), (".mha", 380), (".nrrd", 320), (".dcm", 400)):
        path = folder / f"image{suffix}"
        sitk.WriteImage(image[:, :, 0:1] if suffix == ".dcm" else image, path)
        files[suffix] = path.read_bytes(), header
    return files


@settings(max_examples=100)
@given(
    suffix=st.sampled_from([".nii", ".nii.gz", ".mha", ".nrrd", ".dcm"]),
    place=st.floats(0, 1),
    bits=st.binary(min_size=1, max_size=4),
    end=st.floats(0.01, 4),
)
def test_image_headers(suffix, place, bits, end, image_files, tmp_path):
    """Some bytes of a header are changed, and some files end too soon."""
    data, header = image_files[suffix]
    start = int(place * header)
    data = data[:start] + bits + data[start + len(bits) :]
    path = tmp_path / f"image{suffix}"
    path.write_bytes(data[: int(end * len(data))])
    grid = data_or_our_error(read_grid, path)
    if grid is not None and np.prod(grid.size, dtype=float) < 1e7:
        image = data_or_our_error(read_image, path)
        assert image is None or np.isfinite(sitk.GetArrayViewFromImage(image).astype(float)).all()


def test_a_file_of_random_bytes_raises_our_error(tmp_path):
    path = tmp_path / "points.txt"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="cannot be read as a landmark file"):
        read_landmarks(path)
