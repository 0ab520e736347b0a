"""Tables whose suffix is in capitals or whose header has blanks after the separators: read as any other, with all columns.

Public report: ``.CSV`` lost all columns but x, y and z; ``name, x, y, z`` was said to lack them.
"""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.cli import main
from regnet.datasets.adapters import read_list
from regnet.experiment.cohort import read_cohort
from regnet.images.landmarks import read_landmarks, read_point_table

COLUMNS = {"images": ["image", "subject", "split", "path", "mask"]}
COLUMNS["pairs"] = ["pair", "fixed", "moving", "fixed_landmarks", "moving_landmarks"]

ROWS = {"images": [["a", "a", "train", "a.mha", ""], ["b", "b", "validation", "b.mha", ""], ["c", "c", "test", "c.mha", ""]]}
ROWS["images"].append(["d", "c", "test", "d.mha", ""])
ROWS["pairs"] = [["c", "c", "d", "", ""]]


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".Csv"])
def test_the_suffix_loses_no_columns(suffix, tmp_path, capfd):
    path = tmp_path / f"points{suffix}"
    path.write_text("name,x,y,z,note\n007,1,2,3,first\nNA,4,5,6,\n", encoding="utf-8")
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), tmp_path / "shift.tfm")
    assert main(["transform-points", str(path), "--transform", f"{tmp_path}/shift.tfm"]) == 0
    moved = "name,x,y,z,note\n007,2.0000,4.0000,6.0000,first\nNA,5.0000,7.0000,9.0000,\n"
    assert capfd.readouterr() == (moved, "")


@pytest.mark.parametrize("suffix", [".csv", ".CSV"])
def test_voxel_numbers_in_a_table_without_a_header_need_an_image(suffix, tmp_path, capfd):
    (tmp_path / f"points{suffix}").write_text("1,2,3\n", encoding="utf-8")
    sitk.WriteTransform(sitk.TranslationTransform(3), tmp_path / "identity.tfm")
    assert main(["transform-points", f"{tmp_path}/points{suffix}", "--transform", f"{tmp_path}/identity.tfm"]) == 2
    printed = capfd.readouterr()
    assert "found voxel numbers (Learn2Reg CSV without a header" in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("header", ["name, x, y, z", "name ,x ,y ,z", " name, x , y , z "])
def test_blanks_around_the_names_of_columns(header, tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(f'{header}\n"apex, left", 1, 2, 3\ncarina, -4.5, 5, 6\n', encoding="utf-8")
    np.testing.assert_array_equal(read_landmarks(path), [[1, 2, 3], [-4.5, 5, 6]])
    table, _ = read_point_table(path)
    assert table["name"].tolist() == ["apex, left", "carina"]


@pytest.mark.parametrize("header", ["fixed, moving", "moving ,fixed", " fixed,\tmoving", "fixed\t moving"])
def test_blanks_in_the_header_of_a_list(header, tmp_path):
    header = header.replace(",\t", ", ")
    separator = "\t" if "\t" in header else ","
    sides = [side.strip() for side in header.split(separator)]
    for side in sides:
        (tmp_path / f"{side}.mha").touch()
    cells = f"{separator} ".join(f"{side}.mha" for side in sides)
    (tmp_path / "pairs.csv").write_text(f"{header}\n{cells}\n", encoding="utf-8")
    ((fixed, moving),) = read_list(tmp_path).values()
    assert (fixed.image.name, moving.image.name) == ("fixed.mha", "moving.mha")


def test_blanks_in_the_headers_of_a_cohort(tmp_path):
    for name, columns in COLUMNS.items():
        lines = ["\t ".join(columns), *("\t".join(cells) for cells in ROWS[name])]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    cohort = read_cohort(tmp_path, "data", made_by_workflow=True)
    assert cohort.images["path"].tolist() == [f"data/{name}.mha" for name in "abcd"]
    assert cohort.test_pairs() == ["c"]
