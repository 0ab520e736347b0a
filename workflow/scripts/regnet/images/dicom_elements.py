"""The elements of a DICOM file down to its voxels, nested ones included, which SimpleITK does not give.

pydicom gives them, but reads nearly every file that is cut off without an error. Here a file must be whole.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

UNDEFINED = 0xFFFFFFFF
"""The length of a sequence, an item or compressed voxels that end with a mark of their own."""

LONG = set(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Types whose length has four bytes, after two that are reserved."""

SHORT = set(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""Types whose length has two bytes."""

GROUPS = ["0020|9113", "0020|9116", "0028|9110", "0028|9145"]
"""Sequences of one item with the position, orientation, pixel measures and rescaling of a frame."""

SHARED, PER_FRAME = "5200|9229", "5200|9230"

PIXELS, SYNTAX = "7fe0|0010", "0002|0010"

IMPLICIT, DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

UNCOMPRESSED = {IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN}

LONGEST_VALUE = 1024


def read_elements(path: str | Path) -> dict[str, Any]:
    """The elements of a DICOM file down to its voxels, keyed by tags like ``0020|0032``.

    Values are text without padding (ISO 8859-1, numbers in binary as they are), sequences are lists of such dictionaries, and
    the voxels stand as their length in bytes. Longer values than `LONGEST_VALUE` bytes are left out. The encoding is that of
    DICOM PS3.5, sections 7 and 10.

    Raises
    ------
    ValueError
        If the file does not follow it, or ends within an element.
    """
    with open(path, "rb") as file:
        found = _meta(file)
        syntax = found.get(SYNTAX, IMPLICIT)
        data: BinaryIO = file
        if syntax == DEFLATED:
            try:
                data = io.BytesIO(zlib.decompress(file.read(), -zlib.MAX_WBITS))
            except zlib.error as error:
                raise ValueError(str(error)) from error
        return found | _elements(data, _size(data), ">" if syntax == BIG_ENDIAN else "<", syntax != IMPLICIT)


def check_meta(path: str | Path) -> None:
    """Raise `ValueError` if the first elements of a DICOM file, which say how the others are encoded, are damaged.

    GDCM takes damaged ones for others, and hundreds of megabytes of memory for the values that these would have.
    """
    with open(path, "rb") as file:
        _meta(file)


def _meta(file: BinaryIO) -> dict[str, Any]:
    """The elements of the group 0002 after the preamble; none if the file has no preamble."""
    if file.read(132)[128:] != b"DICM":
        file.seek(0)
        return {}
    return _elements(file, _size(file), "<", True, is_meta=True)


def _size(file: BinaryIO) -> int:
    place = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(place)
    return size


def _elements(file: BinaryIO, end: int, order: str, has_types: bool, is_meta: bool = False) -> dict[str, Any]:
    """The elements up to `end`, to the end of an item of undefined length, or of the group 0002 alone."""
    found: dict[str, Any] = {}
    while file.tell() < end:
        if is_meta:
            group = file.read(2)
            file.seek(-len(group), io.SEEK_CUR)
            if group != b"\x02\x00":
                break
        tag, kind, length = _head(file, end, order, has_types)
        if tag == "fffe|e00d":
            break
        if tag == PIXELS:
            if length != UNDEFINED and length > end - file.tell():
                raise ValueError(f"ends {length - (end - file.tell())} bytes before its last voxel")
            found[tag] = length
            break
        if kind == b"SQ" or length == UNDEFINED or (not has_types and tag in (SHARED, PER_FRAME, *GROUPS)):
            # A sequence of unknown type is encoded without types (PS3.5, section 6.2.2).
            found[tag] = _items(file, length, end, order, has_types and kind != b"UN")
            continue
        if length > end - file.tell():
            raise ValueError(f"ends within the element {tag}")
        if length <= LONGEST_VALUE:
            found[tag] = file.read(length).decode("latin-1").strip("\0 ")
        else:
            file.seek(length, io.SEEK_CUR)
    return found


def _head(file: BinaryIO, end: int, order: str, has_types: bool) -> tuple[str, bytes, int]:
    """The tag, the type (empty if the file gives none) and the length of the element that comes next."""
    head = file.read(8)
    if len(head) < 8 or file.tell() > end:
        raise ValueError("ends within an element")
    group, element, length = struct.unpack(f"{order}HHI", head)
    kind = b""
    if has_types and group != 0xFFFE:
        kind, (length,) = head[4:6], struct.unpack(f"{order}H", head[6:])
        if kind not in LONG | SHORT:
            raise ValueError(f"the element {group:04x}|{element:04x} has no known type")
        if kind in LONG:
            (length,) = struct.unpack(f"{order}I", file.read(4).ljust(4, b"\0"))
    return f"{group:04x}|{element:04x}", kind, length


def _items(file: BinaryIO, length: int, end: int, order: str, has_types: bool) -> list[dict[str, Any]]:
    if length != UNDEFINED and length > end - file.tell():
        raise ValueError("ends within a sequence")
    end = end if length == UNDEFINED else file.tell() + length
    items = []
    while file.tell() < end:
        tag, _, size = _head(file, end, order, has_types)
        if tag == "fffe|e0dd":
            break
        if tag != "fffe|e000" or (size != UNDEFINED and size > end - file.tell()):
            raise ValueError("has a damaged sequence")
        items.append(_elements(file, end if size == UNDEFINED else file.tell() + size, order, has_types))
    return items
