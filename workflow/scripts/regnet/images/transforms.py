"""Transforms: displacement fields and composites, all mapping points from fixed to moving, in mm."""

import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from regnet.conventions import AIR_HU
from regnet.errors import InputError, OutputError
from regnet.images.volumes import Grid, read_vectors
from regnet.system.files import refuse_undecodable, whole_file


def field_transform(field: np.ndarray, grid: Grid) -> sitk.DisplacementFieldTransform:
    """The transform ``T(x) = x + u(x)`` of a displacement field, interpolated linearly between the nodes of `grid`.

    Parameters
    ----------
    field
        Displacements ``u``, shape ``(z, y, x, 3)``, components x, y, z in mm (LPS).
    grid
        The grid of the nodes. Outside it the displacement is zero.

    Raises
    ------
    ValueError
        If the shape of `field` is not that of `grid`.

    Examples
    --------
    A field that moves every point of its grid 3 mm along x, and no other.

    >>> grid = Grid(size=(5, 4, 3), spacing=(2.0, 2.0, 2.0))
    >>> field = np.zeros((*grid.shape, 3))
    >>> field[..., 0] = 3.0
    >>> transform = field_transform(field, grid)
    >>> transform.TransformPoint((1.0, 2.0, 2.0))
    (4.0, 2.0, 2.0)
    >>> transform.TransformPoint((1.0, 2.0, 50.0))
    (1.0, 2.0, 50.0)
    """
    return sitk.DisplacementFieldTransform(sitk.Cast(grid.image(field), sitk.sitkVectorFloat64))


def read_field(path: str | Path) -> sitk.DisplacementFieldTransform:
    """Read a DVF, an image of vectors x, y, z in mm (LPS), as the transform of `field_transform`.

    Raises
    ------
    InputError
        As in `regnet.images.volumes.read_vectors`.
    """
    return sitk.DisplacementFieldTransform(read_vectors(path))


def compose(*transforms: sitk.Transform) -> sitk.CompositeTransform:
    """Compose transforms like functions: ``compose(A, T)(x) = A(T(x))``, so the last one is applied first.

    Examples
    --------
    >>> shift = sitk.TranslationTransform(3, (1.0, 0.0, 0.0))
    >>> double = sitk.ScaleTransform(3, (2.0, 2.0, 2.0))
    >>> compose(double, shift).TransformPoint((3.0, 0.0, 0.0))
    (8.0, 0.0, 0.0)
    >>> compose(shift, double).TransformPoint((3.0, 0.0, 0.0))
    (7.0, 0.0, 0.0)
    """
    composite = sitk.CompositeTransform(3)
    for transform in transforms:
        composite.AddTransform(transform)
    composite.FlattenTransform()
    return composite


def cover(transform: sitk.CompositeTransform, grid: Grid) -> sitk.CompositeTransform:
    """Extend the fields and B-splines of a transform to the borders of an image.

    Beyond its nodes a displacement field or B-spline displaces nothing, so the transform would jump there.

    Parameters
    ----------
    transform
        Maps points of `grid`; its displacement fields and B-splines may cover only a part of it.
    grid
        The grid of the fixed image.

    Returns
    -------
    SimpleITK.CompositeTransform
        The same where `transform` has nodes. Outside, each of its parts keeps the displacement of its border, so that all of
        them move every point of `grid`.
    """
    parts = [transform.GetNthTransform(number).Downcast() for number in range(transform.GetNumberOfTransforms())]
    points = grid.corners()
    for number in reversed(range(len(parts))):
        parts[number] = _extended(parts[number], points)
        points = transform_points(parts[number], points)
    return compose(*parts)


def _extended(part: sitk.Transform, points: np.ndarray) -> sitk.Transform:
    """Extend a field or B-spline until it moves all `points`; return `part` itself if it does so, or is neither."""
    if isinstance(part, sitk.DisplacementFieldTransform):
        nodes, extra = [part.GetDisplacementField()], 0
    elif isinstance(part, sitk.BSplineTransform):
        # A cubic B-spline needs one more control point on each side.
        nodes, extra = part.GetCoefficientImages(), part.GetOrder() // 2
    else:
        return part
    index = Grid.of(nodes[0]).indices(points)
    before = np.ceil(extra - index.min(axis=0) - 1e-6).astype(int)
    after = np.ceil(index.max(axis=0) + extra - (np.array(nodes[0].GetSize()) - 1) - 1e-6).astype(int)
    if max(before.max(), after.max()) <= 0:
        return part
    # ZeroFluxNeumannPad repeats the values at the border.
    sides = [np.maximum(count, 0).tolist() for count in (before, after)]
    padded = [sitk.ZeroFluxNeumannPad(image, *sides) for image in nodes]
    if isinstance(part, sitk.BSplineTransform):
        return sitk.BSplineTransform(padded, part.GetOrder())
    return sitk.DisplacementFieldTransform(padded[0])


def transform_points(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Move points ``(n, 3)``, x, y, z in mm, from fixed to moving, without rounding."""
    return np.array([transform.TransformPoint(point) for point in np.asarray(points, float).tolist()]).reshape(-1, 3)


def warp(moving: sitk.Image, transform: sitk.Transform, grid: Grid) -> sitk.Image:
    """The moving image on the fixed grid, ``I_M(T(x))``: linear interpolation, int16 HU, air outside the moving image."""
    warped = sitk.Resample(
        moving,
        grid.size,
        transform,
        sitk.sitkLinear,
        grid.origin,
        grid.spacing,
        grid.direction,
        AIR_HU,
        sitk.sitkFloat32,
    )
    return sitk.Cast(sitk.Round(warped), sitk.sitkInt16)


def warp_image(moving: sitk.Image, transform: sitk.Transform, grid: Grid, *, labels: bool = False) -> sitk.Image:
    """An image or a segmentation on the fixed grid, ``I_M(T(x))``, with its own type of voxel.

    Parameters
    ----------
    moving
        A scalar image in the space of the moving scan.
    transform
        Maps points of the fixed scan to the moving one.
    grid
        Of the result.
    labels
        Whether `moving` holds labels: each label is then interpolated linearly, and the largest one wins; 0 outside. Otherwise
        values are interpolated linearly; outside `moving` they are its smallest value.
    """
    if labels:
        interpolator, outside = sitk.sitkLabelLinear, 0.0
    else:
        interpolator, outside = sitk.sitkLinear, float(sitk.GetArrayViewFromImage(moving).min())
    kind = moving.GetPixelID() if labels else sitk.sitkFloat64
    warped = sitk.Resample(moving, grid.size, transform, interpolator, grid.origin, grid.spacing, grid.direction, outside, kind)
    is_integer = moving.GetPixelID() not in (sitk.sitkFloat32, sitk.sitkFloat64)
    return sitk.Cast(sitk.Round(warped) if is_integer and not labels else warped, moving.GetPixelID())


def is_finite(transform: sitk.Transform) -> bool:
    """Whether all numbers of a transform are finite: matrices and centres, and every vector of its fields and B-splines."""
    composite = compose(transform)
    parts = [composite.GetNthTransform(number).Downcast() for number in range(composite.GetNumberOfTransforms())]
    return all(_is_finite_part(part) for part in parts)


def _is_finite_part(part: sitk.Transform) -> bool:
    if not np.isfinite(part.GetFixedParameters()).all():
        return False
    # Parameters come as one Python float each, of which a field has too many.
    if isinstance(part, sitk.DisplacementFieldTransform):
        images = (part.GetDisplacementField(),)
    elif isinstance(part, sitk.BSplineTransform):
        images = part.GetCoefficientImages()
    else:
        return bool(np.isfinite(part.GetParameters()).all())
    return all(np.isfinite(sitk.GetArrayViewFromImage(image)).all() for image in images)


def write_transform(transform: sitk.Transform, path: str | Path) -> None:
    """Write a transform as an ITK transform file (``.h5``); never leaves half a file.

    Raises
    ------
    OutputError
        If it cannot be written, for example because the disk is full, or if it has numbers that are not finite.
    """
    if not is_finite(transform):
        raise OutputError(f"{path}: not written, found a transform with numbers that are not finite")
    with whole_file(path) as partial:
        try:
            # On a full disk HDF5 not only fails, it crashes the process when that ends: check first that there is room.
            partial.write_bytes(bytes(_file_size(transform)))
            sitk.WriteTransform(transform, str(partial))
        except (OSError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise OutputError(f"{path}: cannot be written ({reason})") from error


def _file_size(transform: sitk.Transform) -> int:
    """An upper estimate of a transform's bytes on disk: all its numbers as doubles, and what HDF5 adds."""
    composite = compose(transform)
    parts = [composite.GetNthTransform(number) for number in range(composite.GetNumberOfTransforms())]
    return sum(8 * (part.GetNumberOfParameters() + part.GetNumberOfFixedParameters()) + 2**14 for part in parts)


def read_transform(path: str | Path) -> sitk.CompositeTransform:
    """Read an ITK transform file; a single transform becomes a composite of one.

    Raises
    ------
    InputError
        If the file is missing, is cut off, cannot be read as a transform of 3D points, or has numbers that are not finite. A
        text (``.tfm``) that is cut off between two parts of a composite is not noticed.
    """
    refuse_undecodable(path)
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file, expected an ITK transform")
    try:
        problem = _cut_off(Path(path))
        if problem:
            raise InputError(f"{path}: cannot be read as an ITK transform ({problem})")
        transform = sitk.ReadTransform(str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an ITK transform ({error.strerror})") from error
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read as an ITK transform, expected a file such as transform.h5") from error
    if transform.GetDimension() != 3:
        raise InputError(f"{path}: found a transform in {transform.GetDimension()}D, expected 3D")
    if not is_finite(transform):
        raise InputError(f"{path}: found a transform with numbers that are not finite, expected finite ones")
    return compose(transform.Downcast())


def _cut_off(path: Path) -> str | None:
    """How a transform file that is a text or in the format of MATLAB ends too soon; None if it does not, or has another format.

    Of such a file, ITK reads the numbers that are there, or takes others for those that are not.
    """
    data = path.read_bytes() if path.suffix.lower() in (".tfm", ".txt", ".mat") else b""
    if data.startswith(b"#Insight Transform File"):
        names = [line.partition(b":")[0] for line in data.splitlines()]
        # A composite has no parameters of its own.
        wanted = names.count(b"Transform") - data.count(b"Transform: CompositeTransform")
        if not data.endswith(b"\n") or names.count(b"Parameters") != wanted or names.count(b"FixedParameters") != wanted:
            return "found the end of the file within a transform, expected its Parameters and FixedParameters"
    elif path.suffix.lower() == ".mat":
        # A matrix is five integers (type, rows, columns, whether complex, length of the name), its name and its numbers.
        place = matrices = 0
        while place + 20 <= len(data):
            kind, rows, columns, _, name = struct.unpack_from("<5i", data, place)
            place += 20 + name + rows * columns * (4 if kind // 10 % 10 == 1 else 8)
            matrices += 1
        if place != len(data) or matrices % 2:
            return f"found {len(data)} bytes and {matrices} matrices, expected two matrices for each transform"
    return None


def displacement_image(transform: sitk.Transform, grid: Grid) -> sitk.Image:
    """The displacement field ``T(x) - x`` of any transform at every voxel of a grid: vectors x, y, z in mm (LPS), float32."""
    return sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat32, grid.size, grid.origin, grid.spacing, grid.direction
    )


def jacobian_determinant(field: np.ndarray, grid: Grid) -> np.ndarray:
    """Jacobian determinant of ``x + u(x)`` at every node, shape ``(z, y, x)``; at most 0 where the field folds.

    Differences are central, and one-sided at the border of the grid.
    """
    # ITK differentiates along the axes of the grid and expects components along them. At the border it would halve the
    # one-sided difference; with one more node, extrapolated linearly, it does not.
    along_axes = np.asarray(field) @ np.reshape(grid.direction, (3, 3))
    padded = np.pad(along_axes.astype(np.float32), [(1, 1)] * 3 + [(0, 0)], mode="reflect", reflect_type="odd")
    image = Grid(tuple((np.array(grid.size) + 2).tolist()), grid.spacing).image(padded)
    determinant = sitk.DisplacementFieldJacobianDeterminant(image, useImageSpacing=True)
    return sitk.GetArrayFromImage(determinant)[1:-1, 1:-1, 1:-1]
