"""Points that 3D Slicer marks as not set, in ``.fcsv`` and ``.mrk.json``: refused by name.

Public report: 3D Slicer 5 writes the status of a point into the 15th cell of its row in ``.fcsv`` (0 undefined, 1 preview,
2 defined, 3 missing), and the last coordinates of points that are no longer set. Read as points they gave a TRE of 97 mm.
"""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.cli import main
from regnet.errors import InputError
from regnet.images.landmarks import read_landmarks

HEADER = (
    "# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
)


def fcsv(path, *rows):
    """Write points, each x, y, z, label and the cells that follow the label."""
    lines = [f"{number},{x},{y},{z},0,0,0,1,1,1,0,{label},{rest}\n" for number, (x, y, z, label, rest) in enumerate(rows)]
    path.write_text(HEADER + "".join(lines), encoding="utf-8")


def markups(path, *controls, **others):
    content = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": list(controls), **others}]}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(("status", "name"), [("0", "undefined"), ("1", "preview"), ("3", "missing")])
def test_fcsv_with_points_that_are_not_set(status, name, tmp_path):
    path = tmp_path / "points.fcsv"
    fcsv(path, (1, 2, 3, "carina", ",,2,0"), (97, 0, 0, '"apex, left"', f",,{status},0"))
    with pytest.raises(InputError, match=rf"points\.fcsv: found points that are not set: 'apex, left' \({name}\)"):
        read_landmarks(path)


@pytest.mark.parametrize(
    "rest", [",,2,0", ",", ",,", ",,,", '"left, upper",vtkMRMLScalarVolumeNode1,2,0', "left, upper,vtkMRMLScalarVolumeNode1"]
)
def test_fcsv_with_points_that_are_set(rest, tmp_path):
    """Slicer 4 writes no status; commas in a description move the cells behind it, unless it is quoted."""
    fcsv(tmp_path / "points.fcsv", (1, 2, 3, "F-1", rest), (4, 5, 6, "F-2", ",,2,0"))
    np.testing.assert_array_equal(read_landmarks(tmp_path / "points.fcsv"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("status", ["undefined", "preview", "missing"])
@pytest.mark.parametrize("position", [[], "", None, [97.0, 0.0, 0.0]])
def test_markups_with_points_that_are_not_set(status, position, tmp_path):
    point = {"label": "apex", "position": position, "positionStatus": status}
    markups(tmp_path / "points.mrk.json", {"label": "carina", "position": [1, 2, 3], "positionStatus": "defined"}, point)
    with pytest.raises(InputError, match=rf"points that are not set: 'apex' \({status}\)") as caught:
        read_landmarks(tmp_path / "points.mrk.json")
    assert "\n" not in str(caught.value)
    assert "array" not in str(caught.value)


@pytest.mark.parametrize(
    "position",
    [[], [1, 2], [1, 2, 3, 4], "", "123", None, [1, 2, "3"], [1, 2, True], [1, 2, None], [10**400, 1, 2], [[1], 2, 3]],
)
def test_positions_that_are_none_are_named(position, tmp_path):
    markups(tmp_path / "points.mrk.json", {"label": "carina", "position": [1, 2, 3]}, {"label": "apex", "position": position})
    with pytest.raises(InputError, match=r"points\.mrk\.json: found the position .* of 'apex', expected three finite numbers"):
        read_landmarks(tmp_path / "points.mrk.json")


def test_units_other_than_mm_are_refused(tmp_path):
    point = {"label": "carina", "position": [1, 2, 3]}
    for units in ("mm", ["mm", "mm", "mm"]):
        markups(tmp_path / "points.mrk.json", point, coordinateUnits=units)
        np.testing.assert_array_equal(read_landmarks(tmp_path / "points.mrk.json"), [[1, 2, 3]])
    markups(tmp_path / "points.mrk.json", point, coordinateUnits="um")
    with pytest.raises(InputError, match="found the coordinate units 'um', expected mm"):
        read_landmarks(tmp_path / "points.mrk.json")


def test_the_command_prints_one_line(tmp_path, capfd):
    sitk.WriteTransform(sitk.TranslationTransform(3), tmp_path / "identity.tfm")
    fcsv(tmp_path / "fixed.fcsv", (1, 2, 3, "F-1", ",,2,0"), (4, 5, 6, "F-2", ",,2,0"))
    fcsv(tmp_path / "moving.fcsv", (1, 2, 3, "F-1", ",,2,0"), (97, 5, 6, "F-2", ",,0,0"))
    arguments = [f"{tmp_path}/fixed.fcsv", f"{tmp_path}/moving.fcsv", "--transform", f"{tmp_path}/identity.tfm"]
    assert main(["evaluate", *arguments]) == 2
    assert capfd.readouterr() == (
        "",
        f"regnet: error: {tmp_path}/moving.fcsv: found points that are not set: 'F-2' (undefined); "
        "expected only points with the status defined\n",
    )
