"""Random displacement fields and cubic B-spline warps as tensors, on the CPU or on a GPU. Only torch and numpy.

There is no physical space here, only the voxel grid: positions are in mm or in voxels along its axes x, y, z, from its first
voxel, and displacements have their components along these axes. `regnet.synthesis` gives them a `Grid`.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regnet.errors import RegNetError

log = logging.getLogger(__name__)

ZERO_POINTS = 2
"""How many of the random points carry a zero vector [author's implementation, METHOD.md]."""

ATTEMPTS = 20
"""How often a field that folds is drawn again before giving up."""

CHECKED_PER_SIGMA = 10
"""Density of the lattice on which the Jacobian determinant of a new field is looked at."""

SMALLEST_DETERMINANT = 0.1
"""A field whose Jacobian determinant falls below this on the lattice counts as folded: between the points of the lattice it may
be lower, by some hundredths. The chapter's fields stay above 0.3."""

SLAB = 2**22
"""About how many voxels are worked on at once, which bounds the memory beyond inputs and results."""


@dataclass(frozen=True)
class RandomField:
    """A random displacement field: points with vectors, smoothed with a Gaussian and scaled back (section 2.2.2 of the chapter).

    A Gaussian is separable, so the field on a lattice is a product of two small matrices. It is exact anywhere.

    Attributes
    ----------
    points
        Shape ``(p, 3)``: where the random vectors are, x, y, z in mm.
    vectors
        Shape ``(p, 3)``: the random vectors before smoothing, in mm. All tensors are float64 and on the same device.
    sigma
        Standard deviation of the Gaussian, in mm.
    scale
        Shape ``(3, 2)``: for each component the factors on its positive and on its negative part after smoothing.
    """

    points: Tensor
    vectors: Tensor
    sigma: float
    scale: Tensor

    def on_lattice(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Displacements in mm at all points of a lattice with the given positions (mm) on each axis: ``(z, y, x, 3)``, float32."""
        return self._scaled(self._smoothed(*self._weights(x, y, z)))

    def at(self, positions: Tensor) -> Tensor:
        """Displacements in mm at positions ``(n, 3)``, x, y, z in mm; float64."""
        smoothed = torch.exp(-0.5 * (torch.cdist(positions.double(), self.points) / self.sigma) ** 2) @ self.vectors
        return self._scaled(smoothed)

    def determinant(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """Jacobian determinant of ``x + u(x)`` at all points of a lattice as in `on_lattice`: ``(z, y, x)``, float32."""
        weights = self._weights(x, y, z)
        smoothed = self._smoothed(*weights)
        columns = []
        for axis, positions in enumerate((x, y, z)):
            slope = (self.points[:, axis] - positions[:, None]) / self.sigma**2
            derived = [weight * slope.float() if axis == other else weight for other, weight in enumerate(weights)]
            columns.append(self._scaled(self._smoothed(*derived), sign_of=smoothed))
            columns[axis][..., axis] += 1
        along_x, along_y, along_z = columns
        return (along_x * torch.linalg.cross(along_y, along_z)).sum(dim=-1)

    def _weights(self, *positions: Tensor) -> list[Tensor]:
        """The Gaussians of all points at positions on the axes x, y, z: ``(n, p)`` each."""
        return [
            torch.exp(-0.5 * ((along[:, None] - self.points[:, axis]) / self.sigma) ** 2).float()
            for axis, along in enumerate(positions)
        ]

    def _smoothed(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        rows = (z[:, None] * y).flatten(0, 1)
        columns = (x.T[:, :, None] * self.vectors.float()[:, None, :]).flatten(1, 2)
        return (rows @ columns).view(len(z), len(y), len(x), 3)

    def _scaled(self, smoothed: Tensor, sign_of: Tensor | None = None) -> Tensor:
        positive, negative = self.scale.to(smoothed.dtype).T
        return smoothed * torch.where((smoothed if sign_of is None else sign_of) > 0, positive, negative)


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
        Components are drawn from ``[-theta, theta]`` mm, and reach the same extremes again after smoothing.
    border
        Points keep this distance from the border of the image, in mm; at most a quarter of its extent, so that any image
        has room for them.
    rng
        Source of the random numbers.
    device
        Where the field is computed.

    Raises
    ------
    RegNetError
        If no field without folding is found, because theta is too large for sigma.
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
        after = _extremes(field, axes)
        field = replace(field, scale=torch.where(after > 1e-6 * theta, before / after, 0))
        smallest = float(field.determinant(*lattice).min())
        log.info("sigma %g mm: smallest Jacobian determinant %.2f", sigma, smallest)
        if smallest >= SMALLEST_DETERMINANT:
            return field
        log.info("attempt %d folds, drawing again", attempt + 1)
    raise RegNetError(f"theta = {theta} mm with sigma = {sigma} mm: {ATTEMPTS} fields folded, expected a smaller theta")


def voxel_axes(
    size: tuple[int, int, int], spacing: tuple[float, float, float], device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the voxels of an image on its axes x, y, z, in mm from the first one, float64."""
    return tuple(torch.arange(count, dtype=torch.float64, device=device) * step for count, step in zip(size, spacing, strict=True))


def slabs(shape: tuple[int, int, int]) -> Iterator[slice]:
    """Consecutive parts of the first axis of a volume ``(z, y, x)``, of about `SLAB` voxels each."""
    thickness = max(1, SLAB // (shape[1] * shape[2]))
    return (slice(first, min(first + thickness, shape[0])) for first in range(0, shape[0], thickness))


def _extremes(field: RandomField, axes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """How far each component of a field reaches on a lattice: ``(3, 2)``, largest value and negative of the smallest, in mm."""
    x, y, z = axes
    reached = []
    for part in slabs((len(z), len(y), len(x))):
        slab = field.on_lattice(x, y, z[part]).flatten(0, 2)
        reached.append(torch.stack([slab.amax(dim=0), -slab.amin(dim=0)], dim=1))
    return torch.stack(reached).amax(dim=0).double()


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
        # Contracts the first axis and appends the result as the last one: after three turns they are in order again.
        coefficients = torch.tensordot(coefficients, inverse, dims=([0], [1]))
    return coefficients


def interpolate(coefficients: Tensor, positions: Tensor) -> Tensor:
    """A volume at continuous voxel positions, by cubic B-splines; border values continue outside.

    The 64 neighbours of a position are read as 8 trilinear interpolations between them, whose places and weights are such that
    the result is the same [Sigg and Hadwiger, GPU Gems 2, chapter 20].

    Parameters
    ----------
    coefficients
        Of `spline_coefficients`, ``(z, y, x)``.
    positions
        Shape ``(k, m, n, 3)``, x, y, z in voxels.

    Returns
    -------
    Tensor
        Shape ``(k, m, n)``, float32.
    """
    last = torch.tensor(coefficients.shape[::-1], device=positions.device) - 1
    positions = positions.float().clamp_min(0).minimum(last)
    below = positions.floor()
    offset = positions - below
    last_two = (1 + offset * (3 + offset * (3 - 2 * offset))) / 6
    first_two = 1 - last_two
    # Between which neighbours to read, as positions from -1 to 1 across the volume.
    second = (4 - 3 * offset**2 * (2 - offset)) / 6
    fourth = offset**3 / 6
    places = [2 * (below + step) / last - 1 for step in (second / first_two - 1, fourth / last_two + 1)]
    weights = [first_two, last_two]
    # One volume per plane of positions, as the CPU works on several of them at a time.
    volumes = coefficients.expand(len(positions), 1, *coefficients.shape)
    result = torch.zeros_like(below[..., 0])
    for x, y, z in itertools.product((0, 1), repeat=3):
        place = torch.stack([places[x][..., 0], places[y][..., 1], places[z][..., 2]], dim=-1)
        values = functional.grid_sample(volumes, place[:, None], padding_mode="reflection", align_corners=True)
        result += weights[x][..., 0] * weights[y][..., 1] * weights[z][..., 2] * values[:, 0, 0]
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
    x, y, z = voxel_axes(moving.shape[::-1], spacing, moving.device)
    steps = torch.tensor(spacing, device=moving.device)
    warped = torch.empty(moving.shape, device=moving.device)
    for part in slabs(moving.shape):
        positions = field.on_lattice(x, y, z[part])
        for axis, along in enumerate((x, y[:, None], z[part, None, None])):
            positions[..., axis] += along
        warped[part] = interpolate(coefficients, positions / steps)
    return warped
