"""Errors of registrations at landmarks, in mm: TRE and TRE' (Sokooti et al., MICCAI 2017).

TRE is the Euclidean distance ``||T(x_F) - x_M||``. TRE' is the TRE of the landmarks that are within the capture range after the
affine registration. Tables are long: one row per landmark and method.
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
        Values of the columns with these names.
    transform
        Maps points from fixed to moving, in mm.
    fixed, moving
        Corresponding points ``(n, 3)``, x, y, z in mm (LPS); n may be 0.

    Returns
    -------
    pandas.DataFrame
        n rows with the columns of `LANDMARK_COLUMNS` except ``error_snapped`` and ``within_capture_range``: ``mapped`` is
        ``T(x_F)``, ``error`` its Euclidean distance from ``x_M``, and ``error_x`` ... are the absolute components.

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
    """Errors of several transforms at corresponding points ``(n, 3)``, x, y, z in mm (LPS).

    Returns
    -------
    pandas.DataFrame
        The rows of `landmark_errors` for each transform, with its name in the column ``method`` and no column ``pair``.
    """
    frames = (landmark_errors(name, "", transform, fixed, moving) for name, transform in transforms.items())
    return pd.concat(frames, ignore_index=True).drop(columns="pair")


def landmark_table(errors: pd.DataFrame) -> pd.DataFrame:
    """TRE of each transform.

    Parameters
    ----------
    errors
        Result of `transform_errors`, with at least one landmark.

    Returns
    -------
    pandas.DataFrame
        One row per transform, indexed by its name, in the order of `errors`. Columns: ``landmarks`` (their number); ``mean``,
        ``sd``, ``median`` and ``max`` of the Euclidean distance; ``x``, ``y``, ``z``, the means of its absolute components. All
        in mm.
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
        Transform of each method, fixed to moving; must include ``affine``.
    fixed, moving
        Corresponding points ``(n, 3)``, x, y, z in mm (LPS).
    capture_range
        A landmark is within it if its error after ``affine`` is at most this, in mm: 8 in the chapter.
    moving_grid
        Grid of the moving image as it was given; the snapped errors round mapped points and landmarks to its voxels.

    Returns
    -------
    pandas.DataFrame
        n rows per method, columns as in `LANDMARK_COLUMNS`. ``within_capture_range`` belongs to the landmark: it is the same
        for every method.

    Raises
    ------
    ConfigError
        If there is no transform of ``affine``.

    Examples
    --------
    After the affine registration one landmark is 3 mm off, the other 12 mm and so beyond the capture range of 8 mm. The second
    method moves every point another 2 mm along x.

    >>> import numpy as np
    >>> import SimpleITK as sitk
    >>> from regnet.images.volumes import Grid
    >>> fixed = np.zeros((2, 3))
    >>> moving = np.array([[3.0, 0, 0], [0, 0, 12]])
    >>> transforms = {"affine": sitk.TranslationTransform(3), "shifted": sitk.TranslationTransform(3, (2.0, 0, 0))}
    >>> errors = pair_errors("case1", transforms, fixed, moving, 8.0, Grid((32, 32, 32), (1.0, 1.0, 1.0)))
    >>> print(errors[["method", "landmark", "error", "within_capture_range"]].round(2).to_string(index=False))
     method  landmark  error  within_capture_range
     affine         0   3.00                  True
     affine         1  12.00                 False
    shifted         0   1.00                  True
    shifted         1  12.17                 False
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


def seed_spread(errors: pd.DataFrame, repeats: Iterable[tuple[str, str, str, sitk.Transform]]) -> pd.DataFrame:
    """How much the TRE of methods that draw random numbers depends on their seed.

    Parameters
    ----------
    errors
        Errors of all methods and pairs with the seed of the config, columns as in `LANDMARK_COLUMNS`.
    repeats
        Registrations with further seeds: name of the seed, method, pair, transform. `errors` must have each method and pair.

    Returns
    -------
    pandas.DataFrame
        One row for each method of `repeats`: ``method``; ``seeds``, the number of seeds including that of `errors`; and
        ``tre_mean`` and ``tre_median``, the mean and median over all landmarks in mm with the seed of `errors`. Both also with
        the suffixes ``_mean``, ``_sd`` (of a sample), ``_lowest`` and ``_highest``: their statistics over all seeds.
    """
    runs = [errors.assign(seed="")]
    for seed, method, pair, transform in repeats:
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
            suffixes = ("mean", "sd", "lowest", "highest")
            row |= {f"tre_{name}_{suffix}": value for suffix, value in zip(suffixes, spread, strict=True)}
        rows.append(row)
    return pd.DataFrame(rows)


def _snapped_errors(errors: pd.DataFrame, grid: Grid) -> np.ndarray:
    """Distances between the voxels nearest to the mapped points and those nearest to the landmarks, in mm.

    DIR-Lab and the papers that use its landmarks measure errors like this. DIR-Lab's landmarks are centres of voxels. For other
    landmarks both points have to be rounded: rounding only one of them would add noise.
    """
    mapped, moving = (grid.indices(errors[components(name)].to_numpy()) for name in ("mapped", "moving"))
    # Round half up: numpy rounds half to even, so that the direction of a shift would depend on the place in the image.
    return np.linalg.norm((np.floor(mapped + 0.5) - np.floor(moving + 0.5)) * grid.spacing, axis=1)
