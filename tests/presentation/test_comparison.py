"""The comparison against numbers worked out by hand, and the formats of its files."""

import re

import numpy as np
import pandas as pd
import pytest
from made_landmarks import DRAWS, landmarks

from regnet.evaluation.long_tables import read_table
from regnet.evaluation.significance import paired_tests
from regnet.evaluation.summaries import accuracy, accurate_ranges, capture_curve
from regnet.presentation.comparison import COLUMNS, COST_COLUMNS, comparison, costs, write_capture_curve, write_comparison


def runs():
    rows = [("affine", "p1", 10, 500), ("net", "p1", 4, 900), ("affine", "p2", 20, 700), ("net", "p2", 8, np.nan)]
    rows += [("affine", "p3", 60, 600), ("net", "p3", 2, 800)]
    return pd.DataFrame(rows, columns=["method", "pair", "seconds", "memory_mb"]).astype({"seconds": float, "memory_mb": float})


def regularity():
    rows = [("affine", "p1", 100, 1.0, 0.0, 0.0), ("net", "p1", 100, -0.5, 0.02, 0.1)]
    rows += [("affine", "p2", 300, 0.9, 0.0, 0.0), ("net", "p2", 300, 0.4, 0.0, 0.3)]
    return pd.DataFrame(rows, columns=["method", "pair", "voxels", "min", "folded", "sd_log"])


def field_errors():
    rows = [("affine", "p1", 100, 6.0, 9.0), ("net", "p1", 100, 2.0, 4.0)]
    rows += [("affine", "p2", 300, 4.0, 7.0), ("net", "p2", 300, 1.0, 3.0)]
    return pd.DataFrame(rows, columns=["method", "pair", "voxels", "mean", "p95"])


def ranges(table):
    return accurate_ranges(capture_curve(table, [2, 4, 8], **DRAWS))


@pytest.fixture
def table():
    return landmarks([1.0] * 12 + [3.0] * 12 + [9.0] * 5, [0.5] * 12 + [1.0] * 12 + [7.0] * 5, ("p1", "p2"))


def test_costs_by_hand(table):
    by_method = costs(runs(), regularity(), field_errors(), ranges(table))
    assert list(by_method.columns) == COST_COLUMNS
    affine, net = by_method.loc["affine"], by_method.loc["net"]
    assert (affine["seconds"], affine["seconds_with_affine"], affine["memory_mb"]) == (20, 20, 700)
    # The median of the sums 14, 28 and 62, not the sum of the medians.
    assert (net["seconds"], net["seconds_with_affine"], net["memory_mb"]) == (4, 28, 900)
    assert (net["jacobian_min"], net["folded"], net["sd_log"]) == (-0.5, 0.005, pytest.approx(0.2))
    assert (net["field_error_mean"], net["field_error_p95"]) == (1.25, 3.5)
    assert (affine["held_to"], net["held_to"], bool(net["is_least"])) == (2, 4, False)


def test_without_a_truth_there_is_no_field_error(table):
    assert costs(runs(), regularity(), None, ranges(table))["field_error_mean"].isna().all()


def test_every_row_of_a_method_has_its_costs(table):
    compared = comparison(accuracy(table, [8, 4], **DRAWS), costs(runs(), regularity(), field_errors(), ranges(table)))
    assert list(compared.columns) == COLUMNS
    assert compared["evaluation"].tolist() == ["TRE"] * 2 + ["TRE'"] * 4
    assert compared["seconds"].tolist() == [20, 4] * 3


def test_methods_without_landmarks_have_a_row():
    nothing = landmarks([1.0], 1.0)[:0]
    compared = comparison(accuracy(nothing, [8], **DRAWS), costs(runs(), regularity(), None, ranges(nothing)))
    assert compared[["evaluation", "method", "n"]].to_numpy().tolist() == [["TRE", "affine", 0], ["TRE", "net", 0]]
    assert compared["mean"].isna().all()
    assert compared["seconds"].tolist() == [20, 4]


def write(table, folder):
    compared = comparison(accuracy(table, [8, 4], **DRAWS), costs(runs(), regularity(), field_errors(), ranges(table)))
    names = {"csv": "comparison.csv", "tests_csv": "comparison_tests.csv", "md": "comparison.md", "tex": "comparison.tex"}
    paths = {kind: folder / name for kind, name in names.items()}
    write_comparison(compared, paired_tests(table, [8, 4]), capture_range=8, **paths)
    return compared, {kind: path.read_text(encoding="utf-8") for kind, path in paths.items()}


def cells(markdown):
    return [[cell.strip() for cell in line.split(" | ")] for line in markdown.splitlines() if line.startswith("| ")]


def test_markdown_has_the_numbers_of_the_table(table, tmp_path):
    compared, written = write(table, tmp_path)
    lines = cells(written["md"])
    rows = {tuple(line[:2]): line for line in lines}
    row = compared[(compared["evaluation"] == "TRE") & (compared["method"] == "net")].iloc[0]
    tre = rows["| TRE", "net"]
    assert tre[2] == f"{row['mean']:.2f} ± {row['sd']:.2f}"
    assert tre[3] == f"{row['mean_low']:.2f} to {row['mean_high']:.2f}"
    assert tre[-2:] == ["58", "2 |"]
    assert "| net | 4.0 | 28.0 | 0.88 | −0.50 | 0.500 | 0.200 | 1.25 | 3.50 | 4 (4) |" in written["md"]
    assert "seconds: median over pairs" in written["md"]
    assert "Differences of TRE in mm" in written["md"]
    assert "Differences of TRE′ (8 mm) in mm" in written["md"]
    assert "Differences of TRE′ (4 mm) in mm" not in written["md"]
    assert "TRE′ (4 mm)" in written["md"]
    assert "†" not in written["md"]


def test_numbers_on_few_landmarks_are_marked(tmp_path):
    _, written = write(landmarks([1.0, 2.0, 9.0], [0.5, 1.0, 7.0]), tmp_path)
    rows = {tuple(line[:2]): line for line in cells(written["md"])}
    assert all(cell.endswith("†") for cell in rows["| TRE", "net"][2:-1])
    assert "† rests on fewer than 10 landmarks." in written["md"]
    assert "$^\\dagger$" in written["tex"]
    assert read_table(tmp_path / "comparison.csv", COLUMNS)["few"].all()


def test_csv_has_all_digits_and_all_tests(table, tmp_path):
    compared, _ = write(table, tmp_path)
    read = read_table(tmp_path / "comparison.csv", COLUMNS)
    for column in ("mean", "sd", "median_low", "seconds", "folded"):
        np.testing.assert_array_equal(read[column], compared[column])
    assert len(pd.read_csv(tmp_path / "comparison_tests.csv")) == 3 * 2


def test_latex_is_well_formed(table, tmp_path):
    _, written = write(table, tmp_path)
    text = written["tex"]
    assert text.isascii()
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert begun == ["table", "tabular", "minipage"] * 4
    assert sorted(begun) == sorted(ended)
    bare = text.replace("\\{", "").replace("\\}", "")
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    for part in text.split("\\begin{tabular}")[1:]:
        columns = re.match(r"{@{}([lr]+)@{}}", part).group(1)
        for line in part.split("\\end{tabular}")[0].splitlines():
            if line.endswith("\\\\"):
                assert line.replace("\\&", "").count("&") == len(columns) - 1, line


def test_the_capture_curve_is_written(table, tmp_path):
    curve = capture_curve(table, [2, 4, 8], **DRAWS)
    write_capture_curve(curve, csv=tmp_path / "capture_range.csv", md=tmp_path / "capture_range.md")
    read = read_table(tmp_path / "capture_range.csv", curve.columns)
    pd.testing.assert_frame_equal(read, curve, check_dtype=False)
    text = (tmp_path / "capture_range.md").read_text(encoding="utf-8")
    lines = cells(text)
    assert lines[0] == ["| after affine", "landmarks", "pairs", "Affine", "net |"]
    assert [line[0] for line in lines[2:]] == ["| 0 to 2", "| 2 to 4", "| 8 and more", "| holds to (2.5 mm)"]
    assert lines[3][1:3] == ["24", "2"]
    assert lines[3][4].startswith("1.00 (1.00 to 1.00)")
    assert lines[-1][4] == "4 (4) |"


def test_the_capture_curve_without_landmarks_has_no_rows(tmp_path):
    curve = capture_curve(landmarks([1.0], 1.0)[:0], [2, 4], **DRAWS)
    write_capture_curve(curve, csv=tmp_path / "capture_range.csv", md=tmp_path / "capture_range.md")
    assert len(cells((tmp_path / "capture_range.md").read_text(encoding="utf-8"))) == 2
