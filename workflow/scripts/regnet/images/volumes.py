"""Images and grids: reading, writing, resampling. All I/O goes through SimpleITK."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from regnet.conventions import AIR_HU
from regnet.errors import InputError, OutputError
from regnet.images.boxes import bounding_box
from regnet.images.dicom import Series, is_dicom, read_series
from regnet.images.volume_files import file_problem, millimetres, nifti_problem, only_file, volume_format
from regnet.system.files import refuse_undecodable, whole_file

MINIMUM_SIZE = 4
"""Fewest voxels along an axis: with less, neither smoothing nor cubic splines are defined."""

LUNG_BELOW_HU = -500
"""A chest CT in HU has voxels below this: lung is at -900 to -600, air at -1000."""

SPACING_LIMITS_MM = (0.1, 25.0)
"""Smallest and largest plausible spacing of a chest CT: the pixels of a small field have 0.2 mm, sparse slices 20 mm."""

LARGEST_EXTENT_MM = (1000, 1000, 2500)
"""Largest plausible sides of a CT, from the shortest to the longest: a scanner's bore, and a whole body."""

MIN_DARK_SHARE = 0.002
"""Least share of the measured voxels below `LUNG_BELOW_HU`; lungs of 0.3 litres are 0.004 of a whole body of 70."""

STORED_TISSUE = (850, 1200)
"""Soft tissue in stored values, which are HU + 1000 or HU + 1024; in HU, dense bone, contrast medium and metal lie there."""

ROOM_AIR_HU = -1000
"""HU of air around the patient, without noise."""

PADDING_BELOW_HU = -1200
"""Below the noise of air: all that a scan in HU has there is padding."""

MASK_TOLERANCE = 1e-3
"""How far labels stored as floating-point numbers may be from whole ones."""

IDENTITY = sitk.Transform(3, sitk.sitkIdentity)


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an image or the nodes of a field are: everything about an image except its values.

    Attributes
    ----------
    size
        Number of voxels along x, y, z: the reverse of the shape ``(z, y, x)`` of the array.
    spacing
        Distance between voxels along x, y, z, in mm.
    origin
        Centre of the first voxel in physical space (LPS), in mm.
    direction
        Direction cosines, row by row, as in ITK.

    Examples
    --------
    A CT of 3 x 4 x 2 voxels with slices 5 mm apart. Arrays have the axes reversed; points are in mm.

    >>> grid = Grid(size=(3, 4, 2), spacing=(1.0, 1.0, 5.0), origin=(-10.0, 0.0, 100.0))
    >>> grid.shape
    (2, 4, 3)
    >>> grid.points([2, 0, 1]).tolist()
    [-8.0, 0.0, 105.0]
    >>> grid.indices([-8.0, 0.0, 105.0]).tolist()
    [2.0, 0.0, 1.0]
    >>> Grid.of(grid.image(np.zeros(grid.shape))) == grid
    True
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @classmethod
    def of(cls, image: sitk.Image) -> "Grid":
        """The grid of a SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape ``(z, y, x)`` of an array on this grid."""
        return self.size[::-1]

    def points(self, index: np.ndarray) -> np.ndarray:
        """Physical points ``(..., 3)``, x, y, z in mm LPS, of continuous voxel indices ``(..., 3)``, x, y, z."""
        matrix = np.reshape(self.direction, (3, 3)) * self.spacing
        return np.asarray(index, float) @ matrix.T + self.origin

    def indices(self, points: np.ndarray) -> np.ndarray:
        """Continuous indices ``(x, y, z)`` of physical points ``(..., 3)`` in mm LPS: the inverse of `points`."""
        matrix = np.reshape(self.direction, (3, 3)) * self.spacing
        return (np.asarray(points, float) - self.origin) @ np.linalg.inv(matrix).T

    def distances_outside(self, points: np.ndarray) -> np.ndarray:
        """How far, in mm, physical points ``(n, 3)`` lie outside the box of the voxels: ``(n,)``, 0 inside."""
        index = self.indices(points)
        nearest = np.clip(index, -0.5, np.subtract(self.size, 0.5))
        return np.linalg.norm((index - nearest) * self.spacing, axis=-1)

    def to_physical(self, displacement: np.ndarray) -> np.ndarray:
        """Turn displacements ``(..., 3)`` in mm along the axes x, y, z of the grid into physical ones, mm LPS."""
        return np.asarray(displacement) @ np.reshape(self.direction, (3, 3)).T

    def to_voxels(self, displacement: np.ndarray) -> np.ndarray:
        """Turn physical displacements ``(..., 3)`` in mm, LPS, into voxels along the axes x, y, z of the grid."""
        return np.asarray(displacement) @ np.linalg.inv(np.reshape(self.direction, (3, 3))).T / self.spacing

    def image(self, array: np.ndarray) -> sitk.Image:
        """The SimpleITK image of an array ``(z, y, x)``, or of vectors ``(z, y, x, 3)``, on this grid.

        Raises
        ------
        ValueError
            If the array has another shape than the grid.
        """
        if array.shape[:3] != self.shape:
            raise ValueError(f"array: found shape {array.shape}, expected {self.shape} (z, y, x) for this grid")
        image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def corners(self) -> np.ndarray:
        """Physical points ``(8, 3)``, mm LPS, of the centres of the voxels at the corners."""
        return self.points(np.indices((2, 2, 2)).reshape(3, -1).T * (np.array(self.size) - 1))

    def is_isotropic(self, spacing: float) -> bool:
        """Whether the voxels have a side of `spacing` mm along all axes."""
        return bool(np.allclose(self.spacing, spacing, atol=1e-4))

    def isotropic(self, spacing: float) -> "Grid":
        """The isotropic grid of `spacing` mm that covers the same box, to within a voxel on the far sides.

        The corner of the box stays in place (the outer faces of the first voxel), not the centre of the first voxel.
        """
        extent = np.multiply(self.size, self.spacing)
        size = np.maximum(1, np.round(extent / spacing)).astype(int)
        origin = self.points((spacing / np.array(self.spacing) - 1) / 2)
        return Grid(tuple(size.tolist()), (spacing,) * 3, tuple(origin.tolist()), self.direction)


def read_image(path: str | Path) -> sitk.Image:
    """Read a scalar 3D image in NIfTI (or Analyze), MetaImage, NRRD or DICOM, or a series of DICOM files.

    Parameters
    ----------
    path
        A file, which may hold the frames of an enhanced CT; a folder with one DICOM series; or any slice of a series, which
        stands for the whole series.

    Raises
    ------
    InputError
        If the file is missing, has another format, cannot be read, is truncated or damaged as far as `file_problem` finds
        it, or is not one scalar 3D image; if its spacing is not within `SPACING_LIMITS_MM`, its sides are above
        `LARGEST_EXTENT_MM`, its axes are not at right angles, or its sform and qform disagree; and as in
        `regnet.images.dicom.read_series`.
    """
    path = Path(path)
    with _opened(path) as source:
        grid = _checked_grid(path, source)
        refuse_implausible(path, grid)
        return _voxels(path, source, grid)


def read_vectors(path: str | Path) -> sitk.Image:
    """Read a 3D image of vectors with three components, float64; its spacing may be any, as that of the nodes of a field.

    Raises
    ------
    InputError
        As in `read_image`; if a component is not a finite number.
    """
    path = Path(path)
    with _opened(path) as source:
        grid = _checked_grid(path, source, 3)
        image = sitk.Cast(_voxels(path, source, grid), sitk.sitkVectorFloat64)
    if not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
        raise InputError(f"{path}: found vectors that are not finite numbers, expected mm")
    return image


def read_grid(path: str | Path) -> Grid:
    """The grid of an image, from its header alone.

    Parameters
    ----------
    path
        As in `read_image`.

    Raises
    ------
    InputError
        As in `read_image`, as far as headers and file sizes show it.
    """
    path = Path(path)
    with _opened(path) as source:
        grid = _checked_grid(path, source, voxels=False)
    refuse_implausible(path, grid)
    return grid


def read_slice(path: str | Path, grid: Grid, number: int) -> np.ndarray:
    """The voxels ``(y, x)`` of slice `number` of the image `path`, which is on `grid`.

    A compressed file is only read up to this slice.

    Raises
    ------
    InputError
        As in `read_image`, as far as this slice shows it.
    """
    path = Path(path)
    with _opened(path) as source, _itk_errors(path, _name(source)):
        if isinstance(source, Series):
            return source.slice(number)
        reader = sitk.ImageFileReader()
        reader.SetFileName(source)
        reader.SetExtractIndex((0, 0, number))
        reader.SetExtractSize((*grid.size[:2], 1))
        return sitk.GetArrayFromImage(reader.Execute())[0]


@contextmanager
def _opened(path: Path) -> Iterator[Series | str]:
    """Yield the slices or frames of a DICOM image in order, or the name under which ITK reads a file in another format."""
    refuse_undecodable(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not (path.is_file() or path.is_dir()):
        # Reading a named pipe would wait for ever.
        raise InputError(f"{path}: found a pipe or a device, expected a file, or a folder with a DICOM series")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read as an image (Permission denied)")
    with _itk_errors(path):
        series = read_series(path) if path.is_dir() or is_dicom(path) else None
    if series is not None:
        yield series
        return
    volume_format(path)
    with only_file(path) as name:
        yield name


def _name(source: Series | str) -> str:
    return source.names[0] if isinstance(source, Series) else source


def _checked_grid(path: Path, source: Series | str, components: int = 1, voxels: bool = True) -> Grid:
    """The grid of an image from the headers of its files, which are checked to their end, or without `voxels` their lengths."""
    with _itk_errors(path, _name(source)):
        header = _header(_name(source))
    if header.GetDimension() != 3 or header.GetNumberOfComponents() != components:
        kind = f"{header.GetDimension()}D with {header.GetNumberOfComponents()} components"
        expected = "a scalar 3D image" if components == 1 else f"a 3D image of vectors with {components} components"
        raise InputError(f"{path}: found an image in {kind}, expected {expected}")
    if isinstance(source, Series):
        return Grid(source.size, source.spacing, source.origin, source.direction)
    problem = file_problem(path, header, voxels)
    if problem:
        raise InputError(f"{path}: cannot be read as an image ({problem})")
    unit = millimetres(path)
    spacing, origin = (tuple(value * unit for value in values) for values in (header.GetSpacing(), header.GetOrigin()))
    if not all(0 < side < math.inf for side in spacing):
        raise InputError(f"{path}: found a spacing of {_times(spacing)} mm, expected more than 0")
    if not np.isfinite(origin).all():
        raise InputError(f"{path}: found the origin {', '.join(map(str, origin))}, expected finite numbers")
    axes = np.reshape(header.GetDirection(), (3, 3))
    if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
        direction = ", ".join(f"{value:g}" for value in axes.ravel())
        raise InputError(f"{path}: found the direction {direction}, expected axes of length 1 at right angles")
    return Grid(header.GetSize(), spacing, origin, header.GetDirection())


def refuse_implausible(path: str | Path, grid: Grid) -> None:
    """Raise `InputError` if the spacing or the extent of an image is that of no chest CT, as with a wrong unit."""
    low, high = SPACING_LIMITS_MM
    if not all(low <= side <= high for side in grid.spacing):
        raise InputError(
            f"{path}: found a spacing of {_times(grid.spacing)} mm, expected {low:g} to {high:g} mm as in a chest CT; is its "
            "unit another one?"
        )
    extent = np.multiply(grid.size, grid.spacing).round().tolist()
    if np.greater(sorted(extent), LARGEST_EXTENT_MM).any():
        raise InputError(
            f"{path}: found an image of {_times(extent)} mm, expected at most {_times(LARGEST_EXTENT_MM)} mm as in a CT; is "
            "its spacing right?"
        )


def _voxels(path: Path, source: Series | str, grid: Grid) -> sitk.Image:
    """Read an image whose grid is known."""
    with _itk_errors(path, _name(source)):
        if isinstance(source, Series):
            return source.image()
        image = sitk.ReadImage(source)
    # ITK ignores the units of some formats.
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    return image


def _header(name: str) -> sitk.ImageFileReader:
    """A reader that has read the header of a file."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    return reader


def _times(spacing: Sequence[float]) -> str:
    return " x ".join(f"{side:g}" for side in spacing)


@contextmanager
def _itk_errors(path: Path, name: str = "") -> Iterator[None]:
    """Turn an error of ITK while the block reads `path`, perhaps under another name, into an `InputError` of one line."""
    try:
        yield
    except RuntimeError as error:
        reason = _itk_reason(error).replace(name, str(path)) if name else _itk_reason(error)
        raise InputError(f"{path}: cannot be read as an image ({reason})") from error


def _itk_reason(error: RuntimeError) -> str:
    """The message of an ITK error in one line, without ITK's source files and objects."""
    return " ".join(re.sub(r"(?s)^.*?(ITK ERROR: \w+\(0x\w+\): |sitk::ERROR: )", "", str(error)).split())


def file_stem(path: str | Path) -> str:
    """The name of the file of an image without its suffix, ``.nii.gz`` included; of a folder its name."""
    return Path(path).name if Path(path).is_dir() else Path(Path(path).name.removesuffix(".gz")).stem


def read_ct(path: str | Path) -> sitk.Image:
    """Read a CT image as int16 HU, with everything below air raised to air (-1024 HU).

    Raises
    ------
    InputError
        As in `read_image`; if the image is smaller than `MINIMUM_SIZE`, or its values are not those of a chest CT in HU, as in
        `hu_problem`.

    Examples
    --------
    Lung with one vessel, and padding of -2000 HU as some scanners write it.

    >>> import tempfile
    >>> hounsfield = np.full((6, 6, 6), -800)
    >>> hounsfield[3, 3, 3] = 40
    >>> hounsfield[0] = -2000
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(Grid((6, 6, 6), (1.0, 1.0, 2.5)).image(hounsfield), f"{folder}/ct.nii.gz")
    ...     ct = read_ct(f"{folder}/ct.nii.gz")
    >>> ct.GetPixelIDTypeAsString(), ct.GetSpacing()
    ('16-bit signed integer', (1.0, 1.0, 2.5))
    >>> np.unique(sitk.GetArrayFromImage(ct)).tolist()
    [-1024, -800, 40]
    """
    return as_ct(read_image(path), path)


def as_ct(image: sitk.Image, name: str | Path) -> sitk.Image:
    """An image as a CT: int16 HU, with everything below air raised to air (-1024 HU).

    Raises
    ------
    InputError
        As in `read_ct`, with `name` for the image; if it is not a scalar 3D image.
    """
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        kind = f"{image.GetDimension()}D with {image.GetNumberOfComponentsPerPixel()} components"
        raise InputError(f"{name}: found an image in {kind}, expected a scalar 3D image")
    image = sitk.Cast(image, sitk.sitkFloat32)
    if min(image.GetSize()) < MINIMUM_SIZE:
        raise InputError(f"{name}: found a size of {image.GetSize()} voxels, expected at least {MINIMUM_SIZE} along each axis")
    problem = hu_problem(sitk.GetArrayViewFromImage(image))
    if problem:
        raise InputError(f"{name}: {problem}")
    return sitk.Cast(sitk.Clamp(sitk.Round(image), sitk.sitkFloat32, AIR_HU, 32767), sitk.sitkInt16)


def hu_problem(values: np.ndarray) -> str | None:
    """Why the values of an image cannot be those of a chest CT in HU, whatever its padding; None if they can.

    Padding counts neither for nor against HU: the lowest value of the image, if it is not above air, and all below `AIR_HU`.

    Parameters
    ----------
    values
        All voxels of an image, or of a slice of one, before anything is raised to air; of any shape and numeric type.

    Returns
    -------
    str or None
        What was found and what was expected, if values are not finite; if none is above air; if fewer of the measured voxels
        than `MIN_DARK_SHARE` are below `LUNG_BELOW_HU`; if more voxels are where stored values have soft tissue than below
        `LUNG_BELOW_HU`; or if more measured voxels are below `PADDING_BELOW_HU` than above lung, as when the offset was
        subtracted twice.

    Examples
    --------
    Lung and tissue in HU, with padding; the same in stored values.

    >>> hu_problem(np.array([-2000, -2000, -830, -810, 30, 40]))
    >>> print(hu_problem(np.array([-2000, -2000, 194, 214, 1054, 1064])))
    found intensities from 194 to 1064 and padding of -2000, expected a chest CT in HU (air -1000, lung about -800)
    """
    if not np.isfinite(values).all():
        return "found voxels that are not finite numbers, expected HU"
    lowest, highest = float(values.min()), float(values.max())
    if highest <= AIR_HU:
        return f"found no voxel above {AIR_HU} HU, expected a CT image in HU"
    is_measured = values > (max(lowest, AIR_HU) if lowest <= ROOM_AIR_HU else -math.inf)
    measured, above = np.count_nonzero(is_measured), np.count_nonzero(values >= LUNG_BELOW_HU)
    dark = measured - above
    like_tissue = np.count_nonzero(values >= STORED_TISSUE[0]) - np.count_nonzero(values > STORED_TISSUE[1])
    if dark < MIN_DARK_SHARE * measured or dark < like_tissue:
        extremes = f"{np.min(values, where=is_measured, initial=highest):g} to {highest:g}"
        padding = "" if measured == values.size else f" and padding of {lowest:g}"
        return f"found intensities from {extremes}{padding}, expected a chest CT in HU (air -1000, lung about -800)"
    deep = values[values < PADDING_BELOW_HU]
    # Padding is constant: the median is its value, and what differs from it was measured.
    if deep.size and np.count_nonzero(deep != np.median(deep)) > above:
        share = f"{deep.size / values.size:.0%} of the voxels below {PADDING_BELOW_HU} and {above / values.size:.0%} above lung"
        return f"found {share}, expected a chest CT in HU (air -1000, lung about -800)"
    return None


def is_constant(image: sitk.Image) -> bool:
    """Whether all voxels of a scalar image have the same value."""
    values = sitk.GetArrayViewFromImage(image)
    return bool(values.min() == values.max())


def read_mask(path: str | Path, grid: Grid | None = None) -> sitk.Image:
    """Read a mask as uint8, 1 where the file is not 0.

    Raises
    ------
    InputError
        As in `read_image`; if the mask is empty; if it holds probabilities or is not finite, as in `mask_problem`; if `grid` is
        given and the mask is on another grid.
    """
    mask = as_mask(read_image(path), path)
    if grid is not None:
        refuse_other_grid(path, Grid.of(mask), grid)
    return mask


def as_mask(image: sitk.Image, name: str | Path) -> sitk.Image:
    """An image as a mask: uint8, 1 where it is not 0.

    Raises
    ------
    InputError
        If it is no mask, as in `mask_problem`, with `name` for the image.
    """
    problem = mask_problem(sitk.GetArrayViewFromImage(image))
    if problem:
        raise InputError(f"{name}: {problem}")
    return sitk.Cast(image != 0, sitk.sitkUInt8)


def mask_problem(values: np.ndarray) -> str | None:
    """Why the values of a file, or of a slice, are no mask; None if they are one.

    A mask has 0 outside, and inside one value, as 1, 255 or 0.5, or whole numbers, as the labels of lobes. Many fractions are
    probabilities, or a mask after interpolation: which of them are inside is for the user to say.
    """
    if not values.any():
        return "the mask is empty, expected voxels that are not 0"
    if not np.issubdtype(values.dtype, np.floating):
        return None
    if not np.isfinite(values).all():
        return "found voxels that are not finite numbers, expected a mask"
    inside = values[values != 0]
    low, high = float(inside.min()), float(inside.max())
    if high - low > MASK_TOLERANCE and np.abs(inside - np.round(inside)).max() > MASK_TOLERANCE:
        found = f"values from {low:.3g} to {high:.3g} inside the mask, not all whole numbers"
        return f"found {found}, expected 0 and 1, or labels (apply a threshold to probabilities first)"
    return None


def refuse_other_grid(path: str | Path, mask: Grid, image: Grid) -> None:
    """Raise `InputError` if the grid of a mask, read from `path`, is not that of its image."""
    for name in ("size", "spacing", "origin", "direction"):
        found, expected = getattr(mask, name), getattr(image, name)
        if not np.allclose(found, expected, atol=1e-3):
            found, expected = (f"({', '.join(f'{value:.6g}' for value in values)})" for values in (found, expected))
            raise InputError(f"{path}: found a mask with the {name} {found}, expected {expected} as in its image")


def write_image(image: sitk.Image, path: str | Path) -> None:
    """Write an image, compressed, in the format that the suffix of `path` names; never leaves half a file.

    Raises
    ------
    OutputError
        If it cannot be written, for example because the disk is full.
    """
    with whole_file(path) as partial:
        try:
            sitk.WriteImage(image, str(partial), useCompression=True)
        except RuntimeError as error:
            raise OutputError(f"{path}: cannot be written ({_itk_reason(error)})") from error
        # ITK does not report a full disk when it writes NIfTI.
        problem = nifti_problem(partial)
        if problem:
            raise OutputError(f"{path}: cannot be written completely, is the disk full? ({problem})")


def resample(image: sitk.Image, transform: sitk.Transform, grid: Grid, interpolator: int) -> sitk.Image:
    """The image under a transform, ``I(T(x))`` for every x of `grid`, float32; its border values continue outside.

    Parameters
    ----------
    image
        A scalar image.
    transform
        Maps points of `grid` to points of `image`, in mm.
    grid
        The grid of the result.
    interpolator
        One of SimpleITK's, for example ``sitk.sitkBSpline``.
    """
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(grid.size)
    resampler.SetOutputSpacing(grid.spacing)
    resampler.SetOutputOrigin(grid.origin)
    resampler.SetOutputDirection(grid.direction)
    resampler.SetTransform(transform)
    resampler.SetInterpolator(interpolator)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampler.UseNearestNeighborExtrapolatorOn()
    return resampler.Execute(image)


def mask_corners(mask: sitk.Image) -> np.ndarray:
    """Corners ``(8, 3)``, mm LPS, of the smallest box along the axes of the grid that holds all nonzero voxels."""
    z, y, x = ((side.start, side.stop - 1) for side in bounding_box(sitk.GetArrayViewFromImage(mask)))
    return Grid.of(mask).points(np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).reshape(-1, 3))


def mask_litres(mask: sitk.Image) -> float:
    """The volume of the nonzero voxels of a mask, in litres."""
    return float(np.count_nonzero(sitk.GetArrayViewFromImage(mask)) * np.prod(mask.GetSpacing()) / 1e6)


def crop(image: sitk.Image, points: np.ndarray, margin: float) -> sitk.Image:
    """The part of an image within `margin` mm of the box around points ``(n, 3)``, mm LPS.

    If fewer than `MINIMUM_SIZE` voxels along an axis would be left, the image stays whole.
    """
    grid = Grid.of(image)
    # Rounded, so that a point at the centre of a voxel has integer indices on every grid.
    index, reach = grid.indices(points).round(6), margin / np.array(grid.spacing)
    first = np.maximum(np.floor(index.min(axis=0) - reach), 0).astype(int)
    last = np.minimum(np.ceil(index.max(axis=0) + reach), np.array(grid.size) - 1).astype(int)
    size = last - first + 1
    return sitk.RegionOfInterest(image, size.tolist(), first.tolist()) if size.min() >= MINIMUM_SIZE else image


def resample_ct(image: sitk.Image, grid: Grid) -> sitk.Image:
    """Resample a CT image to `grid`: cubic B-spline, int16 HU, the border value continued outside the field of view.

    Where the new voxels are larger than the old ones, a Gaussian smooths the image first, so that noise and fine vessels are
    averaged, not aliased. Its standard deviation turns a box of the old size into one of the new size.
    """
    old, new = np.array(image.GetSpacing()), np.array(grid.spacing)
    sigma = np.sqrt(np.maximum(new**2 - old**2, 0) / 12)
    smooth = sitk.Cast(image, sitk.sitkFloat32)
    if (sigma > 0.1 * old).any():
        # SmoothingRecursiveGaussian refuses a standard deviation of 0: a negligible one leaves an axis as it is.
        smooth = sitk.SmoothingRecursiveGaussian(smooth, np.maximum(sigma, 0.01 * old).tolist())
    resampled = resample(smooth, IDENTITY, grid, sitk.sitkBSpline)
    return sitk.Cast(sitk.Clamp(sitk.Round(resampled), sitk.sitkFloat32, AIR_HU, 32767), sitk.sitkInt16)


def resample_mask(mask: sitk.Image, grid: Grid) -> sitk.Image:
    """Resample a mask to `grid`: uint8, 1 where linear interpolation gives at least 0.5."""
    return sitk.Cast(resample(sitk.Cast(mask, sitk.sitkFloat32), IDENTITY, grid, sitk.sitkLinear) >= 0.5, sitk.sitkUInt8)
