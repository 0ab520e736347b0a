"""NIfTI images with two positions: a sheared sform, and an sform and a qform that disagree.

Public report: ITK issue 3994. Of a sheared sform beside an orthonormal qform, ITK takes the qform, up to 15 mm away, and only
warns; of a scaled sform it takes the directions and the spacing of pixdim.
"""

import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.images.transforms import read_field
from regnet.images.volumes import Grid, read_grid, read_image, read_mask

GRID = Grid((40, 36, 20), (0.75, 0.875, 2.5), (-10.0, 5.0, 30.0))

CODES, SFORM, OFFSET = 252, 280, 268
"""Bytes of a NIfTI header: the codes of qform and sform, the matrix of the sform, the offset of the qform."""


@pytest.fixture
def oblique(oblique_grid):
    return Grid(GRID.size, GRID.spacing, oblique_grid.origin, oblique_grid.direction)


def write(path, grid, codes=(1, 1), change=lambda sform: None, offset=(0, 0, 0)):
    """Write an image with other codes, sform and qform offset than ITK gives it."""
    sitk.WriteImage(grid.image(np.full(grid.shape, -800, np.int16)), path)
    packed = path.name.endswith(".gz")
    data = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    sform = np.reshape(struct.unpack_from("<12f", data, SFORM), (3, 4)).copy()
    change(sform)
    struct.pack_into("<12f", data, SFORM, *sform.ravel())
    struct.pack_into("<3f", data, OFFSET, *np.add(struct.unpack_from("<3f", data, OFFSET), offset))
    struct.pack_into("<2h", data, CODES, *codes)
    path.write_bytes(gzip.compress(data) if packed else data)


def shear(sform):
    sform[0, 1] += 0.3


def double(sform):
    sform[:, 2] *= 2


def shift(millimetres):
    def change(sform):
        sform[2, 3] += millimetres

    return change


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.img"])
@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 2)])
def test_a_sheared_sform_is_refused(codes, name, oblique, tmp_path):
    for grid in (GRID, oblique):
        write(tmp_path / "ct.nii", grid, codes, shear)
        if name == "ct.nii.gz":
            (tmp_path / name).write_bytes(gzip.compress((tmp_path / "ct.nii").read_bytes()))
        if name == "ct.img":
            data = bytearray((tmp_path / "ct.nii").read_bytes())
            data[344:348], data[108:112] = b"ni1\0", bytes(4)
            (tmp_path / "ct.hdr").write_bytes(data[:348])
            (tmp_path / name).write_bytes(data[352:])
        for read in (read_grid, read_image, read_mask):
            with pytest.raises(InputError, match=rf"{name}: .*found a sheared sform, expected axes at right angles"):
                read(tmp_path / name)


@pytest.mark.parametrize("change", [double, shift(3.0)])
@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1)])
def test_disagreeing_positions_are_refused(codes, change, oblique, tmp_path):
    for grid in (GRID, oblique):
        write(tmp_path / "ct.nii.gz", grid, codes, change)
        with pytest.raises(InputError, match=r"found (sform and qform|qform and sform) that place voxels .* mm apart"):
            read_grid(tmp_path / "ct.nii.gz")


def test_the_distance_is_named(tmp_path):
    write(tmp_path / "ct.nii.gz", GRID, change=shift(3.0))
    with pytest.raises(InputError, match=r"ct\.nii\.gz: .* that place voxels 3 mm apart, expected one position"):
        read_image(tmp_path / "ct.nii.gz")
    write(tmp_path / "ct.nii.gz", GRID, codes=(0, 1), change=double)
    with pytest.raises(InputError, match=r"found sform and pixdim that place voxels 47\.5 mm apart"):
        read_image(tmp_path / "ct.nii.gz")


def test_one_position_is_enough(oblique, tmp_path):
    """With the code 0, the other one may hold anything; and rounding does not matter."""
    for grid in (GRID, oblique):
        for codes, change, offset in (
            ((1, 0), shear, (0, 0, 0)),
            ((0, 1), lambda sform: None, (9, 9, 9)),
            ((1, 1), shift(0.05), (0, 0, 0)),
            ((1, 1), lambda sform: None, (0, 0, 0)),
        ):
            write(tmp_path / "ct.nii.gz", grid, codes, change, offset)
            found = Grid.of(read_image(tmp_path / "ct.nii.gz"))
            assert found.size == grid.size
            np.testing.assert_allclose(found.corners(), grid.corners(), atol=0.06)


@pytest.mark.parametrize(
    "direction", [(-1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 0, 0, 0, -1, 0, 0, 0, -1), (0, 1, 0, 1, 0, 0, 0, 0, 1)]
)
def test_flipped_and_swapped_axes_are_read(direction, tmp_path):
    """Both handednesses, which a qform holds in the sign of pixdim."""
    grid = Grid(GRID.size, GRID.spacing, GRID.origin, tuple(map(float, direction)))
    for codes in ((1, 1), (1, 0), (0, 1)):
        write(tmp_path / "ct.nii.gz", grid, codes)
        np.testing.assert_allclose(read_grid(tmp_path / "ct.nii.gz").corners(), grid.corners(), atol=1e-4)


def test_a_field_with_two_positions_is_refused(tmp_path):
    path = tmp_path / "dvf.nii"
    sitk.WriteImage(GRID.image(np.zeros((*GRID.shape, 3), np.float32)), path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, SFORM + 4, 0.3)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"dvf\.nii: .*found a sheared sform"):
        read_field(path)
