"""DICOM series: which files or frames form one image, in which order, where they are, and whether one is missing."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.images.dicom_elements import GROUPS, PER_FRAME, PIXELS, SHARED, SYNTAX, UNCOMPRESSED, check_meta, read_elements
from regnet.system.files import refuse_undecodable

UNEVEN_SLICES = 0.1
"""Largest deviation of the distance between two slices from its median, relative to the median; a missing slice has 1."""

ROUNDING = 0.101
"""Largest deviation, in mm, that positions rounded to 0.1 mm cause in a distance."""

TILT = 0.02
"""Largest shift of a slice within its plane, relative to the distance between slices; a gantry tilt of 2 degrees has 0.03."""

DRIFT = 0.5
"""Largest shift of a slice against the first one within their plane, in mm."""

SPACINGS = (0.01, 30.0)
"""Plausible spacing of CT, in mm: pixels of micro-CT, and slices far apart."""

SERIES, MODALITY, DESCRIPTION, CLASS = "0020|000e", "0008|0060", "0008|103e", "0008|0016"

POSITION, ORIENTATION, PIXEL_SPACING, SLICE_SPACING = "0020|0032", "0020|0037", "0028|0030", "0018|0088"

ROWS, INTERCEPT, SLOPE = "0028|0010", "0028|1052", "0028|1053"

COLOUR, SAMPLES, ALLOCATED, STORED, HIGH, SIGNED = (f"0028|{tag}" for tag in ("0004", "0002", "0100", "0101", "0102", "0103"))

ENCODING = {
    COLOUR: "photometric interpretation",
    ALLOCATED: "bits allocated",
    STORED: "bits stored",
    HIGH: "high bit",
    SIGNED: "sign",
}
"""What all slices of a series have in common."""

CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""Kinds of files with CT: single slices, enhanced CT, and slices converted to enhanced CT."""

MEDIA_CLASS, DIRECTORY = "0002|0002", "1.2.840.10008.1.3.10"
"""Where a file says its kind first, and the kind of a DICOMDIR."""

NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


@dataclass(frozen=True)
class Series:
    """The slices or frames of one image, in order, and where they are.

    Attributes
    ----------
    names
        The files, from the first slice to the last; or the one file that holds all frames.
    size, spacing, origin, direction
        As in `regnet.images.volumes.Grid`: voxels, mm, mm LPS, direction cosines row by row.
    frames
        The numbers of the frames in the file, counted from 0, in the order of the slices; None for slices in files of their
        own.
    rescales
        Intercept and slope of each slice ``(n, 2)``, in HU, in the order of the files or of the frames in their file; None
        where all have the same.
    """

    names: list[str]
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    frames: list[int] | None = None
    rescales: np.ndarray | None = None

    def image(self) -> sitk.Image:
        """Read the voxels: HU, from the first slice to the last."""
        # The reader takes the type of the first slice for all of them: integers, if its slope is one.
        kind = sitk.sitkUnknown if self.rescales is None else sitk.sitkFloat64
        with _no_warnings():
            image = sitk.ReadImage(self.names if len(self.names) > 1 else self.names[0], kind)
        if self.frames is not None:
            image = sitk.GetImageFromArray(self._rescaled(sitk.GetArrayViewFromImage(image)[self.frames], self.frames))
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def slice(self, number: int) -> np.ndarray:
        """Read the voxels ``(y, x)`` of one slice, in HU."""
        name, frame = (self.names[number], 0) if self.frames is None else (self.names[0], self.frames[number])
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        reader.SetExtractIndex((0, 0, frame))
        reader.SetExtractSize((*self.size[:2], 1))
        values = sitk.GetArrayFromImage(reader.Execute())
        return values[0] if self.frames is None else self._rescaled(values, [frame])[0]

    def _rescaled(self, values: np.ndarray, frames: Sequence[int]) -> np.ndarray:
        """Values ``(z, y, x)`` of some frames with their own rescaling: GDCM rescales all frames of a file like the first."""
        if self.rescales is None:
            return values
        intercept, slope = self.rescales[0]
        own = self.rescales[frames].T[:, :, None, None]
        return (values - intercept) / slope * own[1] + own[0]


def is_dicom(path: Path) -> bool:
    """Whether a file is a DICOM file, with or without the usual preamble.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            if file.read(132)[128:] == b"DICM":
                return True
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image ({error.strerror})") from error
    try:
        return sitk.ImageFileReader.GetImageIOFromFileName(str(path)) == "GDCMImageIO"
    except RuntimeError:
        return False


def read_series(path: str | Path) -> Series:
    """The slices of a DICOM series, or the frames of one file, in order, with the grid that their positions give.

    The spacing along the slices is their mean distance, so that positions rounded to 0.1 mm add no error.

    Parameters
    ----------
    path
        A folder with one CT series (series of other modalities are ignored); any file of the wanted series; or a file with
        several frames (enhanced CT).

    Raises
    ------
    InputError
        If there is no such series or more than one; the message lists what the folder holds. If a file of it is damaged. If
        slices or frames are missing, doubled, unevenly spaced or shifted against each other, or differ in orientation, pixel
        spacing, size or encoding. If the pixel spacing is missing or implausible, or if frames have no positions.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    header = None if path.is_dir() else _header(str(path))
    if header is not None and _frame_count(header) > 1:
        return _of_frames(path, header)
    files = _series_of(folder)
    if header is None:
        chosen = files[_only_series(folder, files)]
    else:
        chosen = files.get(_tags(header).get(SERIES, ""), {str(path): header})
    names, headers = list(chosen), list(chosen.values())
    if len(names) == 1:
        return _of_frames(Path(names[0]), headers[0])
    several = [Path(name).name for name, header in chosen.items() if _frame_count(header) > 1]
    if several:
        raise InputError(
            f"{folder}: found {len(several)} files with several frames in one series, expected one, or one of these files "
            f"instead: {', '.join(several)}"
        )
    return _of_slices(folder, names, headers)


def _series_of(folder: Path) -> dict[str, dict[str, sitk.ImageFileReader]]:
    """The files of each series in a folder, sorted by their names, and readers that have read their headers.

    Reports and other DICOM files without an image are passed over, and so are files in other formats. A file of CT that cannot
    be read is refused: it may be the first or the last slice, which nothing else would miss.
    """
    files: dict[str, dict[str, sitk.ImageFileReader]] = {}
    others = []
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or not file.is_file():
            continue
        if not is_dicom(file):
            others.append(file)
            continue
        refuse_undecodable(file)
        try:
            header = _header(str(file))
        except InputError:
            if _may_be_ct(file):
                raise
            continue
        files.setdefault(_tags(header).get(SERIES, ""), {})[str(file)] = header
    suffixes = {Path(name).suffix for names in files.values() for name in names} - {""}
    for file in others:
        if file.suffix in suffixes:
            raise InputError(f"{file}: cannot be read as an image, expected a DICOM file like the others with this suffix")
    return files


def _may_be_ct(path: Path) -> bool:
    """Whether a DICOM file that cannot be read as an image may be one of CT: it is damaged, or has voxels of CT."""
    try:
        elements = read_elements(path)
    except ValueError:
        return True
    if MODALITY not in elements:
        return elements.get(MEDIA_CLASS) != DIRECTORY
    has_image = elements.get(CLASS) in CT_CLASSES or bool({PIXELS, ROWS} & elements.keys())
    return elements[MODALITY] == "CT" and has_image


def _only_series(folder: Path, files: dict[str, dict[str, sitk.ImageFileReader]]) -> str:
    """The one CT series among those of a folder."""
    expected = "expected a folder with one DICOM series"
    if not files:
        folders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        more = f" and the folders {', '.join(folders[:3])}{' ...' if len(folders) > 3 else ''}" if folders else ""
        raise InputError(f"{folder}: found no DICOM files{more}, {expected}")
    firsts = {uid: next(iter(names)) for uid, names in files.items()}
    tags = {uid: _tags(files[uid][name]) for uid, name in firsts.items()}
    chosen = [uid for uid in files if tags[uid].get(MODALITY, "CT") == "CT"] or list(files)
    if len(chosen) > 1:
        listed = "; ".join(
            f"{Path(firsts[uid]).name} ({len(files[uid])} slices, {tags[uid].get(DESCRIPTION, 'no description')!r})"
            for uid in sorted(chosen, key=lambda uid: firsts[uid])
        )
        raise InputError(f"{folder}: found {len(chosen)} series, {expected}, or one of these files instead: {listed}")
    return chosen[0]


def _header(name: str) -> sitk.ImageFileReader:
    """A reader that has read the header of a file."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        check_meta(name)
        reader.ReadImageInformation()
    except (ValueError, RuntimeError) as error:
        # GDCM's messages name lines of its source.
        raise InputError(
            f"{name}: cannot be read as an image (damaged, without orientation, or in a compression that GDCM cannot read), "
            "expected a DICOM file of CT"
        ) from error
    return reader


def _frame_count(header: sitk.ImageFileReader) -> int:
    return header.GetSize()[2] if header.GetDimension() > 2 else 1


def _tags(header: sitk.ImageFileReader) -> dict[str, str]:
    """The elements of a file that stand at its top level, as text."""
    return {tag: header.GetMetaData(tag).strip("\0 ") for tag in header.GetMetaDataKeys() if "|" in tag}


def _of_slices(folder: Path, names: list[str], headers: list[sitk.ImageFileReader]) -> Series:
    """The series of slices in files of their own."""
    tags = [_tags(header) for header in headers]
    labels = [Path(name).name for name in names]
    sizes = [header.GetSize()[:2] for header in headers]
    if len(set(sizes)) > 1:
        odd = next(number for number, size in enumerate(sizes) if size != sizes[0])
        found = " and ".join(f"{' x '.join(map(str, sizes[number]))} pixels in {labels[number]}" for number in (0, odd))
        raise InputError(f"{folder}: found {found}, expected slices of one size")
    for tag, name in ENCODING.items():
        values = [slice_tags.get(tag, "") for slice_tags in tags]
        odd = next((number for number, value in enumerate(values) if value != values[0]), 0)
        if odd:
            found = f"the {name} {values[0]!r} in {labels[0]} and {values[odd]!r} in {labels[odd]}"
            raise InputError(f"{folder}: found {found}, expected slices with one encoding")
    # Files from before DICOM have none.
    _refuse_other_colours(folder, tags[0].get(COLOUR, "MONOCHROME2"), tags[0])
    order, spacing, origin, direction = _layout(folder, "slices", labels, tags)
    rescales = _rescales(folder, labels, tags)
    return Series(
        [names[number] for number in order],
        (*sizes[0], len(names)),
        spacing,
        origin,
        direction,
        rescales=None if rescales is None else rescales[order],
    )


def _of_frames(path: Path, header: sitk.ImageFileReader) -> Series:
    """The series of frames in one file, which may be a single slice."""
    try:
        elements = read_elements(path)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as an image ({error})") from error
    size = (*header.GetSize()[:2], _frame_count(header))
    tags = _tags(header)
    _refuse_other_colours(path, tags.get(COLOUR, ""), tags)
    bits = int(np.prod(size)) * int(tags.get(SAMPLES, 1)) * int(tags[ALLOCATED])
    length = elements.get(PIXELS, 0)
    if elements.get(SYNTAX) in UNCOMPRESSED and not 0 <= length - -(-bits // 8) <= 1:
        raise InputError(f"{path}: found {length} bytes of voxels, expected {-(-bits // 8)} for {size} voxels")
    if tags.get(STORED) != str(int(tags.get(HIGH, 0)) + 1):
        raise InputError(f"{path}: found {tags.get(STORED)} bits stored up to bit {tags.get(HIGH)}, expected all bits up to it")
    if size[2] == 1:
        # Nothing tells where a single slice's neighbours would be: what ITK takes for its thickness stays.
        return Series([str(path)], size, header.GetSpacing(), header.GetOrigin(), header.GetDirection())
    frames = [_frame(elements, item) for item in elements.get(PER_FRAME, [])] or _even_frames(path, elements, size[2])
    if len(frames) != size[2]:
        raise InputError(f"{path}: found positions for {len(frames)} of {size[2]} frames, expected one for each")
    labels = [str(number + 1) for number in range(len(frames))]
    order, spacing, origin, direction = _layout(path, "frames", labels, frames)
    rescales = _rescales(path, [f"frame {label}" for label in labels], frames)
    is_ct = elements.get(CLASS) in CT_CLASSES[1:]
    if elements.get(MODALITY, "CT") == "CT" and SLOPE not in frames[0]:
        raise InputError(f"{path}: found frames without a rescale intercept and slope, expected them in an enhanced CT")
    if not is_ct and any(frame.get(tag) != elements.get(tag) for frame in frames for tag in (SLOPE, INTERCEPT)):
        raise InputError(
            f"{path}: found rescaling for each frame in a file of class {elements.get(CLASS)}, expected an enhanced CT"
        )
    return Series([str(path)], size, spacing, origin, direction, order, rescales)


def _frame(elements: dict[str, Any], own: dict[str, Any]) -> dict[str, str]:
    """The elements of a frame: those of the file, its own, and the shared ones, which GDCM prefers."""
    frame = {tag: value for tag, value in elements.items() if tag not in (SHARED, PER_FRAME)}
    for groups in (own, *elements.get(SHARED, [])[:1]):
        for group in GROUPS:
            for item in groups.get(group, [])[:1]:
                frame |= item
    return frame


def _even_frames(path: Path, elements: dict[str, Any], count: int) -> list[dict[str, str]]:
    """The elements of frames that only have the position of the first and a distance in common."""
    if not all(tag in elements for tag in (POSITION, ORIENTATION, SLICE_SPACING)):
        raise InputError(f"{path}: found {count} frames without positions, expected an enhanced CT with a position for each")
    first, axes = (_numbers(path, "frame 1", elements, tag, number) for tag, number in ((POSITION, 3), (ORIENTATION, 6)))
    (step,) = _numbers(path, "frame 1", elements, SLICE_SPACING, 1)
    positions = first + step * np.arange(count)[:, None] * np.cross(axes[:3], axes[3:])
    return [{**elements, POSITION: "\\".join(map(str, position.tolist()))} for position in positions]


def _refuse_other_colours(path: Path, colour: str, tags: dict[str, str]) -> None:
    """Refuse voxels of one component that are not plain grey values: GDCM inverts MONOCHROME1 before it rescales it."""
    if tags.get(SAMPLES, "1") == "1" and colour != "MONOCHROME2":
        raise InputError(f"{path}: found the photometric interpretation {colour!r}, expected MONOCHROME2")


def _numbers(path: Path, label: str, tags: dict[str, str], tag: str, count: int) -> np.ndarray:
    """The decimal numbers ``(count,)`` of an element."""
    names = {POSITION: "position", ORIENTATION: "orientation", PIXEL_SPACING: "pixel spacing"}
    names |= {INTERCEPT: "rescale intercept", SLOPE: "rescale slope", SLICE_SPACING: "spacing between slices"}
    texts = tags.get(tag, "").split("\\")
    if (
        len(texts) != count
        or not all(NUMBER.fullmatch(text) for text in texts)
        or not np.isfinite(np.array(texts, float)).all()
    ):
        found = f"the {names[tag]} {tags[tag]!r}" if tags.get(tag) else f"no {names[tag]}"
        raise InputError(f"{path}: found {found} in {label}, expected {count} number{'s' if count > 1 else ''}")
    return np.array(texts, float)


def _rescales(path: Path, labels: list[str], tags: list[dict[str, str]]) -> np.ndarray | None:
    """Intercept and slope of each slice ``(n, 2)``, or None where all have the same."""
    given = [(INTERCEPT in slice_tags) + (SLOPE in slice_tags) for slice_tags in tags]
    if not any(given):
        return None
    if min(given) < 2:
        label = labels[given.index(min(given))]
        raise InputError(f"{path}: found no rescale intercept or no slope in {label}, expected both in all slices or none")
    pairs = zip(labels, tags, strict=True)
    rescales = np.array([[_numbers(path, label, own, tag, 1)[0] for tag in (INTERCEPT, SLOPE)] for label, own in pairs])
    if (rescales[:, 1] == 0).any():
        raise InputError(
            f"{path}: found a rescale slope of 0 in {labels[int(np.argmin(np.abs(rescales[:, 1])))]}, expected another"
        )
    return None if (rescales == rescales[0]).all() else rescales


def _layout(
    path: Path, kind: str, labels: list[str], tags: list[dict[str, str]]
) -> tuple[list[int], tuple[float, float, float], tuple[float, float, float], tuple[float, ...]]:
    """Order, spacing, origin and direction of slices or frames, from the positions of all of them, which are checked."""
    if not all(POSITION in slice_tags and ORIENTATION in slice_tags for slice_tags in tags):
        raise InputError(f"{path}: found {kind} without position or orientation, expected a DICOM series of CT")
    pairs = list(zip([f"{kind[:-1]} {label}" for label in labels], tags, strict=True))
    positions = np.array([_numbers(path, label, own, POSITION, 3) for label, own in pairs])
    axes = np.array([_numbers(path, label, own, ORIENTATION, 6) for label, own in pairs])
    pixels = np.array([_numbers(path, label, own, PIXEL_SPACING, 2) for label, own in pairs])
    if np.abs(axes - axes[0]).max() > 1e-3:
        raise InputError(f"{path}: found {kind} in several orientations, expected a DICOM series of parallel {kind}")
    row, column = axes[0, :3], axes[0, 3:]
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=0.01):
        found = ", ".join(f"{value:g}" for value in axes[0])
        raise InputError(f"{path}: found the orientation {found}, expected axes of length 1 at right angles")
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    normal = np.cross(row, column)
    odd = int(np.argmax(np.abs(pixels - pixels[0]).max(axis=1)))
    if not np.allclose(pixels, pixels[0], rtol=1e-4, atol=0):
        found = " and ".join(f"{pixels[number][1]:g} x {pixels[number][0]:g} mm in {pairs[number][0]}" for number in (0, odd))
        raise InputError(f"{path}: found pixels of {found}, expected {kind} with one pixel spacing")
    order = np.argsort(positions @ normal, kind="stable")
    step = _even_step(path, kind, [labels[number] for number in order], positions[order], normal)
    spacing = (float(pixels[0, 1]), float(pixels[0, 0]), step)
    if not all(SPACINGS[0] <= side <= SPACINGS[1] for side in spacing):
        found = " x ".join(f"{side:g}" for side in spacing)
        raise InputError(f"{path}: found a spacing of {found} mm, expected {SPACINGS[0]:g} to {SPACINGS[1]:g} mm")
    x, y, z = positions[order[0]].tolist()
    return order.tolist(), spacing, (x, y, z), tuple(np.stack([row, column, normal], axis=1).ravel().tolist())


def _even_step(path: Path, kind: str, labels: list[str], positions: np.ndarray, normal: np.ndarray) -> float:
    """The mean distance of sorted slices, in mm; checks that they are evenly spaced and not shifted against each other."""
    expected = f"expected a DICOM series without missing, doubled or uneven {kind}"
    offsets = np.diff(positions, axis=0)
    steps = offsets @ normal
    usual = float(np.median(steps))
    tolerance = max(UNEVEN_SLICES * usual, min(ROUNDING, usual / 2))
    uneven = np.abs(steps - usual) > tolerance
    if usual <= 0 or uneven.any():
        number = int(np.argmax(np.abs(steps - usual))) if usual > 0 else int(np.argmin(steps))
        between = f"{labels[number]} and {labels[number + 1]}"
        raise InputError(
            f"{path}: found {steps[number]:.2f} mm between the {kind} {between}, where {usual:.2f} mm is usual, {expected}"
        )
    heights = (positions - positions[0]) @ normal
    mean = float(heights[-1]) / len(steps)
    deviations = np.abs(heights - mean * np.arange(len(heights)))
    if deviations.max() > tolerance:
        label = labels[int(np.argmax(deviations))]
        raise InputError(
            f"{path}: found {label} {deviations.max():.2f} mm from its place in even steps of {mean:.2f} mm, {expected}"
        )
    shifts = np.linalg.norm(offsets - np.outer(steps, normal), axis=1)
    drifts = np.linalg.norm(positions - positions[0] - np.outer(heights, normal), axis=1)
    # Both coordinates within the plane may be rounded.
    is_shifted = shifts.max() > max(TILT * usual, 1.5 * ROUNDING)
    if is_shifted or drifts.max() > DRIFT:
        shift = shifts.max() if is_shifted else drifts.max()
        raise InputError(
            f"{path}: found {kind} shifted by {shift:.2f} mm within their plane, expected a DICOM series without gantry tilt"
        )
    return mean


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence ITK, which warns of uneven slices where positions are rounded."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
