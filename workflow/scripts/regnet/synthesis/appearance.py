"""What two scans of a patient do not share: noise, sharpness, slice thickness, density, local changes. Only torch.

A synthetic pair made from one scan shares all of it, and a network can match noise. Each of the two images of a pair is changed
on its own. Images are in HU, lengths in voxels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

AIR_HU = -1000.0
"""Density is relative to air: 0 there."""

LUNG_EDGE_HU, LUNG_EDGE_WIDTH_HU = -500.0, 80.0
"""Voxels well below the first are lung, whose density changes; the second is the width of the transition."""

NOISE_HU = (4.0, 60.0)
"""Smallest and largest standard deviation of the noise, drawn log-uniformly, at level 1."""

LONGEST_CORRELATION = 0.9
"""Largest standard deviation of the Gaussian that correlates noise; below `SHORTEST_BLUR` it stays white."""

SOFTER = 0.8
"""Standard deviation of the Gaussian of the softer copy with which the source of a pair is blended."""

LOCAL_CHANGE_VOXELS = 65**3
"""A volume has local changes once for each time that it holds this many voxels."""

SHORTEST_BLUR = 0.15
"""A Gaussian with a smaller standard deviation is left out."""


@dataclass(frozen=True)
class Appearance:
    """How much each image of a pair is changed on its own: levels from 0, nothing, to 1, as much as between two scans.

    Attributes
    ----------
    density
        The lung's density times exp(+-0.15 and a smooth field of up to 0.2).
    local_changes
        Per `LOCAL_CHANGE_VOXELS`, in half of the cases one to four soft ellipsoids of 3 to 13 voxels radius: brighter or
        darker, or other tissue.
    blur
        In half of the images a Gaussian of up to 0.7 voxels; in a third one along one axis, of up to 1.2, as thicker slices.
    noise
        Gaussian noise of 4 to 60 HU, with a correlation length of up to 0.9 voxels.
    """

    density: float = 1.0
    local_changes: float = 1.0
    blur: float = 1.0
    noise: float = 1.0

    @classmethod
    def of(cls, levels: Mapping[str, float] | None) -> "Appearance | None":
        """The levels of a config; None if nothing is to be changed, not even by the smallest noise."""
        return cls(**levels) if levels and any(levels.values()) else None


def change(image: Tensor, appearance: Appearance, generator: torch.Generator) -> Tensor:
    """Change an image ``(1, 1, z, y, x)``, HU, as two scans of a patient differ; float32, the same shape.

    Parameters
    ----------
    image
        The image.
    appearance
        How much.
    generator
        Source of the random numbers, on the CPU.
    """
    shape = image.shape[2:]
    if appearance.density:
        waves = smooth_field(shape, uniform(generator, 12, 40), 1, generator) * uniform(generator, 0, 0.2)
        factor = torch.exp(appearance.density * (uniform(generator, -0.15, 0.15) + waves))
        lung = torch.sigmoid((LUNG_EDGE_HU - image) / LUNG_EDGE_WIDTH_HU)
        image = image + lung * (image - AIR_HU) * (factor - 1)
    image = image.clone()
    for _ in range(max(1, round(image.numel() / LOCAL_CHANGE_VOXELS))):
        if uniform(generator, 0, 1) < 0.5 * appearance.local_changes:
            for _ in range(1 + int(uniform(generator, 0, 4))):
                _change_locally(image, generator)
    widths = [uniform(generator, 0, 0.7) * appearance.blur] * 3 if uniform(generator, 0, 1) < 0.5 else [0.0] * 3
    if uniform(generator, 0, 1) < 0.35 * appearance.blur:
        widths[int(uniform(generator, 0, 3))] = uniform(generator, 0.4, 1.2)
    image = blurred(image, widths)
    low, high = NOISE_HU
    sd = math.exp(uniform(generator, math.log(low), math.log(low + (high - low) * appearance.noise)))
    return image + sd * _noise(image.shape, uniform(generator, 0, LONGEST_CORRELATION), generator)


def source_of_pair(image: Tensor, generator: torch.Generator) -> Tensor:
    """What both images of a pair come from: an image ``(1, 1, z, y, x)`` softer by a random share, on another grid of voxels.

    The image is moved by up to half a voxel along each axis, trilinear, because otherwise only the fixed image of a pair would
    be resampled.
    """
    source = torch.lerp(image, blurred(image, [SOFTER] * 3), uniform(generator, 0, 1))
    for axis in (2, 3, 4):
        shift = uniform(generator, -0.5, 0.5)
        neighbours = torch.arange(source.shape[axis]) + (1 if shift > 0 else -1)
        source = torch.lerp(source, source.index_select(axis, neighbours.clamp(0, source.shape[axis] - 1)), abs(shift))
    return source


def _change_locally(image: Tensor, generator: torch.Generator) -> None:
    """Change one soft ellipsoid of an image: brighter or darker tissue, or a nodule or hole in its place."""
    centre = [uniform(generator, 0, side - 1) for side in image.shape[2:]]
    radii = torch.empty(3).uniform_(3, 13, generator=generator).tolist()
    # Three radii away nothing is left of it.
    box = tuple(
        slice(max(0, math.floor(middle - 3 * radius)), min(side, math.ceil(middle + 3 * radius) + 1))
        for middle, radius, side in zip(centre, radii, image.shape[2:], strict=True)
    )
    squares = [
        ((torch.arange(extent.start, extent.stop) - middle) / radius) ** 2
        for extent, middle, radius in zip(box, centre, radii, strict=True)
    ]
    distance = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    inside = torch.sigmoid(3 * (1 - distance))
    part = image[(slice(None), slice(None), *box)]
    kind = uniform(generator, 0, 1)
    if kind < 0.5:
        part += inside * uniform(generator, -200, 250)
    else:
        other = uniform(generator, -150, 60) if kind < 0.75 else uniform(generator, -980, -850)
        part.lerp_(torch.full_like(part, other), inside.expand_as(part))


def _noise(shape: torch.Size, correlation: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of standard deviation 1 with a correlation length."""
    noise = torch.randn(shape, generator=generator)
    if correlation <= 0.2:
        return noise
    noise = blurred(noise, [correlation] * 3)
    return noise / noise.std()


def blurred(image: Tensor, widths: list[float]) -> Tensor:
    """An image ``(n, c, z, y, x)`` under a Gaussian with a standard deviation for each axis z, y, x; the border continues."""
    channels = image.shape[1]
    for axis, width in enumerate(widths):
        if width < SHORTEST_BLUR:
            continue
        radius = max(1, round(3 * width))
        taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=image.device) / width) ** 2)
        taps /= taps.sum()
        shape, padding = [1, 1, 1], [0] * 6
        shape[axis] = 2 * radius + 1
        padding[4 - 2 * axis] = padding[5 - 2 * axis] = radius
        padded = functional.pad(image, padding, mode="replicate")
        image = functional.conv3d(padded, taps.view(1, 1, *shape).expand(channels, 1, *shape), groups=channels)
    return image


def smooth_field(shape: Sequence[int], sigma: float, channels: int, generator: torch.Generator) -> Tensor:
    """Smooth random maps ``(1, channels, *shape)``, each with a largest magnitude of 1.

    White noise on nodes `sigma` / 2 voxels apart is smoothed with about `sigma` and interpolated.
    """
    nodes = [max(4, round(2 * side / sigma)) + 6 for side in shape]
    maps = blurred(torch.randn(1, channels, *nodes, generator=generator), [1.4] * 3)[..., 3:-3, 3:-3, 3:-3]
    maps = functional.interpolate(maps, size=tuple(shape), mode="trilinear", align_corners=True)
    return maps / maps.abs().amax(dim=(2, 3, 4), keepdim=True)


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """One number from ``[low, high)``."""
    return float(torch.empty(1).uniform_(low, high, generator=generator))
