"""NIfTI twins: the voxels of the file that was named, whatever lies beside it.

Public report: ITK issue 2243. Asked for ``scan.nii.gz``, ITK took the voxels of ``scan.nii`` beside it, without a word.
"""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.images.transforms import read_field
from regnet.images.volumes import Grid, read_ct, read_grid, read_image, read_mask, read_slice

GRID = Grid((8, 7, 6), (0.75, 0.875, 2.5), (-10.0, 5.0, 30.0))
OTHER = Grid((9, 7, 6), (0.75, 0.875, 2.5), (-10.0, 5.0, 30.0))


def write(path, value, grid=GRID):
    sitk.WriteImage(grid.image(np.full(grid.shape, value, np.int16)), path)


def values(path):
    return np.unique(sitk.GetArrayFromImage(read_image(path))).tolist()


@pytest.mark.parametrize(
    "names",
    [
        ("scan.nii", "scan.nii.gz"),
        ("scan.NII", "scan.nii.gz"),
        ("scan.nii", "scan.nii.gz", "scan.img"),
        ("scan.nii.gz", "scan.img.gz"),
    ],
)
def test_each_file_gives_its_own_voxels(names, tmp_path):
    for number, name in enumerate(names):
        write(tmp_path / name.lower(), -900 + number)
        if not name.islower():
            (tmp_path / name.lower()).rename(tmp_path / name)
    assert [values(tmp_path / name) for name in names] == [[-900 + number] for number in range(len(names))]


def test_every_reader_takes_the_named_file(tmp_path):
    write(tmp_path / "scan.nii.gz", -900)
    write(tmp_path / "scan.nii", 100, OTHER)
    path = tmp_path / "scan.nii.gz"
    assert read_grid(path).size == GRID.size
    assert np.unique(read_slice(path, GRID, 3)).tolist() == [-900]
    assert np.unique(sitk.GetArrayFromImage(read_ct(path))).tolist() == [-900]
    write(tmp_path / "mask.nii.gz", 1)
    write(tmp_path / "mask.nii", 0)
    assert sitk.GetArrayFromImage(read_mask(tmp_path / "mask.nii.gz", GRID)).all()
    for name, shift in (("dvf.nii.gz", 3.0), ("dvf.nii", -5.0)):
        sitk.WriteImage(GRID.image(np.full((*GRID.shape, 3), shift)), tmp_path / name)
    np.testing.assert_allclose(read_field(tmp_path / "dvf.nii.gz").TransformPoint((-8.0, 7.0, 35.0)), (-5.0, 10.0, 38.0))


def test_a_link_to_a_file_with_a_twin(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "scan.nii.gz", -900)
    (tmp_path / "scan.nii.gz").symlink_to("data/scan.nii.gz")
    write(tmp_path / "scan.nii", 100)
    assert values(tmp_path / "scan.nii.gz") == [-900]


def test_two_files_for_one_header(tmp_path):
    """An ``.img`` beside an ``.img.gz``: each when it is named, and a refusal for the header of both."""
    write(tmp_path / "scan.img", -900)
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "scan.nii", 100)
    header, voxels = (tmp_path / f"scan.{suffix}" for suffix in ("hdr", "img"))
    second = sitk.GetArrayFromImage(GRID.image(np.full(GRID.shape, 100, np.int16))).tobytes()
    (tmp_path / "scan.img.gz").write_bytes(gzip.compress(second))
    assert values(voxels) == [-900]
    assert values(tmp_path / "scan.img.gz") == [100]
    with pytest.raises(InputError, match=r"scan\.hdr: .*found scan\.img and scan\.img\.gz, expected one \.img or \.img\.gz"):
        read_image(header)


def test_a_damaged_file_is_refused_though_its_twin_is_whole(tmp_path):
    write(tmp_path / "scan.nii.gz", -900)
    write(tmp_path / "scan.nii", 100)
    data = (tmp_path / "scan.nii.gz").read_bytes()
    (tmp_path / "scan.nii.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"scan\.nii\.gz: cannot be read as an image"):
        read_image(tmp_path / "scan.nii.gz")


def test_an_error_names_the_file_that_was_given(tmp_path):
    """And not the link through which ITK reads it."""
    write(tmp_path / "scan.nii", 100)
    (tmp_path / "scan.nii.gz").write_text("not an image", encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_image(tmp_path / "scan.nii.gz")
    expected = (
        f'{tmp_path}/scan.nii.gz: cannot be read as an image (Unable to determine ImageIO reader for "{tmp_path}/scan.nii.gz")'
    )
    assert str(error.value) == expected
