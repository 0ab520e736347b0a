"""Damaged DICOM files: readers return the true voxels and grid, or raise our error; never others.

The kind comes from public reports of readers that pass over a truncated slice or give an enhanced CT a spacing of 1 x 1 x 1 mm
without a word (Slicer#6773). Some places are left out of the damage, because nothing in a file contradicts them: the voxels
themselves, which have no checksum, and values that stand once in a file or may differ between slices: the rescaling, and in an
enhanced CT the pixel spacing and the sign of the voxels. docs/own-data.md says so to users.
"""

import os
import shutil
from collections import Counter

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import element, enhanced_file, rescaling, slice_file

from regnet.errors import RegNetError
from regnet.images.volumes import Grid, read_grid, read_image

pytestmark = pytest.mark.slow

TRIES = int(os.environ.get("FUZZED_DICOM", "20"))
"""Two folders and five enhanced files are made for each."""

SHAPE = (7, 6, 8)

STEP = 2.5

POSITIONS = [f"-10\\5\\{STEP * number - 100:g}" for number in range(SHAPE[0])]

STORED = np.random.default_rng(0).integers(0, 3000, SHAPE)

TRUE = Grid(SHAPE[::-1], (0.7, 0.8, STEP), (-10.0, 5.0, -100.0))

TOLERANCE = 0.3
"""How far a corner may be off, in mm: a position that is wrong by less than a tenth of the slice spacing passes for rounded."""

LONE = [*rescaling(("-1024", "1")), element(0x00280030, "DS", "0.8\\0.7"), element(0x00280103, "US", 1)]
"""Elements whose values nothing else in an enhanced CT contradicts."""


def places(data, left_out):
    """The places of a file that may be damaged: all before its voxels, without the values of the elements `left_out`."""
    is_free = np.ones(data.index(element(0x7FE00010, "OW", b"")[:6]) + 12, bool)
    for known in left_out:
        start = data.find(known)
        while start >= 0:
            is_free[start + 8 : start + len(known)] = False
            start = data.find(known, start + 1)
    return np.flatnonzero(is_free)


def damage(data, left_out, rng):
    """The bytes of a file with a few flipped bits, a range of zeros, or without its end."""
    kind = rng.choice(["bits", "bits", "bits", "zeros", "truncated"])
    if kind == "truncated":
        return kind, data[: rng.integers(len(data))]
    free, damaged = places(data, left_out), bytearray(data)
    if kind == "bits":
        for place in rng.choice(free, rng.integers(1, 4)):
            damaged[place] ^= 1 << rng.integers(8)
    else:
        start = rng.integers(len(free))
        for place in free[start : start + rng.integers(1, 40)]:
            damaged[place] = 0
    return kind, bytes(damaged)


def outcome(path, first=0, count=SHAPE[0]):
    """What the readers make of a file or folder: refused, true or wrong."""
    try:
        grid = read_grid(path)
        image = read_image(path)
    except RegNetError as error:
        return "refused" if str(error).isprintable() else "wrong"
    if Grid.of(image) != grid or image.GetSize() != (*SHAPE[:0:-1], count):
        return "wrong"
    expected = Grid((*SHAPE[:0:-1], count), TRUE.spacing, (-10.0, 5.0, first * STEP - 100), TRUE.direction)
    is_true = (sitk.GetArrayFromImage(image) == STORED[first : first + count] - 1024).all()
    return "true" if is_true and np.abs(grid.corners() - expected.corners()).max() <= TOLERANCE else "wrong"


def try_folder(folder, rng):
    """Damage one file of a series, or delete or double it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, position in enumerate(POSITIONS):
        data = slice_file(STORED[number], position, number + 1, spacing="0.8\\0.7")
        (folder / f"{number}.dcm").write_bytes(data)
    number = int(rng.integers(SHAPE[0]))
    path = folder / f"{number}.dcm"
    kind = rng.choice(["damaged"] * 6 + ["deleted", "doubled"])
    if kind == "deleted":
        path.unlink()
        # Without its first or last slice a series is a smaller one that is whole.
        first, count = (1 if number == 0 else 0), SHAPE[0] - 1
        return str(kind), path, outcome(folder, first, count)
    if kind == "doubled":
        shutil.copy(path, folder / "copy.dcm")
    else:
        kind, data = damage(path.read_bytes(), LONE[:2], rng)
        path.write_bytes(data)
    return str(kind), path, outcome(folder)


def try_enhanced(folder, rng):
    folder.mkdir(exist_ok=True)
    path = folder / "enhanced.dcm"
    kind, data = damage(enhanced_file(STORED, POSITIONS, spacing="0.8\\0.7"), LONE, rng)
    path.write_bytes(data)
    return str(kind), path, outcome(path)


@pytest.mark.parametrize(("damaged", "tries"), [(try_folder, 2 * TRIES), (try_enhanced, 5 * TRIES)])
def test_damaged_files_are_read_right_or_refused(damaged, tries, tmp_path, rng):
    counts = Counter(damaged(tmp_path / "series", rng)[2] for _ in range(tries))
    assert counts["wrong"] == 0
    # The damage must neither be without effect nor make everything unreadable.
    assert counts["refused"] > tries / 4
    assert counts["true"] > tries / 20
