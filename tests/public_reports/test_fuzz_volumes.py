"""Damaged files of volumes: a reader returns the true voxels or our error, and never other voxels.

Public reports: ITK issue 6575 and MetaIO issue 142 (compressed files of full length whose streams are damaged).

Streams with a checksum are damaged anywhere. An uncompressed file has no checksum: only its header is changed, and its length
anywhere. No header but that of a ``.nii.gz`` has a checksum either: fields in which every value is valid (type, slope and
intercept of NIfTI) are left alone, and the grid is only compared for ``.nii.gz``. The environment variable ``FUZZED_VOLUMES``
sets the number of inputs for each format; ``pytest -rP`` shows what became of them.
"""

import collections
import gzip
import os

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.images.volumes import Grid, read_grid, read_image

INPUTS = int(os.environ.get("FUZZED_VOLUMES", "20"))
"""Damaged inputs for each format."""

GRID = Grid((14, 12, 10), (0.75, 0.875, 2.5), (-10.0, 5.0, 30.0))

NRRD_RAW = b"""NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 14 12 10
space directions: (0.75,0,0) (0,0.875,0) (0,0,2.5)
endian: little
encoding: raw
space origin: (-10,5,30)
"""


def written(folder, name, image, compressed):
    sitk.WriteImage(image, folder / name, useCompression=compressed)


def nhdr(folder, name, image, compressed):
    voxels = sitk.GetArrayFromImage(image).tobytes()
    header = NRRD_RAW.replace(b"raw", b"gzip") if compressed else NRRD_RAW
    (folder / name).write_bytes(header + b"data file: volume.raw\n")
    (folder / "volume.raw").write_bytes(gzip.compress(voxels) if compressed else voxels)


FORMATS = {
    "nii": ("volume.nii", written, False),
    "nii.gz": ("volume.nii.gz", written, True),
    "img": ("volume.img", written, False),
    "img.gz": ("volume.img.gz", written, True),
    "mha": ("volume.mha", written, False),
    "mha compressed": ("volume.mha", written, True),
    "mhd": ("volume.mhd", written, False),
    "mhd compressed": ("volume.mhd", written, True),
    "nrrd": ("volume.nrrd", written, False),
    "nrrd gzip": ("volume.nrrd", written, True),
    "nhdr": ("volume.nhdr", nhdr, False),
    "nhdr gzip": ("volume.nhdr", nhdr, True),
}
"""The name of the file, what writes it, and whether its voxels are compressed, and so have a checksum."""

FREE = {"volume.nii": [*range(70, 72), *range(112, 120)], "volume.hdr": [*range(70, 72), *range(112, 120)]}
"""Bytes of uncompressed NIfTI headers in which every value is valid: the type of the voxels, slope and intercept."""


def header_length(name, data):
    """The bytes of an uncompressed file that are not voxels."""
    if name.endswith((".mhd", ".nhdr", ".hdr")):
        return len(data)
    return len(data) - 2 * int(np.prod(GRID.size)) if name.endswith((".nii", ".mha", ".nrrd")) else 0


def damaged(rng, name, data, compressed):
    """The bytes of a file with one fault, and its kind."""
    kind = rng.choice(["bits", "zeros", "random", "truncated", "inserted"])
    if kind == "truncated":
        return data[: rng.integers(len(data))], kind
    if kind == "inserted":
        place = int(rng.integers(len(data) + 1 if compressed else header_length(name, data) + 1))
        return data[:place] + rng.bytes(rng.integers(1, 40)) + data[place:], kind
    last = len(data) if compressed else header_length(name, data)
    changed = np.frombuffer(data, np.uint8).copy()
    start = int(rng.integers(last)) if last else len(data)
    end = min(last, start + int(rng.integers(1, 5 if rng.random() < 0.5 else last + 1))) if last else len(data)
    if kind == "bits":
        places = rng.integers(0, last, rng.integers(1, 5)) if last else []
        for place in places:
            changed[place] ^= 1 << rng.integers(8)
    else:
        changed[start:end] = 0 if kind == "zeros" else rng.integers(0, 256, end - start)
    free = [] if compressed and name.endswith(".gz") else FREE.get(name, [])
    changed[free] = np.frombuffer(data, np.uint8)[free]
    return changed.tobytes(), kind


def outcome(path, voxels, grid):
    """What became of a damaged file: refused, true or wrong."""
    try:
        found = read_grid(path)
        image = read_image(path)
    except InputError as error:
        return "refused" if str(error).isprintable() else "wrong"
    same = Grid.of(image) == found and np.array_equal(sitk.GetArrayViewFromImage(image), voxels)
    return "true" if same and (grid is None or found == grid) else "wrong"


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_volumes_are_true_or_refused(kind, tmp_path, rng):
    name, write, compressed = FORMATS[kind]
    voxels = rng.integers(-1000, 400, GRID.shape).astype(np.int16)
    write(tmp_path, name, GRID.image(voxels), compressed)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert outcome(tmp_path / name, voxels, GRID) == "true"
    counts = collections.Counter()
    for number in range(INPUTS):
        file = str(rng.choice(sorted(files)))
        data, fault = damaged(rng, file, files[file], compressed)
        (tmp_path / file).write_bytes(data)
        result = outcome(tmp_path / name, voxels, GRID if kind == "nii.gz" else None)
        counts[result] += 1
        assert result != "wrong", (number, file, fault)
        (tmp_path / file).write_bytes(files[file])
    print(kind, INPUTS, dict(counts))
    assert counts["refused"] > INPUTS / 5
