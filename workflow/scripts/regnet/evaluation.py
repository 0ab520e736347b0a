"""What a registration is worth: errors at landmarks and at points of synthetic fields, their summaries, slices to look at.

TRE is the Euclidean distance ``||T(x_F) - x_M||``, TRE' the same over the landmarks that lie within the capture range after
the affine registration, MAE the mean over points of ``|dx| + |dy| + |dz|`` (Sokooti et al., MICCAI 2017). All are in mm.
Tables are long: one row per landmark and method, or per point and network variant.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import SimpleITK as sitk

from regnet.conventions import AXES
from regnet.errors import ConfigError, InputError
from regnet.files import whole_file
from regnet.patches import SamplePool, output_points
from regnet.transforms import transform_points, warp
from regnet.volumes import Grid

METHOD_NAMES = {
    "affine": "Affine",
    "bspline_1r": "B-spline 1R",
    "bspline_3r": "B-spline 3R",
    "bspline_best": "B-spline best",
    "demons": "Demons",
    "syn": "SyN",
    "greedy": "Greedy",
    "convexadam": "ConvexAdam",
    "regnet": "RegNet",
    "regnet_1scale": "RegNet 1Scale",
    "regnet_early": "RegNet Early",
}
"""How tables and figures write the chapter's methods and network variants; any other method is written as it is named."""

PLANES = {"coronal": 1, "axial": 2, "sagittal": 0}
"""The planes of an overview, and the axis of an image (x, y, z towards L, P, S) that is at right angles to each."""

FREQUENCIES = ("low", "medium", "high")
"""Spatial frequencies of the synthetic fields, in the order of the chapter."""


def _components(*names: str) -> list[str]:
    return [f"{name}_{axis}" for name in names for axis in AXES]


LANDMARK_COLUMNS = {
    **dict.fromkeys(("method", "pair"), str),
    "landmark": int,
    **dict.fromkeys((*_components("fixed", "moving", "mapped"), "error", *_components("error")), float),
    "within_capture_range": bool,
}
"""Columns of the landmark table and what they hold; lengths in mm, points in LPS, `landmark` counts rows from 0."""

POINT_COLUMNS = {
    **dict.fromkeys(("variant", "split", "image", "moving", "frequency"), str),
    "point": int,
    **dict.fromkeys((*_components("point", "displacement", "predicted"), "mae", *_components("mae")), float),
}
"""Columns of the table of points in synthetic pairs and what they hold; lengths in mm, points in LPS."""


def landmark_errors(method: str, pair: str, transform: sitk.Transform, fixed: np.ndarray, moving: np.ndarray) -> pd.DataFrame:
    """Errors of one transform at the landmarks of one pair.

    Parameters
    ----------
    method, pair
        Written into the columns of these names.
    transform
        Maps points from fixed to moving, in mm.
    fixed, moving
        Corresponding points ``(n, 3)``, x, y, z in mm (LPS); n may be 0.

    Returns
    -------
    pandas.DataFrame
        n rows with the columns of `LANDMARK_COLUMNS` except ``within_capture_range``: ``mapped`` is ``T(x_F)``, ``error`` its
        Euclidean distance from ``x_M``, ``error_x`` ... the absolute components.

    Raises
    ------
    ValueError
        If `fixed` and `moving` are not both ``(n, 3)``.
    """
    fixed, moving = _corresponding(fixed=fixed, moving=moving)
    mapped = transform_points(transform, fixed)
    difference = mapped - moving
    return pd.DataFrame(
        {
            "method": [method] * len(fixed),
            "pair": [pair] * len(fixed),
            "landmark": np.arange(len(fixed)),
            **_columns("fixed", fixed),
            **_columns("moving", moving),
            **_columns("mapped", mapped),
            "error": np.linalg.norm(difference, axis=1),
            **_columns("error", np.abs(difference)),
        }
    )


def transform_errors(transforms: Mapping[str, sitk.Transform], fixed: np.ndarray, moving: np.ndarray) -> pd.DataFrame:
    """Errors of any transforms at corresponding points ``(n, 3)``, x, y, z in mm (LPS).

    Returns
    -------
    pandas.DataFrame
        The rows of `landmark_errors` for each transform, its name in the column ``method``; without ``pair``.
    """
    frames = (landmark_errors(name, "", transform, fixed, moving) for name, transform in transforms.items())
    return pd.concat(frames, ignore_index=True).drop(columns="pair")


def landmark_table(errors: pd.DataFrame) -> pd.DataFrame:
    """TRE of each transform.

    Parameters
    ----------
    errors
        Of `transform_errors`, with at least one landmark.

    Returns
    -------
    pandas.DataFrame
        One row per transform, by its name, in order; columns ``landmarks`` (their number), ``mean``, ``sd``, ``median`` and
        ``max`` of the Euclidean distance, and ``x``, ``y``, ``z``, the means of its absolute components; in mm.
    """
    by_transform = errors.groupby("method", sort=False)
    table = by_transform["error"].agg(landmarks="size", mean="mean", sd="std", median="median", max="max")
    table[list(AXES)] = by_transform[_components("error")].mean()
    return table.rename_axis(None)


def pair_errors(
    pair: str, transforms: Mapping[str, sitk.Transform], fixed: np.ndarray, moving: np.ndarray, capture_range: float
) -> pd.DataFrame:
    """Errors of all methods at the landmarks of one pair, and which landmarks are within the capture range.

    Parameters
    ----------
    pair
        Name of the pair.
    transforms
        Transform of each method, fixed to moving; ``affine`` is among them.
    fixed, moving
        Corresponding points ``(n, 3)``, x, y, z in mm (LPS).
    capture_range
        A landmark is within it if its error after ``affine`` is at most this, in mm: 8 in the chapter.

    Returns
    -------
    pandas.DataFrame
        n rows per method, columns as in `LANDMARK_COLUMNS`. ``within_capture_range`` belongs to the landmark: it is the
        same in the rows of every method.

    Raises
    ------
    ConfigError
        If there is no transform of ``affine``.
    """
    if "affine" not in transforms:
        raise ConfigError(f"methods: found {', '.join(transforms) or 'none'}; TRE' needs affine among them")
    frames = {method: landmark_errors(method, pair, transform, fixed, moving) for method, transform in transforms.items()}
    within = (frames["affine"]["error"] <= capture_range).to_numpy()
    return collect((frame.assign(within_capture_range=within) for frame in frames.values()), LANDMARK_COLUMNS)


def seed_spread(errors: pd.DataFrame, again: Iterable[tuple[str, str, str, sitk.Transform]]) -> pd.DataFrame:
    """How much the TRE of methods that draw random numbers depends on their seed.

    Parameters
    ----------
    errors
        Of all methods and pairs with the seed of the config, columns as in `LANDMARK_COLUMNS`.
    again
        Further registrations: name of the seed, method, pair, transform. Each pair is among `errors`.

    Returns
    -------
    pandas.DataFrame
        A row for each method of `again`: ``method``, ``seeds`` (their number, that of `errors` among them), and the mean and
        the median over all landmarks, ``tre_mean`` and ``tre_median``, in mm: of the seed of `errors`, then over all seeds with
        ``_mean``, ``_sd`` (of a sample), ``_lowest`` and ``_highest``.
    """
    runs = [errors.assign(seed="")]
    for seed, method, pair, transform in again:
        landmarks = errors[(errors["method"] == method) & (errors["pair"] == pair)]
        fixed, moving = (landmarks[_components(side)].to_numpy() for side in ("fixed", "moving"))
        runs.append(landmark_errors(method, pair, transform, fixed, moving).assign(seed=seed))
    table = pd.concat(runs, ignore_index=True).groupby(["method", "seed"], sort=False)["error"].agg(["mean", "median"])
    rows = []
    for method in dict.fromkeys(run["method"].iloc[0] for run in runs[1:]):
        values = table.loc[method]
        row = {"method": method, "seeds": len(values)}
        for name in ("mean", "median"):
            spread = values[name].agg(["mean", "std", "min", "max"]).to_numpy()
            row[f"tre_{name}"] = values.loc["", name]
            row |= {
                f"tre_{name}_{what}": value for what, value in zip(("mean", "sd", "lowest", "highest"), spread, strict=True)
            }
        rows.append(row)
    return pd.DataFrame(rows)


def point_errors(
    variant: str,
    split: str,
    image: str,
    moving: str,
    frequency: str,
    points: np.ndarray,
    displacement: np.ndarray,
    predicted: np.ndarray,
) -> pd.DataFrame:
    """Errors of one network variant at points of one synthetic pair.

    Parameters
    ----------
    variant, split, image, moving, frequency
        Written into the columns of these names. `moving` is ``original`` or ``deformed``, `frequency` one of `FREQUENCIES`.
    points
        Where the field was evaluated, ``(n, 3)``, x, y, z in mm (LPS).
    displacement, predicted
        True and predicted displacement there, ``(n, 3)``, x, y, z in mm.

    Returns
    -------
    pandas.DataFrame
        n rows, columns as in `POINT_COLUMNS`. ``mae`` is the sum of the absolute components ``mae_x``, ``mae_y``, ``mae_z``:
        the chapter's loss, and what the first rows of its table hold.

    Raises
    ------
    ValueError
        If the arrays are not all ``(n, 3)``.
    """
    points, displacement, predicted = _corresponding(points=points, displacement=displacement, predicted=predicted)
    difference = np.abs(predicted - displacement)
    names = {"variant": variant, "split": split, "image": image, "moving": moving, "frequency": frequency}
    return pd.DataFrame(
        {
            **{column: [name] * len(points) for column, name in names.items()},
            "point": np.arange(len(points)),
            **_columns("point", points),
            **_columns("displacement", displacement),
            **_columns("predicted", predicted),
            "mae": difference.sum(axis=1),
            **_columns("mae", difference),
        }
    )


def sample_errors(
    variant: str,
    split: str,
    names: Sequence[tuple[str, str, str]],
    grids: Sequence[Grid],
    pool: SamplePool,
    predicted: np.ndarray,
) -> pd.DataFrame:
    """Errors of one network variant at all samples of the synthetic pairs of a split.

    Parameters
    ----------
    variant, split
        As in `point_errors`.
    names
        Image, moving and frequency of each pair of the pool.
    grids
        The grid of each pair's images.
    pool
        The samples with their true displacements.
    predicted
        Predicted displacements, ``(n, k, k, k, 3)`` in voxels, as `regnet.inference.predict_samples` gives them.

    Returns
    -------
    pandas.DataFrame
        One row per point, columns as in `POINT_COLUMNS`.
    """
    frames = []
    for number, ((image, moving, frequency), grid) in enumerate(zip(names, grids, strict=True)):
        chosen = pool.pair == number
        points = grid.points(output_points(pool.centres[chosen], pool.block).reshape(-1, 3))
        fields = [grid.to_physical(field[chosen].reshape(-1, 3) * grid.spacing) for field in (pool.displacements, predicted)]
        frames.append(point_errors(variant, split, image, moving, frequency, points, *fields))
    return collect(frames, POINT_COLUMNS)


def zero_field_mae(points: pd.DataFrame) -> float:
    """MAE, in mm, that a network that always predicts no displacement would have at these points; NaN without points.

    `points` has columns as in `POINT_COLUMNS`.
    """
    return float(points[_components("displacement")].abs().sum(axis=1).mean())


def residual_displacements(landmarks: pd.DataFrame, method: str) -> pd.DataFrame:
    """What the affine registration left over, and what `method` made of it: one row per landmark.

    Parameters
    ----------
    landmarks
        Columns as in `LANDMARK_COLUMNS`; the rows of ``affine`` and of `method` are matched by pair and landmark.
    method
        A method that runs after the affine registration.

    Returns
    -------
    pandas.DataFrame
        Columns pair, landmark, within_capture_range, ``true_x`` ... = ``x_M - A(x_F)`` and ``predicted_x`` ... =
        ``T(x_F) - A(x_F)``, in mm.
    """
    keys = ["pair", "landmark"]
    affine, other = (landmarks[landmarks["method"] == name] for name in ("affine", method))
    both = affine.merge(other[[*keys, *_components("mapped")]], on=keys, suffixes=("", "_by_method"), validate="one_to_one")
    result = both[[*keys, "within_capture_range"]].copy()
    for axis in AXES:
        result[f"true_{axis}"] = both[f"moving_{axis}"] - both[f"mapped_{axis}"]
        result[f"predicted_{axis}"] = both[f"mapped_{axis}_by_method"] - both[f"mapped_{axis}"]
    return result


def summarize(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Number, mean, standard deviation and median of each column.

    The chapter does not say which standard deviation it prints; this is that of a sample (division by n - 1), undefined for
    one value. At the chapter's 503 landmarks the choice moves the largest printed value by 0.002 mm.

    Returns
    -------
    pandas.DataFrame
        One row per column of `columns`: n, mean, sd, median; all but n are NaN without values.
    """
    values = frame[list(columns)].astype(float)
    return pd.DataFrame(
        {"n": values.count(), "mean": values.mean(), "sd": values.std(ddof=1), "median": values.median()}, index=values.columns
    )


def collect(frames: Iterable[pd.DataFrame], columns: Mapping[str, type]) -> pd.DataFrame:
    """Stack tables of errors, in order, into one with `columns` (`LANDMARK_COLUMNS` or `POINT_COLUMNS`); no frames, no rows."""
    empty = pd.DataFrame({column: pd.Series(dtype=kind) for column, kind in columns.items()})
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True)[list(columns)] if filled else empty


def write_errors(errors: pd.DataFrame, path: str | Path) -> None:
    """Write a table of errors as CSV, with all digits; never leaves half a file."""
    with whole_file(path) as partial:
        errors.to_csv(partial, index=False, lineterminator="\n")


def read_errors(path: str | Path, columns: Mapping[str, type]) -> pd.DataFrame:
    """Read a CSV table of errors with `columns` (`LANDMARK_COLUMNS` or `POINT_COLUMNS`); it may have no rows, and more columns.

    Raises
    ------
    InputError
        If the file is missing, is not a CSV table, lacks a column, or holds something else than the column's type.
    """
    try:
        found = pd.read_csv(path, nrows=0).columns
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({error})") from error
    missing = [column for column in columns if column not in found]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; found {', '.join(found)}")
    try:
        # Without the NaN filter, an empty number is an error and a pair named "NA" is a name.
        return pd.read_csv(path, usecols=list(columns), dtype=dict(columns), na_filter=False)[list(columns)]
    except ValueError as error:
        raise InputError(f"{path}: a value does not fit its column ({error})") from error


def field_slices(fields: Mapping[str, sitk.Transform], image: sitk.Image, mask: sitk.Image) -> dict[str, np.ndarray]:
    """Magnitude of synthetic fields on one coronal slice of the image they deform: what figure 2.2 shows.

    The slice is the one with the largest part of the mask. Rows run from superior to inferior, columns from the patient's
    right to the left, as radiologists look at images.

    Parameters
    ----------
    fields
        One transform ``x + u(x)`` per frequency (`FREQUENCIES`), for example a `regnet.transforms.field_transform`; its
        nodes may be coarser than the image.
    image
        CT image, HU.
    mask
        Lung mask on the same grid.

    Returns
    -------
    dict
        ``low``, ``medium``, ``high``: ``||u||`` in mm, float32 ``(rows, columns)``; ``ct``: HU, int16; ``spacing``: of rows
        and columns, in mm, ``(2,)``.
    """
    slab, _ = _slab(image, mask, "coronal")
    grid = Grid.of(slab)
    slices = {"ct": _upright(slab, "coronal").astype(np.int16), "spacing": _spacing(slab, "coronal")}
    for frequency in FREQUENCIES:
        field = sitk.TransformToDisplacementField(
            fields[frequency], sitk.sitkVectorFloat64, grid.size, grid.origin, grid.spacing, grid.direction
        )
        slices[frequency] = _upright(sitk.VectorMagnitude(field), "coronal").astype(np.float32)
    return slices


def example_slices(
    pair: str, fixed: sitk.Image, mask: sitk.Image, moving: sitk.Image, transforms: Mapping[str, sitk.Transform]
) -> dict[str, np.ndarray]:
    """One coronal slice of the fixed image and of the moving image under each transform: what figure 2.5 shows.

    Slice and orientation are those of `field_slices`.

    Parameters
    ----------
    pair
        Name of the pair.
    fixed, moving
        CT images, HU. The fixed one is isotropic.
    mask
        Lung mask on the grid of the fixed image.
    transforms
        Transform of each method to show, fixed to moving, in the order of the figure: affine, bspline_3r, regnet in the
        chapter's.

    Returns
    -------
    dict
        ``pair``: its name; ``spacing``: of rows and columns, in mm, ``(2,)``; ``fixed``: HU, int16 ``(rows, columns)``;
        ``mask``: uint8; then under each method's name the warped moving image, HU, int16.
    """
    return {"pair": np.array(pair), **_slices("coronal", fixed, mask, moving, transforms)}


def overview_slices(
    fixed: sitk.Image, mask: sitk.Image, moving: sitk.Image, transforms: Mapping[str, sitk.Transform]
) -> dict[str, dict[str, np.ndarray]]:
    """One slice per plane of the fixed image and of the moving image under each transform: what the overview shows.

    Each is the slice with the largest part of the mask, as radiologists look at it: superior or anterior on top, the patient's
    right or anterior side on the left.

    Parameters
    ----------
    fixed, moving
        CT images, HU, on any grids.
    mask
        Lung mask on the grid of the fixed image.
    transforms
        Transforms by any names, fixed to moving.

    Returns
    -------
    dict
        For each of `PLANES` the arrays of `example_slices`, without ``pair``.
    """
    return {plane: _slices(plane, fixed, mask, moving, transforms) for plane in PLANES}


def save_slices(path: str | Path, slices: Mapping[str, np.ndarray]) -> None:
    """Write the arrays of `field_slices` or `example_slices` as ``.npz``; never leaves half a file."""
    with whole_file(path) as partial:
        np.savez_compressed(partial, **slices)


def read_slices(path: str | Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read all arrays of an ``.npz`` file, in their order in the file.

    Raises
    ------
    InputError
        If the file is missing, is no such file, or lacks one of the arrays `names`.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            slices = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile, AttributeError) as error:
        raise InputError(f"{path}: cannot be read as an npz file ({error})") from error
    missing = [name for name in names if name not in slices]
    if missing:
        raise InputError(f"{path}: lacks the arrays {', '.join(missing)}; found {', '.join(slices) or 'none'}")
    return slices


def _corresponding(**arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays as float ``(n, 3)``, or an error that names the one that is not."""
    count = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        if np.shape(array) != (count, 3):
            raise ValueError(f"{name}: shape {np.shape(array)}, expected {(count, 3)}: x, y, z of each point")
    return [np.asarray(array, float) for array in arrays.values()]


def _columns(name: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Columns ``name_x``, ``name_y``, ``name_z`` of vectors ``(n, 3)``."""
    return dict(zip(_components(name), vectors.T, strict=True))


def _slices(
    plane: str, fixed: sitk.Image, mask: sitk.Image, moving: sitk.Image, transforms: Mapping[str, sitk.Transform]
) -> dict[str, np.ndarray]:
    """The arrays of `example_slices`, without ``pair``, in one of the `PLANES`."""
    slab, mask_slab = _slab(fixed, mask, plane)
    return {
        "spacing": _spacing(slab, plane),
        "fixed": _upright(slab, plane).astype(np.int16),
        "mask": _upright(mask_slab, plane).astype(np.uint8),
        **{name: _upright(warp(moving, transform, Grid.of(slab)), plane) for name, transform in transforms.items()},
    }


def _slab(image: sitk.Image, mask: sitk.Image, plane: str) -> tuple[sitk.Image, sitk.Image]:
    """Image and mask, one voxel thick across a plane, where the mask is largest, with axes turned towards L, P, S."""
    image, mask = sitk.DICOMOrient(image, "LPS"), sitk.DICOMOrient(mask, "LPS")
    across = PLANES[plane]
    area = (sitk.GetArrayViewFromImage(mask) != 0).sum(axis=tuple(2 - axis for axis in range(3) if axis != across))
    first = int(area.argmax())
    box = tuple(slice(first, first + 1) if axis == across else slice(None) for axis in range(3))
    return image[box], mask[box]


def _upright(slab: sitk.Image, plane: str) -> np.ndarray:
    """The array ``(rows, columns)`` of a slab; where its rows run along z, superior is on top: z points up, rows run down."""
    array = sitk.GetArrayFromImage(slab).squeeze(2 - PLANES[plane])
    return array if plane == "axial" else array[::-1]


def _spacing(slab: sitk.Image, plane: str) -> np.ndarray:
    columns, rows = (side for axis, side in enumerate(slab.GetSpacing()) if axis != PLANES[plane])
    return np.array([rows, columns])
