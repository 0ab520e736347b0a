"""Table 2.1 against cells worked out by hand, and the formats of its files."""

import re

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from regnet.evaluation import landmark_errors, point_errors
from regnet.evaluation.long_tables import LANDMARK_COLUMNS, POINT_COLUMNS, collect
from regnet.images.volumes import Grid
from regnet.presentation import table_2_1

CHAPTER_ROWS = [
    *(("MAE", variant, "validation") for variant in ("regnet_1scale", "regnet_early", "regnet")),
    ("MAE", "regnet", "test"),
    *(("TRE", method, "test") for method in ("affine", "bspline_1r", "bspline_3r", "regnet")),
    *(("TRE'", method, "test") for method in ("affine", "bspline_1r", "bspline_3r", "regnet")),
]


GRID = Grid((9, 9, 9), (1.0, 1.0, 1.0))


def landmarks(*more_methods):
    """Two pairs. Affine errors 5 (3, 4, 0), 8, 13 mm; RegNet leaves 1, 2 and 10 mm, all along z."""
    fixed = np.zeros((2, 3))

    def errors(pair, moving, regnet):
        transforms = {"affine": sitk.Transform(3, sitk.sitkIdentity)}
        table = landmark_errors.pair_errors(pair, transforms, fixed[: len(moving)], np.array(moving, float), 8.0, GRID)
        network = table.assign(method="regnet", error=regnet, error_x=0.0, error_y=0.0, error_z=regnet)
        return [table, network, *(network.assign(method=name) for name in more_methods)]

    frames = [*errors("p1", [[3, 4, 0], [0, 0, 8]], [1.0, 2.0]), *errors("p2", [[3, 4, 12]], [10.0])]
    return collect(frames, LANDMARK_COLUMNS)


def synthetic(*keys):
    frames = []
    for variant, split in keys:
        truth, prediction = np.array([[1.0, -2, 3], [0, 0, -3]]), np.array([[1.5, -1, 1.5], [0, 0, -2]])
        for image in ("i1", "i2"):
            points = np.zeros((2, 3))
            frames.append(point_errors.point_errors(variant, split, image, "original", "low", points, truth, prediction))
    return collect(frames, POINT_COLUMNS)


@pytest.fixture
def table():
    everything = synthetic(("regnet", "validation"), ("regnet", "test"))
    return table_2_1.table_2_1(landmarks(), everything, {"regnet": {"patches_seen": 1_500_000, "blocks_seen": 1_000}})


def row(table, evaluation_name, method, data="test"):
    keys = (table["evaluation"] == evaluation_name) & (table["method"] == method) & (table["data"] == data)
    return table[keys].squeeze()


def test_rows_and_their_order_are_the_chapters(table):
    assert list(table.columns) == table_2_1.COLUMNS
    assert list(table[["evaluation", "method", "data"]].itertuples(index=False, name=None)) == CHAPTER_ROWS


def test_mae_row_by_hand(table):
    cells = row(table, "MAE", "regnet", "validation")
    assert (cells["n"], cells["n_cases"], cells["patches_seen"], cells["blocks_seen"]) == (4, 2, 1_500_000, 1_000)
    assert cells["measure_mean"] == 2
    assert cells["measure_sd"] == pytest.approx(np.sqrt(4 / 3))
    assert cells["zero_field_mae"] == 4.5
    assert cells["z_mean"] == 1.25


def test_tre_rows_by_hand(table):
    affine, regnet = row(table, "TRE", "affine"), row(table, "TRE", "regnet")
    assert (affine["n"], affine["n_cases"]) == (3, 2)
    assert affine["measure_mean"] == pytest.approx(26 / 3)
    assert affine["measure_sd"] == pytest.approx(np.std([5, 8, 13], ddof=1))
    assert affine["y_mean"] == pytest.approx(8 / 3)
    assert affine["median"] == 8
    assert regnet["measure_mean"] == pytest.approx(13 / 3)


def test_tre_prime_keeps_the_landmarks_within_the_capture_range_of_affine(table):
    affine, regnet = row(table, "TRE'", "affine"), row(table, "TRE'", "regnet")
    assert (affine["n"], affine["n_cases"], affine["measure_mean"]) == (2, 1, 6.5)
    assert (regnet["n"], regnet["measure_mean"], regnet["z_mean"]) == (2, 1.5, 1.5)


def test_mae_is_the_sum_of_its_axes_and_tre_is_not(table):
    mae, tre = (table[(table["evaluation"] == name) & (table["n"] > 0)] for name in ("MAE", "TRE"))
    np.testing.assert_allclose(mae["measure_mean"], mae[["x_mean", "y_mean", "z_mean"]].sum(axis=1))
    assert row(tre, "TRE", "affine")[["x_mean", "y_mean", "z_mean"]].sum() > row(tre, "TRE", "affine")["measure_mean"] + 1


def test_the_chapters_numbers_keep_its_identities(table):
    """The transcribed numbers: an MAE is the sum over axes within rounding, a TRE is below that sum."""
    sums = table[["chapter_x_mean", "chapter_y_mean", "chapter_z_mean"]].sum(axis=1)
    mae = table["evaluation"] == "MAE"
    assert (abs(sums - table["chapter_measure_mean"])[mae] < 0.0151).all()
    assert (sums > table["chapter_measure_mean"] + 0.3)[~mae].all()
    assert table["chapter_n"].tolist()[3:9] == [pd.NA, 685, 685, 685, 685, 503]


@pytest.mark.parametrize(
    ("key", "numbers"),
    [
        (("MAE", "regnet_early", "validation"), [1.26, 1.22, 0.41, 0.51, 0.39, 0.48, 0.45, 0.60]),
        (("TRE", "bspline_3r", "test"), [2.19, 6.22, 0.67, 1.97, 1.04, 5.07, 1.45, 3.21]),
        (("TRE'", "regnet", "test"), [1.66, 1.26, 0.58, 0.62, 0.64, 0.77, 1.19, 1.10]),
    ],
)
def test_the_chapters_cells(table, key, numbers):
    columns = [f"chapter_{name}_{statistic}" for name in table_2_1.MEASURES for statistic in ("mean", "sd")]
    assert row(table, *key)[columns].tolist() == numbers


def test_rows_without_data_stay(table):
    empty = row(table, "TRE", "bspline_1r")
    assert (empty["n"], empty["chapter_measure_mean"]) == (0, 5.48)
    assert pd.isna(empty["measure_mean"])


def test_no_data_at_all(tmp_path):
    table = table_2_1.table_2_1(landmarks()[:0], synthetic(), {})
    assert len(table) == 12
    assert (table["n"] == 0).all()
    written = write(table, tmp_path)
    assert "| –<br>1.70 ± 1.81 |" in written["md"]


def test_methods_the_chapter_lacks_come_after_its_rows(tmp_path):
    table = table_2_1.table_2_1(landmarks("my_net"), synthetic(("regnet_early", "test")), {})
    added = list(table[["evaluation", "method", "data"]].itertuples(index=False, name=None))[12:]
    assert added == [("MAE", "regnet_early", "test"), ("TRE", "my_net", "test"), ("TRE'", "my_net", "test")]
    written = write(table, tmp_path)
    assert "my\\_net" in written["tex"]
    assert written["md"].count("| **Other methods** |") == written["tex"].count("\\textit{Other methods}") == 1
    assert "This project" not in written["md"]
    assert "| TRE′ | my\\_net | test | ours | 1.50 ± 0.71† |" in written["md"]


def test_this_projects_rows_stand_apart_from_the_chapters_and_before_others(tmp_path):
    keys = [("syn_like", "validation"), ("regnet_pyramid", "validation")]
    table = table_2_1.table_2_1(landmarks("mine", "regnet_refined"), synthetic(*keys), {})
    added = table[["evaluation", "method"]].iloc[12:].agg(" ".join, axis=1).tolist()
    ours = ["MAE regnet_pyramid", "TRE regnet_refined", "TRE' regnet_refined"]
    assert added == [*ours, "MAE syn_like", "TRE mine", "TRE' mine"]
    written = write(table, tmp_path)
    lines = written["md"].splitlines()
    first, second = (
        next(number for number, line in enumerate(lines) if group in line) for group in ("This project", "Other met")
    )
    assert [line.split(" | ")[1] for line in lines[first + 1 : second]] == ["RegNet Pyramid", *["RegNet Refined"] * 2]
    tex = written["tex"]
    assert tex.index("\\textit{This project}") < tex.index("RegNet Refined") < tex.index("\\textit{Other methods}")


def write(table, folder):
    paths = {suffix: folder / f"table_2_1.{suffix}" for suffix in ("csv", "md", "tex")}
    table_2_1.write_table(table, **paths)
    return {suffix: path.read_text(encoding="utf-8") for suffix, path in paths.items()}


def test_numbers_on_fewer_than_ten_landmarks_are_marked(table, tmp_path):
    written = write(table, tmp_path)
    assert "8.67 ± 4.04†" in written["md"]
    assert "| 3†<br>685 |" in written["md"]
    assert "† rests on fewer than 10 landmarks." in written["md"]
    assert "8.67 $\\pm$ 4.04$^\\dagger$" in written["tex"]
    # Points of synthetic pairs are not landmarks.
    assert "2.00 ± 1.15<br>" in written["md"]
    many = pd.concat([landmarks()] * 5, ignore_index=True)
    assert "†" not in write(table_2_1.table_2_1(many, synthetic(), {}), tmp_path)["md"]


def test_csv_has_all_digits(table, tmp_path):
    write(table, tmp_path)
    read = pd.read_csv(tmp_path / "table_2_1.csv")
    np.testing.assert_array_equal(read["measure_sd"], table["measure_sd"])


def test_markdown_has_ours_beside_the_chapters(table, tmp_path):
    text = write(table, tmp_path)["md"]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 14
    assert {len(re.split(r"(?<!\\)\|", line)) for line in rows} == {12}
    assert "| MAE | RegNet | test | ours<br>chapter | 2.00 ± 1.15<br>1.19 ± 1.17 |" in text
    assert "SPREAD" in text
    assert "4.50 mm (RegNet, test)" in text
    assert "RegNet 1,500,000 in 1,000 blocks" in text


def test_what_the_pyramid_saw_is_counted_in_crops(tmp_path):
    facts = {"regnet": {"patches_seen": 10, "blocks_seen": 1}, "regnet_pyramid": {"patches_seen": 823_875, "blocks_seen": 3}}
    everything = synthetic(("regnet", "validation"), ("regnet_pyramid", "validation"))
    text = write(table_2_1.table_2_1(landmarks(), everything, facts), tmp_path)["md"]
    assert "they were cut in: RegNet 10 in 1 blocks. Sokooti" in text
    assert "RegNet Pyramid saw 3 crops." in text


def test_latex_is_well_formed(table, tmp_path):
    text = write(table, tmp_path)["tex"]
    assert text.isascii()
    assert re.findall(r"\\begin{(\w+)}", text) == ["table", "tabular", "minipage"]
    assert sorted(re.findall(r"\\end{(\w+)}", text)) == ["minipage", "table", "tabular"]
    bare = text.replace("\\{", "").replace("\\}", "")
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert len(rows) == 1 + 2 * 12
    assert {line.replace("\\&", "").count("&") for line in rows} == {8}
    assert "TRE$'$ & Affine & test & 6.50 $\\pm$ 2.12$^\\dagger$ &" in text


def test_latex_escapes_names(tmp_path):
    names = "a_b&c%d#e$f{g}~h^i\\j"
    text = write(table_2_1.table_2_1(landmarks(names), synthetic(), {}), tmp_path)["tex"]
    expected = "a\\_b\\&c\\%d\\#e\\$f\\{g\\}\\textasciitilde{}h\\textasciicircum{}i\\textbackslash{}j"
    assert f" & {expected} & test" in text
