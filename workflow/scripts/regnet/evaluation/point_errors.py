"""What a registration is worth: errors at landmarks and at points of synthetic fields.

TRE is the Euclidean distance ``||T(x_F) - x_M||``, TRE' the same over the landmarks that lie within the capture range after
the affine registration, MAE the mean over points of ``|dx| + |dy| + |dz|`` (Sokooti et al., MICCAI 2017). All are in mm.
Tables are long: one row per landmark and method, or per point and network variant.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import SimpleITK as sitk

from regnet.conventions import AXES
from regnet.errors import ConfigError
from regnet.evaluation.long_tables import LANDMARK_COLUMNS, POINT_COLUMNS, collect, components
from regnet.images.transforms import transform_points
from regnet.images.volumes import Grid
from regnet.synthesis.samples import SamplePool, output_points


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
        n rows with the columns of `LANDMARK_COLUMNS` except ``error_snapped`` and ``within_capture_range``: ``mapped`` is
        ``T(x_F)``, ``error`` its Euclidean distance from ``x_M``, ``error_x`` ... the absolute components.

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
    table[list(AXES)] = by_transform[components("error")].mean()
    return table.rename_axis(None)


def pair_errors(
    pair: str,
    transforms: Mapping[str, sitk.Transform],
    fixed: np.ndarray,
    moving: np.ndarray,
    capture_range: float,
    moving_grid: Grid,
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
    moving_grid
        The voxels to which the snapped errors round mapped points and landmarks: those of the moving image as it was given.

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
    return collect(
        (
            frame.assign(error_snapped=_snapped_errors(frame, moving_grid), within_capture_range=within)
            for frame in frames.values()
        ),
        LANDMARK_COLUMNS,
    )


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
        fixed, moving = (landmarks[components(side)].to_numpy() for side in ("fixed", "moving"))
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
        Predicted displacements, ``(n, k, k, k, 3)`` in voxels, as `regnet.learning.inference.predict_samples` gives them.

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


def _corresponding(**arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays as float ``(n, 3)``, or an error that names the one that is not."""
    count = len(next(iter(arrays.values())))
    for name, array in arrays.items():
        if np.shape(array) != (count, 3):
            raise ValueError(f"{name}: shape {np.shape(array)}, expected {(count, 3)}: x, y, z of each point")
    return [np.asarray(array, float) for array in arrays.values()]


def _snapped_errors(errors: pd.DataFrame, grid: Grid) -> np.ndarray:
    """Distances between the voxels nearest to the mapped points and those nearest to the landmarks, in mm.

    DIR-Lab and the papers that use its landmarks measure so. There the landmarks are centres of voxels; where they are not,
    both have to be rounded, as rounding one of the two alone would only add noise.
    """
    mapped, moving = (grid.indices(errors[components(name)].to_numpy()) for name in ("mapped", "moving"))
    # Half a voxel always goes up: even numbers as numpy prefers them would shift points by their place in the image.
    return np.linalg.norm((np.floor(mapped + 0.5) - np.floor(moving + 0.5)) * grid.spacing, axis=1)


def _columns(name: str, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Columns ``name_x``, ``name_y``, ``name_z`` of vectors ``(n, 3)``."""
    return dict(zip(components(name), vectors.T, strict=True))
