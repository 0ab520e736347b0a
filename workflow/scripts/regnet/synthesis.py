"""Random displacement fields and the deformed images made with them: the training data (section 2.2.2 of the chapter)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.interpolate import make_interp_spline

from regnet.conventions import AIR_HU
from regnet.errors import InputError, RegNetError
from regnet.files import whole_file
from regnet.patches import CANDIDATES, Samples, balance, output_points, sample_centres
from regnet.transforms import field_transform, jacobian_determinant
from regnet.volumes import Grid, resample

log = logging.getLogger(__name__)

ZERO_POINTS = 2
"""How many of the random points carry a zero vector [author's implementation, METHOD.md]."""

NODES_PER_SIGMA = 5
"""Density of the nodes on which a field is evaluated before cubic interpolation: error below 0.001 of its maximum."""

ATTEMPTS = 20
"""How often a field that folds is drawn again before giving up."""


@dataclass(frozen=True)
class SyntheticDVF:
    """A random displacement field: a few points with vectors, smoothed with a Gaussian and scaled back to full amplitude.

    It is kept as what defines it, some kilobytes, and evaluated where it is needed.

    Attributes
    ----------
    points
        Shape ``(p, 3)``: where the random vectors are, in mm along the axes x, y, z of `grid` from its first voxel.
    vectors
        Shape ``(p, 3)``: the random vectors before smoothing, components x, y, z along the axes of `grid`, in mm.
    sigma
        Standard deviation of the Gaussian, in mm.
    scale
        Shape ``(3, 2)``: for each component the factors on its positive and on its negative part after smoothing.
    grid
        The grid of the images that the field belongs to. The field maps points of the fixed image to the moving image.
    """

    points: np.ndarray
    vectors: np.ndarray
    sigma: float
    scale: np.ndarray
    grid: Grid

    def on_grid(self) -> np.ndarray:
        """The displacements on every voxel of `grid`: shape ``(z, y, x, 3)``, physical components x, y, z in mm, float32."""
        smoothed = _smoothed_on_grid(self.points, self.vectors, self.sigma, self.grid)
        return self.grid.to_physical(self._scaled(smoothed)).astype(np.float32)

    def at(self, index: np.ndarray) -> np.ndarray:
        """The displacements at continuous voxel indices ``(..., 3)``, x, y, z: physical components x, y, z in mm."""
        position = np.asarray(index, float) * self.grid.spacing
        smoothed = np.empty(position.shape)
        for chunk, out in zip(
            np.array_split(position.reshape(-1, 3), max(1, position.size // 30000)),
            np.array_split(smoothed.reshape(-1, 3), max(1, position.size // 30000)),
            strict=True,
        ):
            squared = ((chunk[:, None] - self.points) ** 2).sum(axis=-1)
            out[:] = np.exp(-0.5 * squared / self.sigma**2) @ self.vectors
        return self.grid.to_physical(self._scaled(smoothed))

    def _scaled(self, smoothed: np.ndarray) -> np.ndarray:
        positive, negative = self.scale.T
        return smoothed * np.where(smoothed > 0, positive, negative)

    def save(self, path: str | Path) -> None:
        """Write the field as an ``.npz`` file."""
        with whole_file(path) as partial:
            np.savez(
                partial,
                points=self.points,
                vectors=self.vectors,
                sigma=self.sigma,
                scale=self.scale,
                size=self.grid.size,
                spacing=self.grid.spacing,
                origin=self.grid.origin,
                direction=self.grid.direction,
            )

    @classmethod
    def load(cls, path: str | Path) -> "SyntheticDVF":
        """Read a field that `save` wrote.

        Raises
        ------
        InputError
            If the file cannot be read as such a field.
        """
        try:
            with np.load(path) as stored:
                grid = Grid(*(tuple(stored[name].tolist()) for name in ("size", "spacing", "origin", "direction")))
                return cls(stored["points"], stored["vectors"], float(stored["sigma"]), stored["scale"], grid)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: cannot be read as a synthetic displacement field ({error})") from error


def _gaussians(positions: np.ndarray, centres: np.ndarray, sigma: float) -> np.ndarray:
    return np.exp(-0.5 * ((positions[:, None] - centres) / sigma) ** 2)


def _smoothed_on_grid(points: np.ndarray, vectors: np.ndarray, sigma: float, grid: Grid) -> np.ndarray:
    """The smoothed, unscaled field on every voxel: exact on a coarse grid of nodes, cubic splines between them.

    A Gaussian is separable, so both steps are products of small matrices, one per axis.
    """
    at_nodes, to_voxels = [], []
    for axis in range(3):
        positions = np.arange(grid.size[axis]) * grid.spacing[axis]
        count = max(4, int(np.ceil(positions[-1] / sigma * NODES_PER_SIGMA)) + 1)
        nodes = np.linspace(0, positions[-1], count)
        at_nodes.append(_gaussians(nodes, points[:, axis], sigma))
        to_voxels.append(make_interp_spline(nodes, np.eye(count), k=3)(positions).astype(np.float32))
    x, y, z = at_nodes
    field = np.einsum("zp,yp,xp,pc->zyxc", z, y, x, vectors, optimize=True).astype(np.float32)
    x, y, z = to_voxels
    field = np.tensordot(z, field, (1, 0))
    field = np.tensordot(y, field, (1, 1)).swapaxes(0, 1)
    return np.ascontiguousarray(np.moveaxis(np.tensordot(x, field, (1, 2)), 0, 2))


def random_dvf(grid: Grid, *, sigma: float, points: int, theta: float, border: float, rng: np.random.Generator) -> SyntheticDVF:
    """Draw a random field that does not fold.

    Parameters
    ----------
    grid
        The grid of the images.
    sigma
        Standard deviation of the Gaussian that smooths the field, in mm.
    points
        Number of random points P.
    theta
        Components are drawn from ``[-theta, theta]`` mm, and reach the same maximum again after smoothing.
    border
        Points keep this distance from the border of the image, in mm; at most a quarter of its extent, so that any image
        has room for them.
    rng
        Source of the random numbers.

    Raises
    ------
    RegNetError
        If no field without folding is found, because theta is too large for sigma.
    """
    extent = (np.array(grid.size) - 1) * grid.spacing
    margin = np.minimum(border, extent / 4)
    for attempt in range(ATTEMPTS):
        centres = rng.uniform(margin, extent - margin, (points, 3))
        vectors = rng.uniform(-theta, theta, (points, 3))
        vectors[:ZERO_POINTS] = 0
        smoothed = _smoothed_on_grid(centres, vectors, sigma, grid)
        before = np.stack([vectors.max(axis=0), -vectors.min(axis=0)], axis=1).clip(0)
        after = np.stack([smoothed.max(axis=(0, 1, 2)), -smoothed.min(axis=(0, 1, 2))], axis=1)
        scale = np.divide(before, after, out=np.zeros_like(before), where=after > 1e-6 * theta)
        dvf = SyntheticDVF(centres, vectors, sigma, scale, grid)
        determinant = jacobian_determinant(dvf.on_grid(), grid)
        folded = float((determinant <= 0).mean())
        log.info("sigma %g mm: smallest Jacobian determinant %.2f, folded %.4f %%", sigma, determinant.min(), 100 * folded)
        if folded == 0:
            return dvf
        log.info("attempt %d folds, drawing again", attempt + 1)
    raise RegNetError(f"theta = {theta} mm with sigma = {sigma} mm: {ATTEMPTS} fields folded, expected a smaller theta")


def deform(moving: sitk.Image, dvf: SyntheticDVF, *, noise_sd: float, rng: np.random.Generator) -> sitk.Image:
    """The fixed image of a synthetic pair: ``I_M(x + u(x))`` by cubic B-splines, plus Gaussian noise, int16 HU.

    Parameters
    ----------
    moving
        The moving image, on the grid of `dvf`. Its border values continue outside.
    dvf
        The field ``u``.
    noise_sd
        Standard deviation of the noise, in HU.
    rng
        Source of the noise.
    """
    transform = field_transform(dvf.on_grid(), dvf.grid)
    warped = sitk.GetArrayFromImage(resample(moving, transform, dvf.grid, sitk.sitkBSpline))
    noisy = warped + rng.normal(0, noise_sd, warped.shape).astype(np.float32)
    return dvf.grid.image(np.clip(np.round(noisy), AIR_HU, 32767).astype(np.int16))


def deform_mask(mask: sitk.Image, dvf: SyntheticDVF) -> sitk.Image:
    """The lung mask of the fixed image of a synthetic pair, from that of its moving image: nearest neighbour, uint8."""
    warped = resample(mask, field_transform(dvf.on_grid(), dvf.grid), dvf.grid, sitk.sitkNearestNeighbor)
    return sitk.Cast(warped, sitk.sitkUInt8)


def draw_samples(
    dvf: SyntheticDVF,
    mask: sitk.Image,
    count: int,
    block: int,
    rng: np.random.Generator,
    *,
    limits: Sequence[float] | None = None,
) -> Samples:
    """Draw samples of a synthetic pair: block centres in the lungs of its fixed image, and the true displacements there.

    Parameters
    ----------
    dvf
        The field of the pair.
    mask
        Lungs of the fixed image, on the grid of `dvf`.
    count
        Number of samples.
    block
        Outputs per axis of a sample.
    rng
        Source of the random numbers.
    limits
        Classes of displacement, in mm, to which the samples belong equally (`regnet.patches.balance`); none for all alike.

    Raises
    ------
    InputError
        If the mask is empty, or no displacement is in any class.
    """
    candidates = count if limits is None else CANDIDATES * count
    centres = sample_centres(sitk.GetArrayViewFromImage(mask), candidates, rng)
    if limits is not None:
        # The middle of a block is half a voxel before its centre.
        middle = dvf.grid.to_voxels(dvf.at(centres - 0.5)) * dvf.grid.spacing
        centres = centres[balance(middle, limits, count, rng)]
    displacements = dvf.at(output_points(centres, block))
    return Samples(centres, dvf.grid.to_voxels(displacements).astype(np.float32))
