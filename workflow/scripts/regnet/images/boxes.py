"""Boxes in volumes. Imports numpy only."""

from collections.abc import Sequence

import numpy as np

Box = tuple[slice, ...]
"""A part of a volume: slices along z, y, x."""


def bounding_box(inside: np.ndarray, margin: int | Sequence[int] = 0) -> Box:
    """The smallest box around a mask, plus a margin, cut to the array.

    Parameters
    ----------
    inside
        An array with any number of axes, nonzero inside.
    margin
        Voxels to add at both ends of each axis: one number, or one per axis.

    Returns
    -------
    tuple of slice
        A slice for each axis; an empty tuple if the mask is empty.
    """
    box = []
    for axis, (count, reach) in enumerate(zip(inside.shape, np.broadcast_to(margin, inside.ndim).tolist(), strict=True)):
        along = np.flatnonzero(inside.any(axis=tuple(other for other in range(inside.ndim) if other != axis)))
        if not len(along):
            return ()
        box.append(slice(max(0, int(along[0]) - reach), min(count, int(along[-1]) + reach + 1)))
    return tuple(box)
