"""One synthetic pair of a 300^3 image: field, cubic B-spline warp, noise and lung mask, beside the direct way.

The direct way smooths the three components of the point field with scipy at full resolution and resamples with SimpleITK, field
and image on the same grid. Unlike ours, it does not check for folding. tests/synthesis/test_pairs.py checks that both
warps agree.
"""

import harness
import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from regnet.images.transforms import field_transform
from regnet.images.volumes import Grid, resample
from regnet.synthesis.pairs import deform, deform_mask, random_dvf, reachable_boxes

GRID = Grid((300, 300, 300), (1.0, 1.0, 1.0))
FIELD = {"sigma": 20, "points": 100, "theta": 8}
BORDER, NOISE_SD = 33, 5


def chest() -> tuple[sitk.Image, sitk.Image]:
    """Noise as smooth as in a CT, int16 HU, and a mask of two ellipsoids as large as lungs, together 256 x 172 x 250 mm."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(GRID.shape, np.float32), 1)
    z, y, x = np.ogrid[-150:150, -150:150, -150:150]
    lungs = ((np.abs(x) - 68) / 60) ** 2 + (y / 86) ** 2 + (z / 125) ** 2 < 1
    values = np.where(lungs, -800, 0) + 100 / noise.std() * noise
    return GRID.image(values.astype(np.int16)), GRID.image(lungs.astype(np.uint8))


def direct() -> float:
    """Full-resolution smoothing and resampling."""
    moving, mask = chest()
    rng = np.random.default_rng(1)

    def pair():
        field = np.zeros((*GRID.shape, 3), np.float32)
        places = rng.integers(BORDER, 300 - BORDER, (FIELD["points"], 3))
        vectors = rng.uniform(-FIELD["theta"], FIELD["theta"], (FIELD["points"], 3))
        field[tuple(places.T)] = vectors
        for axis in range(3):
            smoothed = gaussian_filter(field[..., axis], FIELD["sigma"], mode="constant")
            positive, negative = vectors[:, axis].max() / smoothed.max(), vectors[:, axis].min() / smoothed.min()
            field[..., axis] = np.where(smoothed > 0, positive, negative) * smoothed
        transform = field_transform(field, GRID)
        warped = sitk.GetArrayFromImage(resample(moving, transform, GRID, sitk.sitkBSpline))
        np.round(warped + rng.normal(0, NOISE_SD, warped.shape)).astype(np.int16)
        resample(mask, transform, GRID, sitk.sitkNearestNeighbor)

    return harness.timed(pair)


def ours() -> float:
    """The work of the rule for each pair, after reading the moving image."""
    moving, mask = chest()
    rng = np.random.default_rng(1)

    def pair():
        dvf = random_dvf(GRID, **FIELD, border=BORDER, rng=rng)
        deform(moving, dvf, noise_sd=NOISE_SD, rng=rng, boxes=reachable_boxes(mask, dvf, block=1))
        deform_mask(mask, dvf)

    return harness.timed(pair)


if __name__ == "__main__":
    harness.save("synthesis", harness.compare({"direct": direct, "ours": ours}))
