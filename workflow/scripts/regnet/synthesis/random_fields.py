"""Random displacement fields and cubic B-spline warps as tensors, on the CPU or on a GPU. Imports torch and numpy only.

This module knows the voxel grid, but no physical space: positions are in mm or in voxels along the axes x, y, z of the grid,
from its first voxel, and displacements have components along these axes. `regnet.synthesis.pairs` adds the `Grid`.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regnet.errors import RegNetError
from regnet.images.boxes import Box

log = logging.getLogger(__name__)

ZERO_POINTS = 2
"""How many of the random points carry a zero vector [author's implementation, METHOD.md]."""

ATTEMPTS = 20
"""How many fields that fold are drawn before giving up."""

CHECKED_PER_SIGMA = 5
"""Points per sigma, on each axis, of the lattice on which the Jacobian determinant of a new field is checked."""

SMALLEST_DETERMINANT = 0.1
"""A field whose Jacobian determinant falls below this on the lattice counts as folded: between the points of the lattice it may
be lower by a few hundredths. The chapter's fields stay above 0.3."""

SLAB_VOXELS = 2**22
"""Approximate number of voxels processed at once, which bounds the memory beyond inputs and results."""


@dataclass(frozen=True)
class RandomField:
    """A random displacement field: points with vectors, smoothed with a Gaussian and scaled back (section 2.2.2).

    A Gaussian is separable, so the field on a lattice is a product of two small matrices. It is exact at any point.

    Attributes
    ----------
    points
        Shape ``(p, 3)``: where the random vectors are, x, y, z in mm.
    vectors
        Shape ``(p, 3)``: the random vectors before smoothing, in mm. All tensors are float64 and on the same device.
    sigma
        Standard deviation of the Gaussian, in mm.
    scale
        Shape ``(3, 2)``: for each component the factors of its positive and of its negative part after smoothing.
    """

    points: Tensor
    vectors: Tensor
    sigma: float
    scale: Tensor

    def on_lattice(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Displacements at all points of the lattice with these positions on its axes: ``(3, z, y, x)``, all in mm, float32."""
        field = self._smoothed(*self._weights(x, y, z))
        for component, (positive, negative) in zip(field, self.scale.tolist(), strict=True):
            # Everything times the negative factor, plus what the positive part then lacks: faster than torch.where.
            positive_part = component.clamp_min(0)
            component.mul_(negative).add_(positive_part, alpha=positive - negative)
        return field

    def at(self, positions: Tensor) -> Tensor:
        """Displacements in mm at positions ``(n, 3)``, x, y, z in mm; float64, ``(n, 3)``."""
        smoothed = torch.exp(-0.5 * (torch.cdist(positions.double(), self.points) / self.sigma) ** 2) @ self.vectors
        return smoothed * self._factors(smoothed.T).T

    def smoothed_extremes(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """The extremes of each component on a lattice before scaling: ``(3, 2)``, maximum and negated minimum, in mm."""
        weights_x, weights_y, weights_z = self._weights(x, y, z)
        extremes = []
        for part in slabs((len(z), len(y), len(x))):
            low, high = self._smoothed(weights_x, weights_y, weights_z[part]).flatten(1).aminmax(dim=1)
            extremes.append(torch.stack([high, -low], dim=1))
        return torch.stack(extremes).amax(dim=0).double()

    def determinant(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Jacobian determinant of ``x + u(x)`` at all points of a lattice as in `on_lattice`: ``(z, y, x)``, float32."""
        weights = self._weights(x, y, z)
        factors = self._factors(self._smoothed(*weights))
        along_axes = []
        for axis, positions in enumerate((x, y, z)):
            slope = (self.points[:, axis] - positions[:, None]) / self.sigma**2
            derived = [weight * slope.float() if axis == other else weight for other, weight in enumerate(weights)]
            along_axes.append(self._smoothed(*derived).mul_(factors))
            along_axes[axis][axis] += 1
        along_x, along_y, along_z = along_axes
        return (along_x * torch.linalg.cross(along_y, along_z, dim=0)).sum(dim=0)

    def _weights(self, *positions: Tensor) -> list[Tensor]:
        """The Gaussians of all points at n positions on each of the axes x, y, z: ``(n, p)`` each."""
        return [
            torch.exp(-0.5 * ((along[:, None] - self.points[:, axis]) / self.sigma) ** 2).float()
            for axis, along in enumerate(positions)
        ]

    def _smoothed(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        rows = (z[:, None] * y).flatten(0, 1)
        smoothed = torch.empty(3, len(rows), len(x), device=x.device)
        for component, vectors in zip(smoothed, self.vectors.float().T, strict=True):
            torch.mm(rows, (x * vectors).T, out=component)
        return smoothed.view(3, len(z), len(y), len(x))

    def _factors(self, smoothed: Tensor) -> Tensor:
        """The factors of components ``(3, ...)``, by their sign after smoothing."""
        positive, negative = self.scale.to(smoothed.dtype).T.view(2, 3, *(1,) * (smoothed.ndim - 1))
        return torch.where(smoothed > 0, positive, negative)


def draw_field(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    *,
    sigma: float,
    points: int,
    theta: float,
    border: float,
    rng: np.random.Generator,
    device: torch.device | str = "cpu",
) -> RandomField:
    """Draw a random field that does not fold.

    Parameters
    ----------
    size, spacing
        Of the images: voxels, and mm between them, along x, y, z.
    sigma
        Standard deviation of the Gaussian that smooths the field, in mm.
    points
        Number of random points P.
    theta
        Vector components are drawn from ``[-theta, theta]`` mm, and are scaled back to the same extremes after smoothing.
    border
        Distance of the points from the border of the image, in mm; at most a quarter of its extent, so that any image has room
        for them.
    rng
        Source of the random numbers.
    device
        Where the field is computed.

    Raises
    ------
    RegNetError
        If no field without folding is found, because theta is too large for sigma.

    Examples
    --------
    The field of 40 x 30 x 20 voxels is smooth, moves no point by more than 5 mm along an axis, and does not fold.

    >>> size, spacing = (40, 30, 20), (2.0, 2.0, 2.5)
    >>> rng = np.random.default_rng(2017)
    >>> field = draw_field(size, spacing, sigma=20, points=50, theta=5, border=10, rng=rng)
    >>> axes = voxel_axes(size, spacing)
    >>> field.on_lattice(*axes).shape
    torch.Size([3, 20, 30, 40])
    >>> round(float(field.on_lattice(*axes).abs().max()), 1)
    5.0
    >>> bool(field.determinant(*axes).min() > 0)
    True
    """
    extent = (np.array(size) - 1) * spacing
    margin = np.minimum(border, extent / 4)
    axes = voxel_axes(size, spacing, device)
    lattice = [
        torch.linspace(0, side, int(np.ceil(side / sigma * CHECKED_PER_SIGMA)) + 1, dtype=torch.float64, device=device)
        for side in extent
    ]
    for attempt in range(ATTEMPTS):
        centres = torch.from_numpy(rng.uniform(margin, extent - margin, (points, 3))).to(device)
        vectors = torch.from_numpy(rng.uniform(-theta, theta, (points, 3))).to(device)
        vectors[:ZERO_POINTS] = 0
        field = RandomField(centres, vectors, sigma, torch.ones(3, 2, dtype=torch.float64, device=device))
        before = torch.stack([vectors.amax(dim=0), -vectors.amin(dim=0)], dim=1).clamp_min(0)
        after = field.smoothed_extremes(*axes)
        field = replace(field, scale=torch.where(after > 1e-6 * theta, before / after, 0))
        smallest = float(field.determinant(*lattice).min())
        log.info("sigma %g mm: smallest Jacobian determinant %.2f", sigma, smallest)
        if smallest >= SMALLEST_DETERMINANT:
            return field
        log.info("attempt %d folds, drawing again", attempt + 1)
    raise RegNetError(f"theta = {theta} mm with sigma = {sigma} mm: {ATTEMPTS} fields folded, expected a smaller theta")


def voxel_axes(
    size: Sequence[int], spacing: tuple[float, float, float], device: torch.device | str = "cpu"
) -> tuple[Tensor, ...]:
    """Positions of the voxels of an image on its axes x, y, z, in mm from the first one, float64."""
    return tuple(
        torch.arange(count, dtype=torch.float64, device=device) * step for count, step in zip(size, spacing, strict=True)
    )


def slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Consecutive parts of the first axis of a volume ``(z, y, x)``, of about `SLAB_VOXELS` voxels each."""
    thickness = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    return (slice(first, min(first + thickness, shape[0])) for first in range(0, shape[0], thickness))


def spline_coefficients(volume: Tensor) -> Tensor:
    """The cubic B-spline coefficients that interpolate a volume ``(z, y, x)``, mirrored at its borders as in ITK; float32.

    Along each axis the values are a tridiagonal matrix times the coefficients: its inverse is applied as a matrix product,
    which suits a GPU better than the usual recursive filter and costs little on a CPU.
    """
    coefficients = volume.float()
    for count in volume.shape:
        matrix = torch.eye(count, dtype=torch.float64) * 4
        matrix += torch.diag(torch.ones(count - 1, dtype=torch.float64), 1)
        matrix += torch.diag(torch.ones(count - 1, dtype=torch.float64), -1)
        matrix[0, 1] = matrix[-1, -2] = 2
        inverse = (6 * torch.linalg.inv(matrix)).to(volume.device, torch.float32)
        # Contracts the first axis and appends the result as the last one: after three rounds the axes are in order again.
        coefficients = torch.tensordot(coefficients, inverse, dims=([0], [1]))
    return coefficients


def displacement_in_voxels(field: RandomField, size: Sequence[int], spacing: tuple[float, float, float], box: Box) -> Tensor:
    """The displacement from each voxel of a part of the fixed image to its point in the moving image.

    Parameters
    ----------
    field
        The field.
    size, spacing
        Of both images: voxels, and mm between them, along x, y, z.
    box
        The part, along z, y, x.

    Returns
    -------
    Tensor
        Shape ``(3, z, y, x)``, components x, y, z in voxels, float32. Points outside the moving image are moved to its border,
        so that border values continue there.
    """
    axes = [along[part] for along, part in zip(voxel_axes(size, spacing, field.points.device), reversed(box), strict=True)]
    per_voxel = field.scale.new_tensor(spacing)[:, None]
    displacement = replace(field, scale=field.scale / per_voxel).on_lattice(*axes)
    for axis, component in enumerate(displacement):
        index = (axes[axis] / spacing[axis]).float().view([-1 if axis == other else 1 for other in (2, 1, 0)])
        component.clamp_(-index, size[axis] - 1 - index)
    return displacement


def interpolate(coefficients: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The values of a volume at continuous voxel positions within it, by cubic B-splines.

    Instead of the 64 neighbours of a position, it reads 8 trilinear interpolations between them, with places and weights that
    give the same result [Sigg and Hadwiger, GPU Gems 2, chapter 20].

    Parameters
    ----------
    coefficients
        From `spline_coefficients`, ``(z, y, x)``.
    x, y, z
        Positions in voxels, all of the same shape ``(k, m, n)``, float32.

    Returns
    -------
    Tensor
        Shape ``(k, m, n)``, float32.
    """
    weights, places = [], []
    for position, count in zip((x, y, z), reversed(coefficients.shape), strict=True):
        below = position.floor()
        offset = position - below
        second, fourth = (4 - 3 * offset**2 * (2 - offset)) / 6, offset**3 / 6
        last_two = (1 + offset * (3 + offset * (3 - 2 * offset))) / 6
        first_two = 1 - last_two
        weights.append((first_two, last_two))
        # Between the first two and between the last two neighbours, from -1 to 1 across the volume.
        between = below - 1 + second / first_two, below + 1 + fourth / last_two
        places.append(tuple(2 / (count - 1) * place - 1 for place in between))
    # One volume per plane of positions, because the CPU processes several volumes in parallel.
    volumes = coefficients.expand(len(x), 1, *coefficients.shape)
    result = torch.zeros_like(x)
    for i, j, k in itertools.product((0, 1), repeat=3):
        place = torch.stack([places[0][i], places[1][j], places[2][k]], dim=-1)[:, None]
        values = functional.grid_sample(volumes, place, padding_mode="reflection", align_corners=True)[:, 0, 0]
        result += weights[0][i] * weights[1][j] * weights[2][k] * values
    return result


def warp_volume(moving: Tensor, field: RandomField, spacing: tuple[float, float, float]) -> Tensor:
    """The moving volume under a field, ``I_M(x + u(x))``, by cubic B-splines; border values continue outside.

    Parameters
    ----------
    moving
        Shape ``(z, y, x)``, on the device of `field`.
    field
        The field ``u``.
    spacing
        Of the voxels along x, y, z, in mm.

    Returns
    -------
    Tensor
        Shape ``(z, y, x)``, float32.
    """
    coefficients = spline_coefficients(moving)
    warped = torch.empty(moving.shape, device=moving.device)
    _, rows, columns = (slice(0, count) for count in moving.shape)
    for planes in slabs(moving.shape):
        positions = displacement_in_voxels(field, moving.shape[::-1], spacing, (planes, rows, columns))
        for axis, part in enumerate((columns, rows, planes)):
            index = torch.arange(part.start, part.stop, device=moving.device)
            positions[axis] += index.view([-1 if axis == other else 1 for other in (2, 1, 0)])
        warped[planes] = interpolate(coefficients, *positions)
    return warped
