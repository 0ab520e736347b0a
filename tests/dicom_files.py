"""Real DICOM series for tests, written slice by slice, and enhanced CT, written element by element."""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk


def write_series(
    folder: Path,
    positions: Sequence[float],
    uid: str,
    description: str = "Thorax",
    *,
    modality: str = "CT",
    orientation: str = "1\\0\\0\\0\\1\\0",
    shear: float = 0.0,
    slices: Sequence[np.ndarray] | None = None,
    spacing: float = 0.8,
) -> None:
    """Write slices at positions along z, in mm; y moves by `shear` per mm; values rise by 10 HU a slice if none are given."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, z in enumerate(positions):
        values = np.full((20, 24), -1000 + 10 * number, np.int16) if slices is None else slices[number]
        image = sitk.GetImageFromArray(values)
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{number + 1}",
            "0008|0060": modality,
            "0008|103e": description,
            "0020|000d": f"{uid}.0",
            "0020|000e": uid,
            "0020|0032": f"-10\\{5 + shear * z:g}\\{z:g}",
            "0020|0037": orientation,
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        image.SetSpacing((spacing, spacing))
        writer.SetFileName(f"{folder}/{uid.rpartition('.')[2]}_{number:02}.dcm")
        writer.Execute(image)


CT, ENHANCED_CT, CONVERTED_CT = (f"1.2.840.10008.5.1.4.1.1.2{kind}" for kind in ("", ".1", ".2"))

AXIAL = "1\\0\\0\\0\\1\\0"


def element(tag: int, kind: str, value: Any) -> bytes:
    """A DICOM element with its type, little-endian: text, a number of two bytes, bytes, or the items of a sequence."""
    if kind == "SQ":
        data = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in value)
    elif kind == "US":
        data = struct.pack("<H", value)
    else:
        data = value if isinstance(value, bytes) else str(value).encode()
        data += (b"\0" if kind in ("UI", "OB", "OW") else b" ") * (len(data) % 2)
    is_long = kind in ("SQ", "OB", "OW", "UN")
    length = struct.pack("<HI", 0, len(data)) if is_long else struct.pack("<H", len(data))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode() + length + data


def sequence(tag: int, *items: Sequence[bytes]) -> bytes:
    """A sequence of items, each given by its elements."""
    return element(tag, "SQ", [b"".join(item) for item in items])


def dicom_file(kind: str, elements: Sequence[bytes]) -> bytes:
    """A DICOM file of a class, with explicit types and little-endian."""
    meta = element(0x00020001, "OB", b"\0\1") + element(0x00020002, "UI", kind) + element(0x00020003, "UI", "1.2.3.4")
    meta += element(0x00020010, "UI", "1.2.840.10008.1.2.1") + element(0x00020012, "UI", "1.2.3.9")
    head = element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta
    in_order = sorted(elements, key=lambda data: struct.unpack("<HH", data[:4]))
    return b"\0" * 128 + b"DICM" + head + b"".join(in_order)


def encoding(
    values: np.ndarray, colour: str = "MONOCHROME2", stored: int = 16, signed: int = 1, frames: int | None = None
) -> list[bytes]:
    """The elements that say how voxels ``(..., y, x)`` are stored, without the voxels."""
    return [
        element(0x00280002, "US", 1),
        element(0x00280004, "CS", colour),
        *([] if frames is None else [element(0x00280008, "IS", frames)]),
        element(0x00280010, "US", values.shape[-2]),
        element(0x00280011, "US", values.shape[-1]),
        element(0x00280100, "US", 16),
        element(0x00280101, "US", stored),
        element(0x00280102, "US", stored - 1),
        element(0x00280103, "US", signed),
    ]


def identity(kind: str, number: int = 1, series: str = "1.2.3.1") -> list[bytes]:
    """The elements that say what a file is and where it belongs."""
    return [
        element(0x00080016, "UI", kind),
        element(0x00080018, "UI", f"{series}.{number}"),
        element(0x00080060, "CS", "CT"),
        element(0x0020000D, "UI", "1.2.3"),
        element(0x0020000E, "UI", series),
    ]


def rescaling(rescale: tuple[str, str] | None) -> list[bytes]:
    return [] if rescale is None else [element(0x00281052, "DS", rescale[0]), element(0x00281053, "DS", rescale[1])]


def slice_file(
    values: np.ndarray,
    position: str | None,
    number: int = 1,
    *,
    orientation: str = AXIAL,
    spacing: str | None = "0.8\\0.8",
    rescale: tuple[str, str] | None = ("-1024", "1"),
    series: str = "1.2.3.1",
    **options: Any,
) -> bytes:
    """A slice of CT with stored values ``(y, x)``; `options` as in `encoding`."""
    elements = identity(CT, number, series)
    elements += [] if position is None else [element(0x00200032, "DS", position)]
    elements += [element(0x00200037, "DS", orientation), *encoding(values, **options)]
    elements += [] if spacing is None else [element(0x00280030, "DS", spacing)]
    return dicom_file(CT, [*elements, *rescaling(rescale), element(0x7FE00010, "OW", values.astype("<i2").tobytes())])


def enhanced_file(
    values: np.ndarray,
    positions: Sequence[str | None],
    *,
    kind: str = ENHANCED_CT,
    orientation: str | Sequence[str] | None = AXIAL,
    spacing: str | Sequence[str] | None = "0.8\\0.8",
    rescale: tuple[str, str] | Sequence[tuple[str, str]] | None = ("-1024", "1"),
    more: Sequence[bytes] = (),
) -> bytes:
    """An enhanced CT with stored values ``(z, y, x)``: a list of options is for each frame, a single one for all of them.

    `more` are further elements at the top level.
    """
    groups = [
        (0x00209116, orientation, isinstance(orientation, str), lambda value: [element(0x00200037, "DS", value)]),
        (0x00289110, spacing, isinstance(spacing, str), lambda value: [element(0x00280030, "DS", value)]),
        (0x00289145, rescale, isinstance(rescale, tuple), rescaling),
    ]
    shared = [sequence(tag, content(value)) for tag, value, is_shared, content in groups if is_shared]
    frames = []
    for number, position in enumerate(positions):
        own = [] if position is None else [sequence(0x00209113, [element(0x00200032, "DS", position)])]
        own += [sequence(tag, content(value[number])) for tag, value, is_shared, content in groups if value and not is_shared]
        frames.append(own)
    elements = [*identity(kind), *more, *encoding(values, frames=len(values))]
    elements += [sequence(0x52009229, shared), sequence(0x52009230, *frames)]
    return dicom_file(kind, [*elements, element(0x7FE00010, "OW", values.astype("<i2").tobytes())])
