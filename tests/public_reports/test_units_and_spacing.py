"""Units in headers, and spacings and extents that no chest CT has.

Public report: ANTsPy issue 514. Spacings in metres or micrometres led to a traceback of the library.
"""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.cli import main
from regnet.errors import InputError
from regnet.images.transforms import read_field
from regnet.images.volumes import Grid, read_ct, read_grid, read_image, read_mask

GRID = Grid((24, 20, 16), (0.75, 0.875, 2.5), (-10.0, 5.0, 30.0))


def in_unit(millimetres):
    """An image of `GRID` with its spacing and origin in a unit of so many mm."""
    scaled = Grid(GRID.size, *(tuple(value / millimetres for value in values) for values in (GRID.spacing, GRID.origin)))
    return scaled.image(np.full(GRID.shape, -800, np.int16))


def assert_grid(path):
    for grid in (read_grid(path), Grid.of(read_image(path)), Grid.of(read_ct(path)), Grid.of(read_mask(path, GRID))):
        assert grid.size == GRID.size
        np.testing.assert_allclose(grid.spacing, GRID.spacing, rtol=1e-5)
        np.testing.assert_allclose(grid.origin, GRID.origin, rtol=1e-5)


@pytest.mark.parametrize(("code", "millimetres"), [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0)])
def test_nifti_units(code, millimetres, tmp_path):
    sitk.WriteImage(in_unit(millimetres), tmp_path / "ct.nii")
    data = bytearray((tmp_path / "ct.nii").read_bytes())
    data[123] = code | 8
    (tmp_path / "ct.nii").write_bytes(data)
    assert_grid(tmp_path / "ct.nii")


UNITS = [("m", 1000.0), ("cm", 10.0), ("mm", 1.0), ("um", 0.001), ("micron", 0.001), ("", 1.0)]


@pytest.mark.parametrize(("unit", "millimetres"), UNITS)
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_units_of_nrrd_and_metaimage(suffix, unit, millimetres, tmp_path):
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(in_unit(millimetres), path)
    units = " ".join([f'"{unit}"'] * 3)
    line, before = (f"space units: {units}\n", b"kinds:") if suffix == ".nrrd" else (f"DistanceUnits = {unit}\n", b"Offset")
    path.write_bytes(path.read_bytes().replace(before, line.encode() + before, 1))
    if suffix == ".mha" and not unit:
        path.write_bytes(path.read_bytes().replace(b"DistanceUnits = \n", b"DistanceUnits = ?\n"))
    assert_grid(path)


def test_units_of_an_nrrd_without_a_space(tmp_path):
    voxels = np.full(GRID.shape, -800, np.int16).tobytes()
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 24 20 16\nspacings: 0.075 0.0875 0.25\n"
    for units in ('"cm" "cm" "cm"', '"mm" "mm" "cm"'):
        text = f"{header}units: {units}\nendian: little\nencoding: raw\n\n"
        (tmp_path / f"{units[1:3]}.nrrd").write_bytes(text.encode() + voxels)
    np.testing.assert_allclose(read_grid(tmp_path / "cm.nrrd").spacing, GRID.spacing)
    with pytest.raises(InputError, match=r"mm\.nrrd: units: found 'mm', 'mm', 'cm', expected one unit of mm, m, cm or um"):
        read_grid(tmp_path / "mm.nrrd")


@pytest.mark.parametrize("units", ['"inch" "inch" "inch"', '"mm" "mm" "cm"'])
def test_units_that_cannot_be_read_are_refused(units, tmp_path):
    path = tmp_path / "ct.nrrd"
    sitk.WriteImage(in_unit(1.0), path)
    path.write_bytes(path.read_bytes().replace(b"kinds:", f"space units: {units}\nkinds:".encode(), 1))
    with pytest.raises(InputError, match=r"ct\.nrrd: space units: found '.*', expected one unit of mm, m, cm or um"):
        read_grid(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("millimetres", [1000.0, 10.0, 0.001, 1e-9])
def test_a_spacing_in_another_unit_is_refused(millimetres, suffix, tmp_path):
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(in_unit(millimetres), path)
    for read in (read_grid, read_ct, read_mask):
        with pytest.raises(InputError, match=rf"ct{suffix}: found a spacing of .* mm, expected 0\.1 to 25 mm as in a chest CT"):
            read(path)


@pytest.mark.parametrize(
    ("size", "spacing", "found"),
    [((4, 4, 130), (0.75, 0.75, 20.0), "3 x 3 x 2600"), ((60, 4, 60), (20.0, 1.0, 20.0), "1200 x 4 x 1200")],
)
def test_an_extent_that_no_body_has_is_refused(size, spacing, found, tmp_path):
    grid = Grid(size, spacing)
    sitk.WriteImage(grid.image(np.full(grid.shape, -800, np.int16)), tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match=f"found an image of {found} mm, expected at most 1000 x 1000 x 2500 mm as in a CT"):
        read_grid(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize(
    ("name", "field"), [("ct.mha", b"ElementSpacing"), ("ct.nrrd", b"space directions")], ids=["MetaImage", "NRRD"]
)
def test_a_header_without_a_spacing_is_refused(name, field, tmp_path):
    """ITK would take 1 mm."""
    sitk.WriteImage(in_unit(1.0), tmp_path / name)
    lines = (tmp_path / name).read_bytes().split(b"\n")
    left_out = (field, b"space origin") if name == "ct.nrrd" else (field,)
    (tmp_path / name).write_bytes(b"\n".join(line for line in lines if not line.startswith(left_out)))
    with pytest.raises(InputError, match=rf"{name}: "):
        read_grid(tmp_path / name)


def test_thin_and_sparse_slices_are_read(tmp_path):
    for number, spacing in enumerate(((0.2, 0.2, 0.25), (0.98, 0.98, 10.0), (0.7, 0.7, 20.0))):
        grid = Grid(GRID.size, spacing)
        sitk.WriteImage(grid.image(np.full(grid.shape, -800, np.int16)), tmp_path / f"{number}.nii.gz")
        np.testing.assert_allclose(Grid.of(read_ct(tmp_path / f"{number}.nii.gz")).spacing, spacing, rtol=1e-6)


def test_the_nodes_of_a_field_may_be_wider(tmp_path):
    grid = Grid((5, 4, 6), (40.0, 40.0, 60.0))
    sitk.WriteImage(grid.image(np.full((*grid.shape, 3), 2.0)), tmp_path / "dvf.mha")
    assert read_field(tmp_path / "dvf.mha").TransformPoint((40.0, 40.0, 60.0)) == (42.0, 42.0, 62.0)


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_a_field_in_another_unit_is_refused(suffix, tmp_path):
    """ITK would scale its grid or nothing, and its vectors never."""
    path = tmp_path / f"dvf{suffix}"
    sitk.WriteImage(GRID.image(np.zeros((*GRID.shape, 3), np.float32)), path)
    data = bytearray(path.read_bytes())
    data[123] = 1 if suffix == ".nii" else data[123]
    data = data.replace(b"Offset", b"DistanceUnits = cm\nOffset", 1).replace(b"kinds:", b'space units: "m" "m" "m"\nkinds:', 1)
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"dvf\{suffix}: .*found vectors in another unit, expected mm"):
        read_field(path)


@pytest.mark.parametrize("millimetres", [1e-3, 1e6])
def test_the_command_says_so_in_one_line(millimetres, tmp_path, capfd):
    """With such a spacing ITK raises a RuntimeError further down."""
    sitk.WriteImage(in_unit(1.0), tmp_path / "fixed.nii.gz")
    sitk.WriteImage(in_unit(millimetres), tmp_path / "moving.nii.gz")
    assert main(["register", f"{tmp_path}/fixed.nii.gz", f"{tmp_path}/moving.nii.gz", "--output", f"{tmp_path}/out"]) != 0
    (line,) = capfd.readouterr().err.splitlines()
    assert "moving.nii.gz: found a spacing of" in line
    assert not (tmp_path / "out").exists()
