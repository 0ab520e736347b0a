"""Damaged volumes: every format is read to its end, by length, stream and checksum, where it has one.

Public reports: ITK issue 6575 and MetaIO issue 142. Of a compressed ``.mha`` or ``.nrrd`` of full length with damaged bytes,
ITK reads zeros from the damage on, without an error.
"""

import gzip
import zlib

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.experiment.inspection import file_problems
from regnet.images.transforms import read_field
from regnet.images.volumes import Grid, read_ct, read_grid, read_image, read_mask

GRID = Grid((24, 20, 16), (0.75, 0.875, 2.5), (-10.0, 5.0, 30.0))

META = (
    "ObjectType = Image\nNDims = 3\nElementSpacing = 0.75 0.875 2.5\nOffset = -10 5 30\n"
    "DimSize = 24 20 16\nElementType = MET_SHORT\n"
)

NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 24 20 16\nendian: little\n"
    "space directions: (0.75,0,0) (0,0.875,0) (0,0,2.5)\nspace origin: (-10,5,30)\n"
)


@pytest.fixture
def voxels(rng):
    return rng.integers(-1000, 400, GRID.shape).astype(np.int16)


def zero_tail(data):
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def changed_byte(data):
    place = len(data) * 3 // 4
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def without_end(data):
    return data[:-9]


@pytest.mark.parametrize("damage", [zero_tail, changed_byte, without_end])
@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.mha", "ct.mhd", "ct.nrrd"])
def test_a_damaged_stream_is_refused(name, damage, voxels, tmp_path):
    path = tmp_path / name
    sitk.WriteImage(GRID.image(voxels), path, useCompression=True)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path)), voxels)
    stream = path.with_suffix(".zraw") if name == "ct.mhd" else path
    stream.write_bytes(damage(stream.read_bytes()))
    for read in (read_image, read_ct, read_mask):
        with pytest.raises(InputError, match=rf"{name}: cannot be read as an image \(.+\)$"):
            read(path)


@pytest.mark.parametrize("name", ["dvf.nii.gz", "dvf.mha", "dvf.nrrd"])
def test_a_damaged_field_is_refused(name, tmp_path, rng):
    sitk.WriteImage(GRID.image(rng.normal(0, 5, (*GRID.shape, 3)).astype(np.float32)), tmp_path / name, useCompression=True)
    assert read_field(tmp_path / name).GetDisplacementField().GetSize() == GRID.size
    (tmp_path / name).write_bytes(zero_tail((tmp_path / name).read_bytes()))
    with pytest.raises(InputError, match=f"{name}: cannot be read as an image"):
        read_field(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_a_check_of_all_voxels_finds_it(suffix, voxels, tmp_path):
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(GRID.image(voxels), path, useCompression=True)
    images = pd.DataFrame({"path": [str(path)], "mask": [str(tmp_path / "none")]}, index=["a"])
    pairs = pd.DataFrame(columns=["fixed", "moving", "fixed_landmarks", "moving_landmarks"])
    assert file_problems(images, pairs, 1.0, 4, voxels=True) == []
    path.write_bytes(changed_byte(path.read_bytes()))
    (problem,) = file_problems(images, pairs, 1.0, 4, voxels=True)
    assert f"ct{suffix}: cannot be read as an image" in problem


@pytest.mark.parametrize("change", [lambda data: data[:-40], lambda data: data + bytes(40)], ids=["shorter", "longer"])
@pytest.mark.parametrize("name", ["ct.nii", "ct.img", "ct.mha", "ct.mhd", "ct.nrrd"])
def test_another_length_than_the_header_announces(name, change, voxels, tmp_path):
    path = tmp_path / name
    sitk.WriteImage(GRID.image(voxels), path)
    file = path.with_suffix(".raw") if name == "ct.mhd" else path
    file.write_bytes(change(file.read_bytes()))
    for read in (read_grid, read_image):
        with pytest.raises(InputError, match=rf"{name}: .*found \d+ bytes of .*voxels, expected \d+"):
            read(path)


def test_a_stream_of_other_length_is_refused(voxels, tmp_path):
    for packed, length in ((voxels.tobytes()[:-2], 15358), (voxels.tobytes() + b"\0\0", 15362)):
        stream = zlib.compress(packed)
        header = f"{META}CompressedData = True\nCompressedDataSize = {len(stream)}\nElementDataFile = LOCAL\n"
        (tmp_path / "ct.mha").write_bytes(header.encode() + stream)
        (tmp_path / "ct.nrrd").write_bytes(f"{NRRD}encoding: gzip\n\n".encode() + gzip.compress(packed))
        for name in ("ct.mha", "ct.nrrd"):
            with pytest.raises(InputError, match=rf"{name}: .*found {length} bytes of voxels, expected 15360"):
                read_image(tmp_path / name)


def test_a_metaimage_without_the_size_of_its_stream_is_refused(voxels, tmp_path):
    """ITK reads other voxels of it."""
    header = f"{META}CompressedData = True\nElementDataFile = LOCAL\n"
    (tmp_path / "ct.mha").write_bytes(header.encode() + zlib.compress(voxels.tobytes()))
    with pytest.raises(InputError, match="found no size of the compressed voxels, expected it in the field CompressedDataSize"):
        read_image(tmp_path / "ct.mha")


def test_valid_files_of_other_programs_are_read(voxels, tmp_path):
    """Voxels in other files, behind a header, one file a slice, as text, and without optional fields."""
    voxels.tofile(tmp_path / "all.raw")
    (tmp_path / "behind.raw").write_bytes(b"a header" + voxels.tobytes())
    (tmp_path / "all.raw.gz").write_bytes(gzip.compress(voxels.tobytes()))
    for number, values in enumerate(voxels):
        values.tofile(tmp_path / f"slice{number}.raw")
    listed = "".join(f"slice{number}.raw\n" for number in range(len(voxels)))
    text = " ".join(map(str, voxels.ravel()))
    for name, content in {
        "minimal.mhd": f"{META}ElementDataFile = all.raw\n",
        "behind.mhd": f"{META}BinaryData = True\nHeaderSize = 8\nElementDataFile = behind.raw\n",
        "last.mhd": f"{META}BinaryData = True\nHeaderSize = -1\nElementDataFile = behind.raw\n",
        "list.mhd": f"{META}BinaryData = True\nElementDataFile = LIST\n{listed}",
        "numbered.mhd": f"{META}BinaryData = True\nElementDataFile = slice%d.raw 0 15 1\n",
        "text.mha": f"{META}BinaryData = False\nElementDataFile = LOCAL\n{text}\n",
        "data.nhdr": f"{NRRD}encoding: raw\ndata file: all.raw\n",
        "behind.nhdr": f"{NRRD}encoding: raw\nbyte skip: 8\ndata file: behind.raw\n",
        "last.nhdr": f"{NRRD}encoding: raw\nbyte skip: -1\ndata file: behind.raw\n",
        "gzip.nhdr": f"{NRRD}encoding: gzip\ndata file: all.raw.gz\n",
        "list.nhdr": f"{NRRD}encoding: raw\ndata file: LIST\n{listed}",
        "numbered.nhdr": f"{NRRD}encoding: raw\ndata file: slice%d.raw 0 15 1\n",
        "text.nrrd": f"{NRRD}encoding: ascii\n\n{text}\n",
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        image = read_image(tmp_path / name)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels, name)
        assert Grid.of(image) == GRID, name


@pytest.mark.parametrize("suffix", [".vtk", ".gipl", ".tif", ".mrc"])
def test_formats_that_cannot_be_checked_are_not_accepted(suffix, voxels, tmp_path):
    sitk.WriteImage(GRID.image(voxels), tmp_path / f"ct{suffix}")
    with pytest.raises(InputError, match=rf"ct{suffix}: .*found a file of \w+, expected NIfTI, MetaImage, NRRD or DICOM"):
        read_image(tmp_path / f"ct{suffix}")


def test_a_nifti_text_is_not_accepted(tmp_path):
    """ITK may crash on it."""
    header = "<nifti_image\n  nifti_type = 'NIFTI-1A'\n  ndim = '3'\n  nx = '4'\n  ny = '4'\n  nz = '4'\n  datatype = '4'\n/>\n"
    (tmp_path / "ct.nia").write_text(header + "0 " * 64, encoding="utf-8")
    with pytest.raises(InputError, match=r"ct\.nia: cannot be read as an image"):
        read_image(tmp_path / "ct.nia")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    mask = np.ones(GRID.shape, np.float32)
    mask[3, 4, 5] = np.nan
    field = np.zeros((*GRID.shape, 3))
    field[3, 4, 5] = np.inf
    sitk.WriteImage(GRID.image(mask), tmp_path / "mask.mha")
    sitk.WriteImage(GRID.image(field), tmp_path / "dvf.mha")
    for name, read in (("mask", read_mask), ("dvf", read_field)):
        with pytest.raises(InputError, match=rf"{name}\.mha: found \w+ that are not finite numbers"):
            read(tmp_path / f"{name}.mha")
