"""Landmark files: round trips through every format and oblique images, how formats are recognized, and what is refused."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.cli import main
from regnet.errors import InputError
from regnet.images.landmark_formats import LANDMARK_FORMATS, SLICER_FORMATS, VOXEL_FORMATS
from regnet.images.landmarks import landmark_kind, read_landmark_pair, read_landmarks, write_landmarks
from regnet.images.volumes import Grid

NAMES = {
    **dict.fromkeys(("point", "index", "dirlab"), "points.txt"),
    **dict.fromkeys(("table", "learn2reg"), "points.csv"),
    "fcsv": "points.fcsv",
    "markups": "points.mrk.json",
    "pts": "points.pts",
}

INDICES = np.array([[3.0, 40.0, 11.25], [0.0, 0.0, 0.0], [59.0, 51.0, 46.0]])
"""Indices (x, y, z) in the oblique grid, including its first and last voxel."""


def mirrored(grid):
    """The same voxels with the slices in the opposite order."""
    direction = np.reshape(grid.direction, (3, 3)) * [1, 1, -1]
    return Grid(grid.size, grid.spacing, tuple(grid.points([0, 0, grid.size[2] - 1])), tuple(direction.ravel()))


def oriented(grid, name):
    """A grid of the same size in another orientation: LPS is ITK's identity, RAS nibabel's, oblique the grid's own."""
    signs = {"LPS": (1, 1, 1), "RAS": (-1, -1, 1), "LAS": (1, -1, 1)}.get(name)
    return grid if signs is None else Grid(grid.size, (0.8, 0.9, 2.5), grid.origin, tuple(np.diag(signs).ravel().tolist()))


SYSTEMS = [(kind, "LPS") for kind in LANDMARK_FORMATS] + [(kind, "RAS") for kind in SLICER_FORMATS]
"""The kinds of files with the coordinate systems that each may have."""


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAS", "oblique"])
@pytest.mark.parametrize("turned", [False, True], ids=["first slice below", "first slice on top"])
@pytest.mark.parametrize(("kind", "system"), SYSTEMS, ids="-".join)
def test_every_kind_survives_a_round_trip(kind, system, turned, orientation, oblique_grid, tmp_path):
    grid = oriented(oblique_grid, orientation)
    grid = mirrored(grid) if turned else grid
    points, path = grid.points(INDICES), tmp_path / NAMES[kind]
    write_landmarks(points, path, kind, grid, system)
    assert landmark_kind(path) == kind
    np.testing.assert_allclose(read_landmarks(path, grid), points, atol=2e-4)
    # Writing what was read makes the same file again.
    again = tmp_path / f"again_{NAMES[kind]}"
    write_landmarks(read_landmarks(path, grid), again, kind, grid, system)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", SLICER_FORMATS)
def test_points_written_in_ras(kind, tmp_path):
    """The file itself, not only our reader's result: x and y have the other sign, and the file says RAS."""
    write_landmarks(np.array([[1.5, -2.0, 30.0]]), tmp_path / NAMES[kind], kind, system="RAS")
    text = (tmp_path / NAMES[kind]).read_text(encoding="utf-8")
    if kind == "fcsv":
        assert "# CoordinateSystem = RAS\n" in text
        assert text.splitlines()[-1].startswith("1,-1.5000,2.0000,30.0000,")
    else:
        (markup,) = json.loads(text)["markups"]
        assert (markup["coordinateSystem"], markup["controlPoints"][0]["position"]) == ("RAS", [-1.5, 2.0, 30.0])
    with pytest.raises(ValueError, match="expected 'LPS' for landmarks of the kind 'point'"):
        write_landmarks(np.zeros((1, 3)), tmp_path / "points.txt", "point", system="RAS")


def test_points_are_converted_from_kind_to_kind(oblique_grid, tmp_path, capfd):
    """Each kind is converted to the next: the last file has the points of the first, whatever its numbers are."""
    sitk.WriteImage(oblique_grid.image(np.zeros(oblique_grid.shape, np.int16)), tmp_path / "image.nii.gz")
    path, points = tmp_path / "0.txt", oblique_grid.points(INDICES)
    write_landmarks(points, path)
    for number, (kind, system) in enumerate(SYSTEMS, start=1):
        target = tmp_path / f"{number}_{NAMES[kind]}"
        options = ["--image", str(tmp_path / "image.nii.gz"), "--kind", kind, "--system", system, "--output", str(target)]
        assert main(["convert-points", str(path), *options]) == 0
        assert landmark_kind(target) == kind
        path = target
    np.testing.assert_allclose(read_landmarks(path, oblique_grid), points, atol=2e-3)
    assert capfd.readouterr().out.count("3 points: ") == len(SYSTEMS)


def test_voxel_numbers_count_as_their_format_does(oblique_grid, tmp_path):
    """The same voxel in each convention: x 3, y 40, and 11 slices from the lowest of 47, which is the 36th from the top."""
    texts = {
        "index.txt": "index\n1\n3 40 11\n",
        "learn2reg.csv": "3.000,40.000,11.000\n",
        "dirlab.txt": " 4.000000\t 41.000000\t 36.000000\t\r\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
        for grid, z in ((oblique_grid, 11), (mirrored(oblique_grid), 35 if name == "dirlab.txt" else 11)):
            np.testing.assert_allclose(read_landmarks(tmp_path / name, grid), grid.points([[3, 40, z]]))


@pytest.mark.parametrize(("system", "signs"), [("LPS", (1, 1)), ("RAS", (-1, -1)), ("0", (-1, -1)), ("1", (1, 1))])
def test_slicer_files_state_their_coordinate_system(system, signs, tmp_path):
    header = f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {system}\n# columns = id,x,y,z,ow\n"
    (tmp_path / "points.fcsv").write_text(f"{header}F_0,1.5,-2,30,0,0,0,1,1,1,0,F-1,,,2,0\n", encoding="utf-8")
    markup = {"coordinateSystem": system, "controlPoints": [{"label": "F-1", "position": [1.5, -2, 30]}]}
    (tmp_path / "points.mrk.json").write_text(json.dumps({"markups": [markup]}), encoding="utf-8")
    for name in ("points.fcsv", "points.mrk.json"):
        np.testing.assert_array_equal(read_landmarks(tmp_path / name), [[1.5 * signs[0], -2 * signs[1], 30]])


def test_voxel_numbers_refer_to_their_own_image(oblique_grid, tmp_path):
    """The two files of the pair are of different kinds, and each refers to its own image."""
    moving_grid = Grid((30, 20, 10), (1.0, 1.5, 3.0), (5.0, 6.0, 7.0))
    sitk.WriteImage(moving_grid.image(np.zeros(moving_grid.shape, np.int16)), tmp_path / "moving.mha")
    (tmp_path / "fixed.txt").write_text("1 1 1\n", encoding="utf-8")
    (tmp_path / "moving.csv").write_text("1,2,3\n", encoding="utf-8")
    fixed, moving = read_landmark_pair(tmp_path / "fixed.txt", tmp_path / "moving.csv", (oblique_grid, tmp_path / "moving.mha"))
    np.testing.assert_allclose(fixed, oblique_grid.points([[0, 0, 46]]))
    np.testing.assert_allclose(moving, [[6, 9, 16]])


@pytest.mark.parametrize("kind", ["markups", "fcsv", "pts", "table"])
def test_moved_points_keep_the_kind_of_their_file(kind, tmp_path):
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, -2.0, 30.0)), tmp_path / "shift.tfm")
    path, moved = tmp_path / NAMES[kind], tmp_path / f"moved_{NAMES[kind]}"
    write_landmarks(INDICES, path, kind)
    assert main(["transform-points", str(path), "--transform", str(tmp_path / "shift.tfm"), "--output", str(moved)]) == 0
    assert landmark_kind(moved) == kind
    np.testing.assert_allclose(read_landmarks(moved), np.add(INDICES, [1, -2, 30]))


@pytest.mark.parametrize("kind", VOXEL_FORMATS)
def test_voxel_numbers_outside_the_image_or_without_one_are_refused(kind, oblique_grid, tmp_path):
    path = tmp_path / NAMES[kind]
    write_landmarks(oblique_grid.points([[3, 4, 5], [3, 4, 47]]), path, kind, oblique_grid)
    with pytest.raises(InputError, match=r"landmark 2 at .*expected voxel numbers in an image of \(60, 52, 47\) voxels"):
        read_landmarks(path, oblique_grid)
    with pytest.raises(InputError, match=r"found voxel numbers .*, expected points in mm"):
        read_landmarks(path)
    with pytest.raises(ValueError, match="grid: found none"):
        write_landmarks(INDICES, path, kind)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.fcsv", "1,2,3,4\n", "no line '# CoordinateSystem = '"),
        ("a.fcsv", "# CoordinateSystem = 2\n1,2,3,4\n", "coordinate system '2', expected LPS or RAS"),
        ("a.fcsv", "# CoordinateSystem = LPS\n1,2,x,4\n", "expected id,x,y,z"),
        ("a.fcsv", "# CoordinateSystem = LPS\n", "found no points"),
        ("a.mrk.json", "{", "JSONDecodeError"),
        ("a.mrk.json", '{"markups": []}', "expected one list of control points"),
        ("a.mrk.json", '{"markups": [{"coordinateSystem": "LPS", "controlPoints": [{}]}]}', "KeyError: 'position'"),
        ("a.pts", "#X Y Z\n", "found no points"),
        ("a.csv", "1,2,3\n1,2\n", "expected three numbers"),
        ("a.csv", "1,2,3,4,5,6\n", "found 6 numbers in each row"),
        ("a.txt", "1 2 3\nnan 2 3\n", "expected finite points"),
        ("a.txt", "1 2\n", "starts with '1 2'"),
        ("a.txt", "point\n", "found no points"),
    ],
)
def test_damaged_landmark_files_are_refused(name, text, reason, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=reason) as caught:
        read_landmarks(tmp_path / name, Grid((9, 9, 9), (1.0, 1.0, 1.0)))
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_landmarks_survive_the_disk(tmp_path, rng):
    points = rng.normal(0, 100, (7, 3))
    write_landmarks(points, tmp_path / "points.txt")
    np.testing.assert_allclose(read_landmarks(tmp_path / "points.txt"), points, atol=5e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty file"),
        ("indices\n1\n1 2 3\n", "starts with 'indices'"),
        ("point\n2\n1 2 3\n", "expected 2 finite points"),
        ("point\n1\n1 2 x\n", "three numbers"),
        ("point\n1\n1 2\n", "expected 1 finite points"),
        ("point\n1\n1 2 nan\n", "expected 1 finite points"),
    ],
)
def test_other_text_is_refused_as_landmarks(text, reason, tmp_path):
    (tmp_path / "points.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"points\.txt: .*{reason}"):
        read_landmarks(tmp_path / "points.txt")


def test_landmarks_of_a_pair_have_equal_numbers(tmp_path):
    write_landmarks(np.zeros((3, 3)), tmp_path / "fixed.txt")
    write_landmarks(np.zeros((4, 3)), tmp_path / "moving.txt")
    with pytest.raises(InputError, match=r"moving\.txt: found 4 landmarks, expected 3"):
        read_landmark_pair(tmp_path / "fixed.txt", tmp_path / "moving.txt")
