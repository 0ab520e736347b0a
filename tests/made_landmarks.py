"""Transforms and landmarks with known errors, for tests of tables and figures."""

import numpy as np
import SimpleITK as sitk

from regnet.evaluation import landmark_errors
from regnet.evaluation.long_tables import LANDMARK_COLUMNS, collect
from regnet.images.volumes import Grid

VOXELS = Grid((9, 9, 9), (1.0, 1.0, 1.0))
DRAWS = {"samples": 400, "seed": 1}


def shift(*vector):
    return sitk.TranslationTransform(3, [float(component) for component in vector])


def scaling(x, y, z):
    transform = sitk.AffineTransform(3)
    transform.SetMatrix([x, 0, 0, 0, y, 0, 0, 0, z])
    return transform


def landmarks(initial, residual, pairs=("p1",)):
    """Landmarks on a line in each pair, with errors of `initial` mm after affine and `residual` mm after the method ``net``."""
    moving = np.array([[distance, 0, 0] for distance in initial], float)
    frames = []
    for pair_name in pairs:
        table = landmark_errors.pair_errors(pair_name, {"affine": shift(0, 0, 0)}, np.zeros_like(moving), moving, 8.0, VOXELS)
        frames += [table, table.assign(method="net", error=residual, error_x=residual, error_snapped=np.round(residual))]
    return collect(frames, LANDMARK_COLUMNS)
