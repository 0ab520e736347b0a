"""Procedural texture pairs, on which a network learns to match before it sees anatomy. Only torch; units are voxels."""

import torch
from torch import Tensor
from torch.nn import functional


def smooth(volume: Tensor, sigma: float) -> Tensor:
    """Smooth ``(n, c, z, y, x)`` with a Gaussian of standard deviation `sigma` voxels, border values continued."""
    radius = max(1, round(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=volume.device) / sigma) ** 2)
    taps /= taps.sum()
    channels = volume.shape[1]
    for axis in range(3):
        shape, padding = [1, 1, 1], [0] * 6
        shape[axis] = 2 * radius + 1
        padding[4 - 2 * axis] = padding[5 - 2 * axis] = radius
        padded = functional.pad(volume, padding, mode="replicate")
        volume = functional.conv3d(padded, taps.view(1, 1, *shape).expand(channels, 1, *shape), groups=channels)
    return volume


def random_texture(size: int, sigma: float, generator: torch.Generator) -> Tensor:
    """White noise smoothed with `sigma` voxels, shape ``(1, 1, size, size, size)``.

    It is scaled to mean 0.7 and standard deviation 0.5, about what the normalized intensities of a chest CT have.
    """
    texture = smooth(torch.randn(1, 1, size, size, size, generator=generator, device=generator.device), sigma)
    return 0.7 + 0.5 * (texture - texture.mean()) / texture.std()


def random_field(size: int, sigma: float, maximum: float, generator: torch.Generator) -> Tensor:
    """A smooth random displacement field, shape ``(1, 3, size, size, size)``, components x, y, z in voxels.

    White noise on a grid of nodes `sigma` / 2 voxels apart is smoothed with `sigma` and interpolated; each component is
    scaled to at most `maximum` voxels in either direction.
    """
    nodes = max(4, round(2 * size / sigma))
    noise = torch.randn(1, 3, nodes, nodes, nodes, generator=generator, device=generator.device)
    field = smooth(noise, 2.0)
    field = field * (maximum / field.abs().amax(dim=(2, 3, 4), keepdim=True))
    return functional.interpolate(field, size=(size,) * 3, mode="trilinear", align_corners=True)


def warp(moving: Tensor, field: Tensor) -> Tensor:
    """The fixed image ``I_M(x + u(x))`` of a moving one ``(1, 1, z, y, x)``; trilinear, border values continued.

    `field` is ``(1, 3, z, y, x)``, components x, y, z in voxels.
    """
    size = torch.tensor(moving.shape[:1:-1], device=moving.device)
    identity = torch.eye(3, 4, device=moving.device)[None]
    grid = functional.affine_grid(identity, list(moving.shape), align_corners=True)
    grid = grid + field.permute(0, 2, 3, 4, 1) * 2 / (size - 1)
    return functional.grid_sample(moving, grid, mode="bilinear", padding_mode="border", align_corners=True)
