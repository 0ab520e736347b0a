"""DICOM series: read in order, chosen among several, and refused where slices are missing."""

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series

from regnet.errors import InputError
from regnet.images.volumes import Grid, read_grid, read_image

FIRST, SECOND = ("1.2.826.0.1.3680043.2.1125.1", "1.2.826.0.1.3680043.2.1125.2")

EVEN = np.arange(8) * 2.5 - 100


def test_a_folder_is_one_image_in_hounsfield_units(tmp_path):
    write_series(tmp_path / "series", EVEN[::-1], FIRST)
    image = read_image(tmp_path / "series")
    np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.8, 2.5))
    np.testing.assert_allclose(image.GetOrigin(), (-10, 5, -100))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image)[:, 0, 0], -1000 + 10 * np.arange(8)[::-1])
    assert read_grid(tmp_path / "series") == Grid.of(image)


def test_one_of_several_series_is_chosen_by_any_of_its_slices(tmp_path):
    write_series(tmp_path, EVEN, FIRST, "Thorax Insp 2.0")
    write_series(tmp_path, EVEN[:4] + 3, SECOND, "Thorax Exp 2.0")
    with pytest.raises(InputError, match="found 2 series") as caught:
        read_image(tmp_path)
    # The message lists the series, and what to write instead.
    assert str(caught.value).endswith("1_00.dcm (8 slices, 'Thorax Insp 2.0'); 2_00.dcm (4 slices, 'Thorax Exp 2.0')")
    assert read_image(tmp_path / "1_00.dcm").GetSize() == (24, 20, 8)
    image = read_image(tmp_path / "2_02.dcm")
    assert (image.GetSize(), image.GetOrigin()[2]) == ((24, 20, 4), -97)
    assert read_grid(tmp_path / "2_02.dcm") == Grid.of(image)


def test_a_series_of_another_modality_is_ignored(tmp_path):
    write_series(tmp_path, EVEN, FIRST)
    write_series(tmp_path, EVEN[:1], SECOND, "Report", modality="OT")
    assert read_image(tmp_path).GetSize() == (24, 20, 8)


def test_slices_are_sorted_along_their_own_normal(tmp_path):
    """Sagittal slices: their order is along x, whatever their names are."""
    positions = [f"{x}\\0\\50" for x in (9.0, 0.0, 3.0, 6.0)]
    write_series(tmp_path, EVEN[:4], FIRST, orientation="0\\1\\0\\0\\0\\-1")
    for number, position in enumerate(positions):
        name = str(tmp_path / f"1_{number:02}.dcm")
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        image = reader.Execute()
        copy = image[:, :, 0]
        for tag in image.GetMetaDataKeys():
            copy.SetMetaData(tag, image.GetMetaData(tag))
        copy.SetMetaData("0020|0032", position)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(name)
        writer.Execute(copy)
    image = read_image(tmp_path)
    np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.8, 3.0))
    array = sitk.GetArrayFromImage(image)[:, 0, 0]
    along = np.reshape(image.GetDirection(), (3, 3))[0, 2]
    # Slices 1, 2, 3, 0 follow each other from x = 0 on.
    expected = np.array([-990, -980, -970, -1000])
    np.testing.assert_array_equal(array, expected if along > 0 else expected[::-1])


@pytest.mark.parametrize(
    ("positions", "options", "reason"),
    [
        ([0, 2.5, 5, 10, 12.5], {}, "found 5.00 mm between the slices 1_02.dcm and 1_03.dcm, where 2.50 mm is usual"),
        ([0, 2.5, 2.5, 5, 7.5], {}, "found 0.00 mm between the slices 1_01.dcm and 1_02.dcm, where 2.50 mm is usual"),
        ([5, 0, 2.5, 7.5, 2.5], {}, "found 0.00 mm between the slices 1_02.dcm and 1_04.dcm, where 2.50 mm is usual"),
        ([0, 2.5, 5, 8, 10.5], {}, "found 3.00 mm between the slices 1_02.dcm and 1_03.dcm"),
        ([0, 0, 2.5, 2.5, 5, 5], {}, "found 0.00 mm between the slices"),
        (EVEN, {"shear": 0.2}, "found slices shifted by 0.50 mm within their plane"),
    ],
    ids=["missing", "doubled", "doubled, unordered", "uneven", "two phases", "gantry tilt"],
)
@pytest.mark.parametrize("read", [read_image, read_grid])
def test_missing_doubled_and_uneven_slices_are_named(positions, options, reason, read, tmp_path):
    write_series(tmp_path, positions, FIRST, **options)
    with pytest.raises(InputError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: {reason}")
    assert "\n" not in str(caught.value)


def test_the_subfolders_of_a_folder_without_dicom_are_named(tmp_path):
    (tmp_path / "series_1").mkdir()
    with pytest.raises(
        InputError, match="found no DICOM files and the folders series_1, expected a folder with one DICOM series"
    ):
        read_image(tmp_path)
