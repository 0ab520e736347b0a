"""Slices of one series that differ in what an image has once, or of which one is damaged: read right, or refused in one line.

The kind comes from the reports about spacing from the first two slices (ITK#441) and about enhanced CT (Slicer#6773): readers
take from the first slice what they ought to compare over all of them, and pass over files that they cannot read.
"""

import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import AXIAL, dicom_file, element, slice_file

from regnet.errors import InputError
from regnet.images.volumes import Grid, read_grid, read_image, read_slice

STORED = np.arange(240).reshape(6, 5, 8)

POSITIONS = [f"-10\\5\\{2.5 * number:g}" for number in range(6)]


def series(folder, changed=lambda number: {}):
    """Write six slices; `changed` gives the options of a slice, and its values."""
    folder.mkdir(exist_ok=True)
    for number, position in enumerate(POSITIONS):
        options = {"values": STORED[number], "position": position, "number": number + 1, "spacing": "0.7\\0.9"}
        (folder / f"{number}.dcm").write_bytes(slice_file(**{**options, **changed(number)}))


def assert_true(folder, values=STORED - 1024.0):
    image = read_image(folder)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), values)
    assert Grid.of(image) == read_grid(folder) == Grid((8, 5, 6), (0.9, 0.7, 2.5), (-10.0, 5.0, 0.0))
    for number in (0, 5):
        np.testing.assert_allclose(read_slice(folder, Grid.of(image), number), values[number])


def test_pixels_that_are_not_square(tmp_path):
    series(tmp_path)
    assert_true(tmp_path)


@pytest.mark.parametrize("odd", [0, 3])
def test_every_slice_has_its_own_rescaling(odd, tmp_path):
    series(tmp_path, lambda number: {"rescale": ("-1000", "0.25")} if number == odd else {})
    expected = STORED - 1024.0
    expected[odd] = STORED[odd] * 0.25 - 1000
    assert_true(tmp_path, expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"spacing": "0.8\\0.8"}, "found pixels of 0.9 x 0.7 mm in slice 0.dcm and 0.8 x 0.8 mm in slice 3.dcm"),
        ({"spacing": None}, "found no pixel spacing in slice 3.dcm"),
        ({"spacing": "0,7\\0,9"}, "found the pixel spacing '0,7\\\\0,9' in slice 3.dcm"),
        ({"rescale": None}, "found no rescale intercept or no slope in 3.dcm"),
        ({"rescale": ("-1024", "0")}, "found a rescale slope of 0 in 3.dcm"),
        ({"signed": 0}, "found the sign '1' in 0.dcm and '0' in 3.dcm"),
        ({"stored": 12}, "found the bits stored '16' in 0.dcm and '12' in 3.dcm"),
        ({"colour": "MONOCHROME1"}, "found the photometric interpretation 'MONOCHROME2' in 0.dcm and 'MONOCHROME1' in 3.dcm"),
        ({"values": STORED[3, :4]}, "found 8 x 5 pixels in 0.dcm and 8 x 4 pixels in 3.dcm"),
        ({"orientation": "1\\0\\0\\0\\0\\-1"}, "found slices in several orientations"),
        ({"position": None}, "found slices without position or orientation"),
        ({"position": "-10\\6\\7.5"}, "found slices shifted by 1.00 mm within their plane"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(next(iter(value.items()))).partition("array")[0],
)
def test_one_slice_that_differs_is_refused(options, reason, tmp_path):
    series(tmp_path, lambda number: options if number == 3 else {})
    for read in (read_grid, read_image):
        with pytest.raises(InputError, match=re.escape(f"{tmp_path}: {reason}")):
            read(tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"spacing": None}, "found no pixel spacing in slice 0.dcm"),
        ({"spacing": "0\\0"}, "found a spacing of 0 x 0 x 2.5 mm"),
        ({"spacing": "0.0007\\0.0007"}, "found a spacing of 0.0007 x 0.0007 x 2.5 mm"),
        ({"colour": "MONOCHROME1"}, "found the photometric interpretation 'MONOCHROME1'"),
        ({"orientation": "1\\0\\0\\0.6\\0.8\\0"}, "found the orientation 1, 0, 0, 0.6, 0.8, 0"),
    ],
    ids=["no pixel spacing", "spacing of 0", "in metres", "inverted", "skewed"],
)
def test_what_is_wrong_with_all_slices_is_refused(options, reason, tmp_path):
    series(tmp_path, lambda number: options)
    for read in (read_grid, read_image):
        with pytest.raises(InputError, match=re.escape(f"{tmp_path}: {reason}")):
            read(tmp_path)


@pytest.mark.parametrize("number", [0, 3, 5])
@pytest.mark.parametrize("length", [0, 100, 152, 300, -100, -2])
def test_a_slice_that_is_cut_off_is_named(number, length, tmp_path):
    """At the end of the stack no gap would show that it is missing."""
    series(tmp_path)
    path = tmp_path / f"{number}.dcm"
    path.write_bytes(path.read_bytes()[:length])
    for read, name in ((read_grid, tmp_path), (read_image, tmp_path / "2.dcm")):
        with pytest.raises(InputError, match=re.escape(f"{path}: cannot be read as an image")):
            read(name)


def test_files_beside_the_slices_are_passed_over(tmp_path):
    """A report, a DICOMDIR, a text and the file that macOS leaves beside each slice on foreign disks."""
    series(tmp_path)
    report = "1.2.840.10008.5.1.4.1.1.88.11"
    content = [element(0x00080016, "UI", report), element(0x00080060, "CS", "SR"), element(0x0020000E, "UI", "1.2.3.9")]
    (tmp_path / "report.dcm").write_bytes(dicom_file(report, content))
    (tmp_path / "DICOMDIR").write_bytes(dicom_file("1.2.840.10008.1.3.10", [element(0x00041130, "CS", "SCANS")]))
    (tmp_path / "notes.txt").write_text("inspiration", encoding="utf-8")
    (tmp_path / "._3.dcm").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    assert_true(tmp_path)


def test_a_localizer_of_the_same_series_is_refused_and_one_of_its_own_is_listed(tmp_path):
    series(tmp_path)
    scout = {"position": "-10\\5\\0", "orientation": "1\\0\\0\\0\\0\\-1", "spacing": "0.7\\0.9"}
    (tmp_path / "scout.dcm").write_bytes(slice_file(STORED[0], number=9, **scout))
    with pytest.raises(InputError, match="found slices in several orientations"):
        read_grid(tmp_path)
    (tmp_path / "scout.dcm").write_bytes(slice_file(STORED[0], number=9, series="1.2.3.2", **scout))
    with pytest.raises(InputError, match=re.escape("0.dcm (6 slices, 'no description'); scout.dcm (1 slices")):
        read_grid(tmp_path)
    assert read_grid(tmp_path / "2.dcm").size == (8, 5, 6)


def test_two_time_points_in_one_series_are_refused(tmp_path):
    series(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "later")
    for number in range(6):
        (tmp_path / "later" / f"{number}.dcm").rename(tmp_path / f"later_{number}.dcm")
    with pytest.raises(InputError, match=re.escape("found 0.00 mm between the slices 0.dcm and later_0.dcm")):
        read_grid(tmp_path)


def test_slices_without_a_preamble(tmp_path):
    """Old exports begin with the first element."""
    series(tmp_path)
    for number in range(6):
        path = tmp_path / f"{number}.dcm"
        data = path.read_bytes()
        path.write_bytes(data[data.index(element(0x00080016, "UI", "1.2.840.10008.5.1.4.1.1.2")) :])
    assert AXIAL.encode() in path.read_bytes()
    assert_true(tmp_path)
