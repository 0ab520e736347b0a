"""Tables and slices survive a round trip through their files, and errors name broken files."""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.evaluation import landmark_errors, long_tables
from regnet.evaluation.long_tables import LANDMARK_COLUMNS
from regnet.images.volumes import Grid


def pair():
    """Two landmarks: 8 mm and 13 mm off after affine; RegNet leaves 3 (x 1, y -2, z 2) and 10 mm."""
    fixed = np.zeros((2, 3))
    moving = np.array([[8.0, 0, 0], [3.0, 4, 12]])
    transforms = {"affine": sitk.TranslationTransform(3), "regnet": sitk.TranslationTransform(3, (9.0, -2.0, 2.0))}
    return landmark_errors.pair_errors("p1", transforms, fixed, moving, 8.0, Grid((9, 9, 9), (1.0, 1.0, 1.0)))


def test_errors_survive_a_round_trip(tmp_path):
    table = pair().assign(pair="007")
    long_tables.write_errors(table, tmp_path / "landmarks.csv")
    read = long_tables.read_errors(tmp_path / "landmarks.csv", LANDMARK_COLUMNS)
    assert read["pair"].unique().tolist() == ["007"]
    assert read["within_capture_range"].dtype == bool
    np.testing.assert_array_equal(read["error"], table["error"])


def test_a_table_without_rows_survives_a_round_trip(tmp_path):
    long_tables.write_errors(long_tables.collect([], LANDMARK_COLUMNS), tmp_path / "landmarks.csv")
    table = long_tables.read_errors(tmp_path / "landmarks.csv", LANDMARK_COLUMNS)
    assert table.empty
    assert table["within_capture_range"].dtype == bool


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method,pair\n", "lacks the columns landmark, fixed_x"),
        ("", "cannot be read as a table"),
        (",".join(LANDMARK_COLUMNS) + "\n" + "affine,p,0" + ",1" * 9 + ",,1,1,1,1,True\n", "does not fit its column"),
    ],
)
def test_broken_tables_are_named(tmp_path, text, message):
    (tmp_path / "landmarks.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"landmarks\.csv: .*{message}"):
        long_tables.read_errors(tmp_path / "landmarks.csv", LANDMARK_COLUMNS)


def test_broken_slices_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.npz: cannot be read"):
        long_tables.read_slices(tmp_path / "none.npz", ["ct"])
    (tmp_path / "text.npz").write_text("text", encoding="utf-8")
    with pytest.raises(InputError, match=r"text\.npz: cannot be read"):
        long_tables.read_slices(tmp_path / "text.npz", ["ct"])
    long_tables.save_slices(tmp_path / "slices.npz", {"ct": np.zeros((2, 2))})
    with pytest.raises(InputError, match=r"slices\.npz: lacks the arrays low; found ct"):
        long_tables.read_slices(tmp_path / "slices.npz", ["ct", "low"])


def test_only_certain_columns_may_have_missing_numbers(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("method,pair,seconds,memory_mb\nNA,nan,1.5,nan\n", encoding="utf-8")
    runs = long_tables.read_errors(path, long_tables.RUN_COLUMNS)
    assert runs.loc[0, ["method", "pair", "seconds"]].tolist() == ["NA", "nan", 1.5]
    assert np.isnan(runs.loc[0, "memory_mb"])
    long_tables.write_errors(runs, path)
    assert long_tables.read_errors(path, long_tables.RUN_COLUMNS).equals(runs)
    path.write_text("method,pair,seconds,memory_mb\nNA,nan,nan,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"runs\.csv: a value does not fit"):
        long_tables.read_errors(path, long_tables.RUN_COLUMNS)


def test_benchmark_files_hold_time_and_memory_of_a_job(tmp_path):
    path = tmp_path / "p1.tsv"
    header = "s\th:m:s\tmax_rss\tmax_vms\tcpu_time\n"
    path.write_text(f"{header}12.5\t0:00:12\t512.25\t900\t20.5\n", encoding="utf-8")
    assert long_tables.read_benchmark(path) == {"s": 12.5, "max_rss": 512.25, "cpu_time": 20.5}
    for missing in ("NA", "-"):
        path.write_text(f"{header}0.1\t0:00:00\t{missing}\t{missing}\t0\n", encoding="utf-8")
        job = long_tables.read_benchmark(path)
        assert job["s"] == 0.1
        assert np.isnan(job["max_rss"])
    for broken in ("", "a\tb\n1\t2\n", "s\tmax_rss\n1\t3\n", "s\tmax_rss\tcpu_time\nfast\t3\t1\n"):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(InputError, match=r"p1\.tsv: cannot be read (as a table|.*expected a benchmark file of Snakemake)"):
            long_tables.read_benchmark(path)


def test_a_table_keeps_names_and_may_have_missing_numbers(tmp_path):
    path = tmp_path / "comparison.csv"
    path.write_text("method,n,mean,few\nnan,3,,True\n7,0,1.5,False\n", encoding="utf-8")
    table = long_tables.read_table(path, ["method", "n", "mean", "few"])
    assert table["method"].tolist() == ["nan", "7"]
    assert np.isnan(table["mean"][0])
    assert (table["n"].dtype, table["few"].dtype) == (int, bool)
    with pytest.raises(InputError, match=r"comparison\.csv: lacks the columns sd; found method, n"):
        long_tables.read_table(path, ["method", "sd"])
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        long_tables.read_table(tmp_path / "none.csv", ["method"])
