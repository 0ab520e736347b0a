"""Errors of registrations at landmarks, in mm: TRE and TRE' (Sokooti et al., MICCAI 2017).

TRE is the Euclidean distance ``||T(x_F) - x_M||``; TRE' is the same over the landmarks that lie within the capture range after
the affine registration. Tables are long: one row per landmark and method.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import SimpleITK as sitk

from regnet.conventions import AXES
from regnet.errors import ConfigError
from regnet.evaluation.long_tables import LANDMARK_COLUMNS, collect, components, corresponding_points, vector_columns
from regnet.images.transforms import transform_points
from regnet.images.volumes import Grid


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
    fixed, moving = corresponding_points(fixed=fixed, moving=moving)
    mapped = transform_points(transform, fixed)
    difference = mapped - moving
    return pd.DataFrame(
        {
            "method": [method] * len(fixed),
            "pair": [pair] * len(fixed),
            "landmark": np.arange(len(fixed)),
            **vector_columns("fixed", fixed),
            **vector_columns("moving", moving),
            **vector_columns("mapped", mapped),
            "error": np.linalg.norm(difference, axis=1),
            **vector_columns("error", np.abs(difference)),
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


def _snapped_errors(errors: pd.DataFrame, grid: Grid) -> np.ndarray:
    """Distances between the voxels nearest to the mapped points and those nearest to the landmarks, in mm.

    DIR-Lab and the papers that use its landmarks measure so. There the landmarks are centres of voxels; where they are not,
    both have to be rounded, as rounding one of the two alone would only add noise.
    """
    mapped, moving = (grid.indices(errors[components(name)].to_numpy()) for name in ("mapped", "moving"))
    # Half a voxel always goes up: even numbers as numpy prefers them would shift points by their place in the image.
    return np.linalg.norm((np.floor(mapped + 0.5) - np.floor(moving + 0.5)) * grid.spacing, axis=1)
