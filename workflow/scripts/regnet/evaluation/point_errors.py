"""Errors of networks at points of synthetic pairs, in mm: the MAE (Sokooti et al., MICCAI 2017).

MAE is the mean over points of ``|dx| + |dy| + |dz|``. Tables are long: one row per point and network variant.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regnet.evaluation.long_tables import POINT_COLUMNS, collect, corresponding_points, vector_columns
from regnet.images.volumes import Grid
from regnet.synthesis.samples import SamplePool, output_points


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
        Values of the columns with these names. `moving` is ``original`` or ``deformed``, `frequency` one of `FREQUENCIES`.
    points
        Where the field was evaluated, ``(n, 3)``, x, y, z in mm (LPS).
    displacement, predicted
        True and predicted displacement at these points, ``(n, 3)``, x, y, z in mm.

    Returns
    -------
    pandas.DataFrame
        n rows, columns as in `POINT_COLUMNS`. ``mae`` is the sum of the absolute components ``mae_x``, ``mae_y``, ``mae_z``:
        the chapter's loss, and the measure of the first rows of its table.

    Raises
    ------
    ValueError
        If the arrays are not all ``(n, 3)``.
    """
    points, displacement, predicted = corresponding_points(points=points, displacement=displacement, predicted=predicted)
    difference = np.abs(predicted - displacement)
    names = {"variant": variant, "split": split, "image": image, "moving": moving, "frequency": frequency}
    return pd.DataFrame(
        {
            **{column: [name] * len(points) for column, name in names.items()},
            "point": np.arange(len(points)),
            **vector_columns("point", points),
            **vector_columns("displacement", displacement),
            **vector_columns("predicted", predicted),
            "mae": difference.sum(axis=1),
            **vector_columns("mae", difference),
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
        Predicted displacements, ``(n, k, k, k, 3)`` in voxels, as `regnet.learning.inference.predict_samples` returns them.

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
