"""Files of volumes: which formats are read, which file of a NIfTI pair, units, and whether a file is whole.

ITK reads zeros where a file ends too soon or a compressed stream is damaged, ignores the units of some formats, and takes
another position of a NIfTI image if one is sheared. What it does not report is found here.
"""

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk

from regnet.errors import InputError

NIFTI, META, NRRD, DICOM = "NiftiImageIO", "MetaImageIO", "NrrdImageIO", "GDCMImageIO"
"""ITK's names of the readers that are used. Those of other formats (VTK, TIFF, GIPL, MRC) read files that are cut off."""

NIFTI_SUFFIXES = (".nii.gz", ".nii", ".img.gz", ".img", ".hdr.gz", ".hdr")
"""Suffixes of NIfTI and Analyze files."""

HEADERS, VOXELS = (".hdr", ".hdr.gz"), (".img", ".img.gz")
"""Suffixes of the two files of a NIfTI pair."""

NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64, 1792: 128}
"""Bits of a voxel by NIfTI's code of its type; nifti1.h."""

NIFTI_FLOATS = {16: "f4", 64: "f8"}
"""Floating-point types of NIfTI voxels: the code in the header, and numpy's name."""

NIFTI_UNITS = {1: 1000.0, 3: 0.001}
"""Units of length in NIfTI headers other than mm: the code, and its mm."""

UNITS = {
    "": 1.0,
    "?": 1.0,
    "???": 1.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "millimetre": 1.0,
    "millimetres": 1.0,
    "m": 1000.0,
    "meter": 1000.0,
    "meters": 1000.0,
    "metre": 1000.0,
    "metres": 1000.0,
    "cm": 10.0,
    "um": 0.001,
    "µm": 0.001,
    "μm": 0.001,
    "micron": 0.001,
    "microns": 0.001,
    "micrometer": 0.001,
    "micrometers": 0.001,
}
"""Units of length in headers of text, and their mm."""

SPACING_FIELDS = {META: ("ElementSpacing", "ElementSize"), NRRD: ("space directions", "spacings")}
"""Fields for the spacing, without which ITK takes 1 mm."""

AXES_FIELDS = {META: ("NDims", "DimSize"), NRRD: ("dimension", "sizes")}
"""Fields for the number of axes and for the voxels along each."""

CHUNK = 2**20
"""Bytes that are read at a time."""

LONGEST_HEADER = 2**26
"""Most bytes before the voxels of a NIfTI file; extensions of a few MiB are known."""

DISAGREEMENT = 0.1
"""Largest distance, in voxels, between the positions that a NIfTI header gives to the same voxel."""


def volume_format(path: Path) -> str:
    """ITK's name of the reader of a file: `NIFTI`, `META`, `NRRD` or `DICOM`; empty if ITK cannot read it.

    Raises
    ------
    InputError
        If the file has another format, or its header is damaged so that ITK may crash.
    """
    found = sitk.ImageFileReader.GetImageIOFromFileName(str(path))
    # NiftiImageIO also reads texts (.nia), and may crash.
    if found and (found not in (NIFTI, META, NRRD, DICOM) or (found == NIFTI and not _nifti_name(path)[1])):
        kind = f"a file of {found.removesuffix('ImageIO')}"
        raise InputError(
            f"{path}: cannot be read as an image (found {kind}, expected NIfTI, MetaImage, NRRD or DICOM, for example .nii.gz)"
        )
    problem = _text_header_problem(path, found) if found in (META, NRRD) else None
    if problem:
        raise InputError(f"{path}: cannot be read as an image (damaged header: {problem})")
    return found


def _text_header_problem(path: Path, kind: str) -> str | None:
    """What in a MetaImage or NRRD header could crash ITK: control characters, and numbers of axes that disagree."""
    fields, end = _text_header(path, kind)
    with open(path, "rb") as file:
        # A list of files may follow.
        control = re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f]", file.read(end))
    if control:
        return f"found the byte {control[0][0]} at {control.start()}, expected text"
    dimensions, sizes = (fields.get(name, "") for name in AXES_FIELDS[kind])
    if not dimensions.isdecimal() or not all(size.isdecimal() for size in sizes.split()):
        return f"found {dimensions!r} axes of {sizes!r} voxels, expected numbers"
    if len(sizes.split()) != int(dimensions):
        return f"found {dimensions} axes and {len(sizes.split())} sizes, expected as many"
    return None


@contextmanager
def only_file(path: Path) -> Iterator[str]:
    """Yield the name under which ITK reads the file `path`.

    Asked for ``scan.nii.gz``, ITK takes the voxels of ``scan.nii`` if that lies beside it, and those of ``scan.img`` for
    ``scan.img.gz`` (ITK issue 2243). Such a file is read through a link in a folder of its own.

    Raises
    ------
    InputError
        If `path` is a ``.hdr`` beside both an ``.img`` and an ``.img.gz``.
    """
    stem, suffix = _nifti_name(path)
    if not suffix or not any(path.with_name(stem + other).exists() for other in _twins(suffix)):
        yield str(path)
        return
    files = [path] if suffix.lower().startswith(".nii") else [*nifti_pair(path)]
    with TemporaryDirectory() as folder:
        for file in files:
            os.symlink(file.absolute(), Path(folder) / file.name)
        yield str(Path(folder) / path.name)


def _nifti_name(path: Path) -> tuple[str, str]:
    """The name of a NIfTI file without and with its suffix alone; the suffix is empty for other files."""
    suffix = next((suffix for suffix in NIFTI_SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)], path.name[len(path.name) - len(suffix) :]


def _twins(suffix: str) -> list[str]:
    """Other suffixes with which ITK may look for the voxels of a NIfTI file."""
    return [twin for lower in NIFTI_SUFFIXES for twin in (lower, lower.upper()) if twin.lower() != suffix.lower()]


def nifti_pair(path: Path) -> tuple[Path, Path]:
    """The files with the header and with the voxels of a NIfTI image, of which `path` is one; a ``.nii`` is both.

    Raises
    ------
    InputError
        If one is missing, or a ``.hdr`` has two files of voxels.
    """
    stem, suffix = _nifti_name(path)
    is_header = suffix.lower() in HEADERS
    if not is_header and suffix.lower() not in VOXELS:
        return path, path
    wanted = VOXELS if is_header else HEADERS
    names = {stem + (other.upper() if upper else other) for other in wanted for upper in (False, True)}
    found = [path.with_name(name) for name in sorted(names) if path.with_name(name).exists()]
    if len(found) != 1:
        listed = " and ".join(other.name for other in found) or "no such file"
        raise InputError(f"{path}: cannot be read as an image (found {listed}, expected one {' or '.join(wanted)} beside it)")
    return (path, found[0]) if is_header else (found[0], path)


def file_problem(path: Path, header: sitk.ImageFileReader, voxels: bool = True) -> str | None:
    """What is wrong with the file of a volume, although ITK reads it; None if nothing is.

    The file must have exactly the bytes that its header announces; a compressed stream must be intact to its end, where it has
    a checksum. An uncompressed file has none: a changed byte of its voxels cannot be found.

    Parameters
    ----------
    path
        A NIfTI, MetaImage or NRRD file. Any other passes.
    header
        A reader that has read the header of `path`.
    voxels
        Whether to read everything. Otherwise only the header and the lengths are checked.
    """
    try:
        kind = volume_format(path)
        if kind == NIFTI:
            return nifti_problem(path, voxels) or _position_problem(path, header)
        if kind not in (META, NRRD):
            return None
        fields, start = _text_header(path, kind)
        spacing = " ".join(fields.get(name, "") for name in SPACING_FIELDS[kind]).lower()
        # The axis of the vectors of a field has no spacing.
        if not spacing.strip() or spacing.count("nan") + spacing.count("none") > (header.GetNumberOfComponents() > 1):
            return f"found no spacing, expected it in the field {' or '.join(SPACING_FIELDS[kind])}"
        if header.GetNumberOfComponents() > 1 and millimetres(path) != 1:
            return "found vectors in another unit, expected mm"
        values = math.prod(header.GetSize()) * header.GetNumberOfComponents()
        expected = values * sitk.Image([1, 1, 1], header.GetPixelID()).GetSizeOfPixelComponent()
        check = _meta_problem if kind == META else _nrrd_problem
        return check(path, fields, start, values, expected, voxels)
    except (OSError, EOFError, zlib.error) as error:
        return str(error)
    except (ValueError, OverflowError, struct.error) as error:
        return f"damaged header: {error}"


def millimetres(path: Path) -> float:
    """How many mm the unit of length of a file has that ITK ignores: of a MetaImage or NRRD file; 1 for any other.

    Raises
    ------
    InputError
        If the unit is unknown, or differs between the axes.
    """
    kind = volume_format(path)
    if kind not in (META, NRRD):
        return 1.0
    fields, _ = _text_header(path, kind)
    if kind == META:
        name, units = "DistanceUnits", [fields.get("DistanceUnits", "")]
    else:
        name = "space units" if "space units" in fields else "units"
        # The axis of the vectors of a field has an empty one.
        units = [unit for unit in re.findall(r'"([^"]*)"', fields.get(name, "")) if unit.strip()]
    factors = {UNITS.get(unit.strip().lower()) for unit in units} or {1.0}
    factor = factors.pop()
    if factors or factor is None:
        raise InputError(f"{path}: {name}: found {', '.join(map(repr, units))}, expected one unit of mm, m, cm or um")
    return factor


def nifti_problem(path: Path, voxels: bool = True) -> str | None:
    """What is wrong with the length, the stream and the numbers of a NIfTI file, although ITK reads it; None if nothing is.

    ITK reads zeros where a file ends too soon and in place of NaN, and takes a spacing of 0 for 1 mm. Without `voxels` only the
    header and the length, with which a compressed file ends, are checked. Any other file passes.

    Raises
    ------
    InputError
        As in `nifti_pair`.
    """
    if not _nifti_name(path)[1]:
        return None
    try:
        header_path, voxel_path = nifti_pair(path)
        with _opened(header_path) as file:
            header = file.read(348)
        if len(header) < 348:
            return f"found {len(header)} bytes, expected a header of 348"
        order = _byte_order(header)
        if order is None:
            return "damaged header: its first number is not its length"
        dimensions, *sizes = struct.unpack_from(f"{order}8h", header, 40)
        datatype, bits, _, _, *spacing = struct.unpack_from(f"{order}3h4f", header, 70)
        (offset,) = struct.unpack_from(f"{order}f", header, 108)
        if not 1 <= dimensions <= 7 or min(sizes[:dimensions]) < 1:
            return f"damaged header: found {dimensions} dimensions of {_times(sizes[: max(0, dimensions)])} voxels"
        if not all(0 < side < math.inf for side in spacing[: min(dimensions, 3)]):
            return f"found a spacing of {_times(spacing[:dimensions])} mm, expected more than 0"
        if NIFTI_BITS.get(datatype, bits) != bits:
            return f"damaged header: found {bits} bits per voxel for the type {datatype}, expected {NIFTI_BITS[datatype]}"
        if offset != int(offset) or not (352 if voxel_path == header_path else 0) <= offset <= LONGEST_HEADER:
            return f"damaged header: found voxels at byte {offset:g}"
        expected = int(offset) + math.prod(sizes[:dimensions]) * bits // 8
        if not voxels and _apparent_length(voxel_path) == expected % (2**32 if _is_gzip(voxel_path) else math.inf):
            return None
        with _opened(voxel_path) as file:
            length = len(file.read(int(offset)))
            for chunk in _chunks(file):
                length += len(chunk)
                if datatype in NIFTI_FLOATS:
                    values = np.frombuffer(chunk, order + NIFTI_FLOATS[datatype], len(chunk) * 8 // bits)
                    if not np.isfinite(values).all():
                        return "found voxels that are not finite numbers"
    except (OSError, EOFError, zlib.error) as error:
        return str(error)
    except (ValueError, OverflowError) as error:
        return f"damaged header: {error}"
    return None if length == expected else f"found {length} bytes of header and voxels, expected {expected}"


def _byte_order(header: bytes) -> str | None:
    """The byte order of a NIfTI header in `struct`'s notation, from the length with which it begins."""
    return next((order for order in "<>" if struct.unpack_from(f"{order}i", header)[0] == 348), None)


def _position_problem(path: Path, reader: sitk.ImageFileReader) -> str | None:
    """Whether a NIfTI header gives its voxels another position than ITK: by its sform or its qform, if their codes are not 0.

    ITK takes one of them, warns if the sform is sheared, and takes the spacing from pixdim in any case.
    """
    with _opened(nifti_pair(path)[0]) as file:
        header = file.read(348)
    order = _byte_order(header) or "<"
    if header[344:347] not in (b"n+1", b"ni1"):
        return None
    (unit,) = struct.unpack_from("B", header, 123)
    if unit & 7 in NIFTI_UNITS and reader.GetNumberOfComponents() > 1:
        return "found vectors in another unit, expected mm"
    to_lps = np.diag([-1.0, -1.0, 1.0]) * NIFTI_UNITS.get(unit & 7, 1.0)
    qform, sform = struct.unpack_from(f"{order}2h", header, 252)
    forms = {}
    if sform > 0:
        forms["sform"] = np.reshape(struct.unpack_from(f"{order}12f", header, 280), (3, 4))
    if qform > 0:
        pixdim, quaternion = struct.unpack_from(f"{order}4f", header, 76), struct.unpack_from(f"{order}6f", header, 256)
        forms["qform"] = _qform(pixdim, quaternion)
    for name, form in forms.items():
        if not np.isfinite(form).all():
            return f"found a {name} that is not finite"
        forms[name] = to_lps @ form
    spacing = np.array(reader.GetSpacing())
    itk = np.column_stack([np.reshape(reader.GetDirection(), (3, 3)) * spacing, reader.GetOrigin()])
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.reshape(reader.GetSize(), (3, 1)) - 1)
    corners = np.vstack([corners, np.ones(8)])
    for name, form in forms.items():
        distance = np.linalg.norm((form - itk) @ corners, axis=0).max()
        if not distance <= DISAGREEMENT * spacing.min():
            columns = form[:, :3] / np.maximum(np.linalg.norm(form[:, :3], axis=0), 1e-9)
            if not np.allclose(columns.T @ columns, np.eye(3), atol=1e-3):
                return f"found a sheared {name}, expected axes at right angles"
            other = "pixdim" if len(forms) == 1 else "qform" if name == "sform" else "sform"
            return (
                f"found {name} and {other} that place voxels {distance:.3g} mm apart, expected one position; set the code of "
                "the wrong one to 0"
            )
    return None


def _qform(pixdim: Sequence[float], quaternion: Sequence[float]) -> np.ndarray:
    """The matrix ``(3, 4)`` of a qform, from voxels to mm in RAS, as nifti1.h defines it."""
    b, c, d, *offset = quaternion
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    handed = -1 if pixdim[0] < 0 else 1
    return np.column_stack([rotation * (np.array(pixdim[1:]) * (1, 1, handed)), offset])


def _text_header(path: Path, kind: str) -> tuple[dict[str, str], int]:
    """The fields of a MetaImage or NRRD header, and where it ends in the file.

    The header of a MetaImage ends with the field ElementDataFile, that of NRRD with an empty line.
    """
    fields: dict[str, str] = {}
    with open(path, "rb") as file:
        while raw := file.readline(2**16):
            line = raw.decode("utf-8", "replace").strip()
            if kind == META:
                # As in MetaIO, a name ends with a blank, too.
                name, *rest = re.split(r"[\s=:]+", line, maxsplit=1)
                fields[name] = " ".join(rest)
                if name == "ElementDataFile":
                    break
            elif not line:
                break
            elif not line.startswith("#") and ":=" not in line:
                name, _, value = (part.strip() for part in line.partition(":"))
                fields[name.lower()] = value
                if name.lower() in ("data file", "datafile") and value.upper().startswith("LIST"):
                    break
        return fields, file.tell()


def _meta_problem(path: Path, fields: dict[str, str], start: int, values: int, expected: int, voxels: bool) -> str | None:
    """What is wrong with the voxels of a MetaImage of `values` numbers and `expected` bytes."""
    name, skip = fields["ElementDataFile"], int(fields.get("HeaderSize", 0))
    is_compressed = fields.get("CompressedData", "")[:1] in ("T", "t", "1")
    if name.split()[:1] == ["LIST"] or "%" in name:
        slices = int(fields["DimSize"].split()[-1])
        files, each = _numbered(path, name, slices) if "%" in name else _listed(path, start), expected // slices
        if is_compressed:
            return "found compressed slices in several files, expected one file with all voxels"
        return next((problem for file in files if (problem := _raw_problem(file, max(0, skip), each, skip < 0))), None)
    is_local = name.upper() == "LOCAL"
    file = path if is_local else path.parent / name
    begin = skip if skip > 0 else start if is_local else 0
    if fields.get("BinaryData", "True")[:1] not in ("T", "t", "1"):
        return _text_problem(file, begin, values)
    if not is_compressed:
        return _raw_problem(file, begin, expected, skip < 0)
    size, found = int(fields.get("CompressedDataSize", 0)), os.stat(file).st_size - begin
    if is_local and not size:
        # ITK would read other voxels.
        return "found no size of the compressed voxels, expected it in the field CompressedDataSize"
    if size > found:
        return f"found {found} bytes of compressed voxels, expected {size}"
    if not voxels:
        return None
    with open(file, "rb") as stream:
        stream.seek(begin)
        return _zlib_problem(stream, expected, size)


def _listed(path: Path, start: int) -> list[Path]:
    """The files that are listed at the end of a header."""
    with open(path, "rb") as file:
        file.seek(start)
        return [path.parent / line.strip() for line in file.read().decode("utf-8").splitlines() if line.strip()]


def _numbered(path: Path, pattern: str, slices: int) -> list[Path]:
    """The files of a pattern for numbers with the first and the last one and the step; `slices` files if these are missing."""
    name, *numbers = pattern.split()
    first, last, step, *_ = (*map(int, numbers), *(1, slices, 1)[len(numbers) :])
    return [path.parent / (name % number) for number in range(first, last + 1, step)]


def _nrrd_problem(path: Path, fields: dict[str, str], start: int, values: int, expected: int, voxels: bool) -> str | None:
    """What is wrong with the voxels of an NRRD file of `values` numbers and `expected` bytes."""
    name = fields.get("data file", fields.get("datafile", ""))
    encoding = fields["encoding"].lower()
    lines = int(fields.get("line skip", fields.get("lineskip", 0)))
    skip = int(fields.get("byte skip", fields.get("byteskip", 0)))
    if name.upper().startswith("LIST") or "%" in name:
        if encoding != "raw" or lines:
            return "found compressed voxels in several files, expected one file with all voxels"
        files = _listed(path, start) if name.upper().startswith("LIST") else _numbered(path, name, 0)
        each = expected // max(1, len(files))
        return next((problem for file in files if (problem := _raw_problem(file, max(0, skip), each, skip < 0))), None)
    file, begin = (path.parent / name, 0) if name else (path, start)
    if lines:
        with open(file, "rb") as stream:
            stream.seek(begin)
            for _ in range(lines):
                stream.readline()
            begin = stream.tell()
    if encoding == "raw":
        return _raw_problem(file, begin + max(0, skip), expected, skip < 0)
    if encoding in ("gzip", "gz"):
        if not voxels and _apparent_length(file) == (expected + skip) % 2**32:
            return None
        with open(file, "rb") as stream:
            stream.seek(begin)
            with gzip.open(stream) as unpacked:
                length = sum(map(len, _chunks(unpacked)))
        return None if length == expected + skip else f"found {length - skip} bytes of voxels, expected {expected}"
    if encoding in ("ascii", "text", "txt"):
        return _text_problem(file, begin, values)
    return f"found the encoding {encoding}, expected raw, gzip or ascii"


def _raw_problem(file: Path, begin: int, expected: int, from_end: bool) -> str | None:
    """Whether a file has other than `expected` bytes after `begin`, or fewer if the voxels are its last bytes."""
    found = os.stat(file).st_size - begin
    if found == expected or (from_end and found > expected):
        return None
    return f"found {found} bytes of voxels, expected {expected}"


def _text_problem(file: Path, begin: int, values: int) -> str | None:
    """Whether voxels that are written as text are not `values` numbers."""
    with open(file, "rb") as stream:
        stream.seek(begin)
        words = stream.read().split()
    if len(words) != values:
        return f"found {len(words)} numbers, expected {values}"
    if not np.isfinite(np.array(words, float)).all():
        return "found voxels that are not finite numbers"
    return None


def _zlib_problem(stream: BinaryIO, expected: int, size: int) -> str | None:
    """Whether a stream of zlib or gzip is damaged, or has not `expected` bytes, or not `size` compressed ones, unless 0."""
    unpacker, packed, length = zlib.decompressobj(zlib.MAX_WBITS | 32), 0, 0
    for chunk in _chunks(stream):
        length += len(unpacker.decompress(chunk))
        packed += len(chunk) - len(unpacker.unused_data)
        if unpacker.eof:
            break
    if not unpacker.eof:
        return "the compressed voxels end too soon"
    if size not in (0, packed):
        return f"found {packed} bytes of compressed voxels, expected {size}"
    return None if length == expected else f"found {length} bytes of voxels, expected {expected}"


def _chunks(stream: BinaryIO | gzip.GzipFile) -> Iterable[bytes]:
    return iter(lambda: stream.read(CHUNK), b"")


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """A file that may be compressed by gzip, open for reading."""
    return gzip.open(path, "rb") if _is_gzip(path) else open(path, "rb")


def _apparent_length(path: Path) -> int:
    """The length of a file; of a compressed one the length modulo 2**32 of what it holds, with which it ends."""
    size = os.stat(path).st_size
    if not _is_gzip(path):
        return size
    with open(path, "rb") as file:
        file.seek(max(0, size - 4))
        return int.from_bytes(file.read(), "little")


def _times(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:g}" for side in sides)
