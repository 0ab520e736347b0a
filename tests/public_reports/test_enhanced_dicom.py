"""Enhanced CT, with all frames in one DICOM file: their positions give the grid, or one line says what is wrong with them.

The kind comes from Slicer#6773 and dicom2nifti#140: where the positions of the frames are not even to the last digit, GDCM
falls back to a spacing of 1 x 1 x 1 mm, and lungs of 3.4 litres have 0.63. It takes frames from head to feet for frames from
feet to head, and gives all frames the rescaling of the first.
"""

import re

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import AXIAL, CONVERTED_CT, ENHANCED_CT, element, enhanced_file

from regnet.errors import InputError
from regnet.images.volumes import Grid, mask_litres, read_grid, read_image, read_slice

SHAPE = (8, 5, 6)

STORED = np.arange(240).reshape(SHAPE)

HEIGHTS = np.arange(8) * 2.5 - 100

GRID = Grid((6, 5, 8), (0.9, 0.7, 2.5), (-10.0, 5.0, -100.0))


def axial(heights):
    return [f"-10\\5\\{height:g}" for height in heights]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "enhanced.dcm"


def assert_read(path, values, grid):
    image = read_image(path)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), values)
    for found in (Grid.of(image), read_grid(path)):
        assert found.size == grid.size
        for name in ("spacing", "origin", "direction"):
            np.testing.assert_allclose(getattr(found, name), getattr(grid, name), atol=1e-9)
    for number in (0, 3, len(values) - 1):
        np.testing.assert_allclose(read_slice(path, grid, number), values[number])


@pytest.mark.parametrize("kind", [ENHANCED_CT, CONVERTED_CT])
@pytest.mark.parametrize("order", [range(8), range(8)[::-1], [0, 3, 1, 2, 7, 5, 4, 6]], ids=["up", "head to feet", "mixed"])
def test_frames_are_sorted_by_their_positions(order, kind, path):
    path.write_bytes(enhanced_file(STORED[order], axial(HEIGHTS[order]), spacing="0.7\\0.9", kind=kind))
    assert_read(path, STORED - 1024.0, GRID)


def test_a_folder_with_an_enhanced_file_is_that_file(path):
    path.write_bytes(enhanced_file(STORED, axial(HEIGHTS), spacing="0.7\\0.9"))
    assert_read(path.parent, STORED - 1024.0, GRID)


@pytest.mark.parametrize("step", [1.25, 0.75, 0.625])
def test_positions_rounded_to_a_tenth_give_their_mean_distance(step, path):
    heights = np.round(np.arange(41) * step, 1)
    path.write_bytes(enhanced_file(np.ones((41, 5, 6)), axial(heights)))
    np.testing.assert_allclose(read_grid(path).spacing, (0.8, 0.8, step), atol=0.1 / 40)


def test_lungs_keep_their_volume(path):
    """20 x 20 x 20 cm of lung in a block, at positions that are off by a tenth of a millimetre."""
    heights = np.arange(40) * 5.0
    heights[7] += 0.1
    path.write_bytes(enhanced_file(np.full((40, 50, 50), 100), axial(heights), spacing="4\\4"))
    assert mask_litres(read_image(path) < -500) == pytest.approx(8)


def test_sagittal_frames(path):
    positions = [f"{x:g}\\20\\50" for x in (9.0, 6.0, 3.0, 0.0)]
    path.write_bytes(enhanced_file(STORED[:4], positions, orientation="0\\1\\0\\0\\0\\-1"))
    # Along -x: the first frame is the one that is farthest to the left.
    grid = Grid((6, 5, 4), (0.8, 0.8, 3.0), (9.0, 20.0, 50.0), (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    assert_read(path, STORED[:4] - 1024.0, grid)


def test_every_frame_has_its_own_rescaling(path):
    rescale = [(str(-1024 + 8 * number), str(1 + number / 4)) for number in range(8)]
    path.write_bytes(enhanced_file(STORED[::-1], axial(HEIGHTS[::-1]), spacing="0.7\\0.9", rescale=rescale))
    slopes, intercepts = 1 + np.arange(8) / 4, -1024 + 8 * np.arange(8)
    expected = STORED * slopes[::-1, None, None] + intercepts[::-1, None, None]
    assert_read(path, expected, GRID)


def test_a_file_may_give_one_position_and_the_distance_of_its_frames(path):
    """Frames without groups of their own, as some cone-beam scanners write them."""
    more = [element(tag, "DS", text) for tag, text in ((0x00200032, "-10\\5\\-100"), (0x00200037, AXIAL), (0x00180088, "2.5"))]
    more += [element(0x00281052, "DS", "-1024"), element(0x00281053, "DS", "1"), element(0x00280030, "DS", "0.7\\0.9")]
    path.write_bytes(enhanced_file(STORED, [], orientation=None, spacing=None, rescale=None, more=more))
    assert_read(path, STORED - 1024.0, GRID)


def test_frames_as_itk_writes_them(path):
    """Elements without types, and sequences of undefined length."""
    sitk.WriteImage(GRID.image(STORED.astype(np.uint16)), path)
    assert_read(path, STORED, GRID)


def tilted(heights, shear):
    return [f"-10\\{5 + shear * height:g}\\{height:g}" for height in heights]


TWO_AXES = [AXIAL] * 5 + ["1\\0\\0\\0\\0\\-1"] * 3


@pytest.mark.parametrize(
    ("positions", "options", "reason"),
    [
        (axial([*HEIGHTS[:3], *HEIGHTS[3:] + 2.5]), {}, "found 5.00 mm between the frames 3 and 4, where 2.50 mm is usual"),
        (axial([*HEIGHTS[:3], *HEIGHTS[3:] + 0.5]), {}, "found 3.00 mm between the frames 3 and 4, where 2.50 mm is usual"),
        (
            axial(np.cumsum([0, 2.5, 2.5, 2.5, 2.5, 2.7, 2.7, 2.7])),
            {},
            "found 5 0.34 mm from its place in even steps of 2.59 mm",
        ),
        (axial(HEIGHTS[[0, 1, 1, 2, 3, 4, 5, 6]]), {}, "found 0.00 mm between the frames 2 and 3, where 2.50 mm is usual"),
        (axial(HEIGHTS[[0, 1, 2, 3, 0, 1, 2, 3]]), {}, "found 0.00 mm between the frames"),
        (tilted(HEIGHTS, 0.2), {}, "found frames shifted by 0.50 mm within their plane"),
        (axial(HEIGHTS[:6]), {}, "found positions for 6 of 8 frames"),
        ([None] * 8, {}, "found frames without position or orientation"),
        ([*axial(HEIGHTS[:7]), None], {}, "found frames without position or orientation"),
        ([], {}, "found 8 frames without positions"),
        (axial(HEIGHTS), {"orientation": TWO_AXES}, "found frames in several orientations"),
        (axial(HEIGHTS), {"orientation": "2\\0\\0\\0\\1\\0"}, "found the orientation 2, 0, 0, 0, 1, 0"),
        (axial(HEIGHTS), {"orientation": None}, "cannot be read as an image (damaged, without orientation"),
        (axial(HEIGHTS), {"spacing": None}, "found no pixel spacing in frame 1"),
        (
            axial(HEIGHTS),
            {"spacing": ["0.7\\0.9"] * 5 + ["0.7\\0.8"] * 3},
            "found pixels of 0.9 x 0.7 mm in frame 1 and 0.8 x 0.7",
        ),
        (axial(HEIGHTS), {"spacing": "0.0007\\0.0007"}, "found a spacing of 0.0007 x 0.0007 x 2.5 mm"),
        (axial(HEIGHTS), {"rescale": None}, "found frames without a rescale intercept and slope"),
        (axial(HEIGHTS), {"kind": "1.2.840.10008.5.1.4.1.1.7.3"}, "found rescaling for each frame in a file of class 1.2.840"),
    ],
    ids=[
        "gap",
        "uneven",
        "drifting",
        "doubled",
        "two time points",
        "gantry tilt",
        "fewer positions",
        "no positions",
        "one without position",
        "no groups",
        "several orientations",
        "long axes",
        "no orientation",
        "no pixel spacing",
        "several pixel spacings",
        "in metres",
        "no rescaling",
        "rescaling in another class",
    ],
)
@pytest.mark.parametrize("read", [read_image, read_grid])
def test_what_is_wrong_with_frames_is_said_in_a_line(positions, options, reason, read, path):
    path.write_bytes(enhanced_file(STORED, positions, **options))
    with pytest.raises(InputError, match=re.escape(f"{path}: {reason}")) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_voxels_of_another_length_are_refused(path):
    data = enhanced_file(STORED, axial(HEIGHTS))
    path.write_bytes(data.replace(element(0x00280010, "US", 5), element(0x00280010, "US", 4)))
    with pytest.raises(InputError, match="found 480 bytes of voxels, expected 384 for"):
        read_grid(path)


@pytest.mark.parametrize(
    ("found", "damaged", "reason"),
    [
        (b"MONOCHROME2", b"\0\0\0OCHROME2", "found the photometric interpretation ''"),
        (b"\x52\x10DS", b"\x52\x11DS", "found no rescale intercept or no slope in frame 1"),
        (b"\x02\0\x02\0UI", b"\x02\0\x02\0UM", "cannot be read as an image (damaged"),
        (b"\x28\0\x08\0IS", b"\x28\0\x08\x10IS", "found 480 bytes of voxels, expected 60"),
    ],
    ids=["colour", "intercept", "first elements", "number of frames"],
)
def test_a_damaged_header_is_refused(found, damaged, reason, path):
    """GDCM reads inverted, unscaled or single frames, or takes hundreds of megabytes of memory."""
    data = enhanced_file(STORED, axial(HEIGHTS))
    assert data.count(found) == 1
    path.write_bytes(data.replace(found, damaged))
    with pytest.raises(InputError, match=re.escape(f"{path}: {reason}")):
        read_grid(path)


def test_time_points_in_several_files_of_one_series_are_named(tmp_path):
    for number in range(3):
        (tmp_path / f"phase_{number}.dcm").write_bytes(enhanced_file(STORED + number, axial(HEIGHTS), spacing="0.7\\0.9"))
    with pytest.raises(InputError, match="found 3 files with several frames in one series") as caught:
        read_image(tmp_path)
    assert str(caught.value).endswith("instead: phase_0.dcm, phase_1.dcm, phase_2.dcm")
    assert_read(tmp_path / "phase_1.dcm", STORED - 1023.0, GRID)
