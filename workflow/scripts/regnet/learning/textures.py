"""Procedural texture pairs, on which a network learns to match before it sees anatomy. Lengths are in voxels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regnet.learning.batches import Batch
from regnet.synthesis.samples import OUTPUT_STRIDE, WINDOW_MARGIN, window_size

TEXTURES = {"texture_sigma": 1.5, "field_sigma": (30, 60), "renew_every": 10}
"""The settings of `TexturePairs` that the config does not have: standard deviation of the Gaussian that smooths a texture, and
the range from which the smoothness of a field is drawn, in voxels; batches after which one of the pairs is replaced."""


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
    """White noise smoothed with a Gaussian of `sigma` voxels, shape ``(1, 1, size, size, size)``.

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


def warp_texture(moving: Tensor, field: Tensor) -> Tensor:
    """The fixed image ``I_M(x + u(x))`` of a moving one ``(1, 1, z, y, x)``; trilinear, border values continued.

    `field` is ``(1, 3, z, y, x)``, components x, y, z in voxels.
    """
    size = torch.tensor(moving.shape[:1:-1], device=moving.device)
    identity = torch.eye(3, 4, device=moving.device)[None]
    grid = functional.affine_grid(identity, list(moving.shape), align_corners=True)
    grid = grid + field.permute(0, 2, 3, 4, 1) * 2 / (size - 1)
    return functional.grid_sample(moving, grid, mode="bilinear", padding_mode="border", align_corners=True)


class TexturePairs:
    """An endless supply of blocks from procedural texture pairs, renewed one after the other (docs/training.md).

    Parameters
    ----------
    settings
        The config's ``training.warmup``, lengths in voxels, and `TEXTURES`.
    generator
        Source of the random numbers, on the CPU.
    """

    def __init__(self, settings: Mapping[str, Any], generator: torch.Generator) -> None:
        self.settings = settings
        self.generator = generator
        self.drawn = 0
        self.origins = [torch.empty(0)] * settings["volumes"]
        self.pairs: list[Batch] = [(torch.empty(0),) * 3] * settings["volumes"]
        for number in range(settings["volumes"]):
            self._renew(number)

    def _renew(self, number: int) -> None:
        self.origins[number] = self.generator.get_state()
        size = self.settings["size"]
        moving = random_texture(size, self.settings["texture_sigma"], self.generator)
        low, high = self.settings["field_sigma"]
        sigma = float(torch.empty(1).uniform_(low, high, generator=self.generator))
        field = random_field(size, sigma, self.settings["maximum"], self.generator)
        self.pairs[number] = warp_texture(moving, field), moving, field

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator now and before each of the pairs: a few kilobytes, from which they are made again."""
        return {"generator": self.generator.get_state(), "origins": list(self.origins), "drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        for number, origin in enumerate(state["origins"]):
            self.generator.set_state(origin)
            self._renew(number)
        self.generator.set_state(state["generator"])
        self.drawn = state["drawn"]

    def batch(self) -> Batch:
        """The next windows of fixed and moving textures, and the displacements at their outputs."""
        if self.drawn and self.drawn % self.settings["renew_every"] == 0:
            self._renew(self.drawn // self.settings["renew_every"] % len(self.pairs))
        self.drawn += 1
        block = self.settings["block"]
        side = window_size(block)
        windows = []
        for _ in range(self.settings["batch"]):
            fixed, moving, field = self.pairs[int(torch.randint(len(self.pairs), (1,), generator=self.generator))]
            first = torch.randint(self.settings["size"] - side + 1, (3,), generator=self.generator).tolist()
            voxels = [slice(start, start + side) for start in first]
            # An output lies between two voxels on each axis: its displacement is the mean of the two.
            pairs = [slice(start + WINDOW_MARGIN, start + side - WINDOW_MARGIN) for start in first]
            target = functional.avg_pool3d(field[0][:, *pairs], OUTPUT_STRIDE)
            windows.append((fixed[0][:, *voxels], moving[0][:, *voxels], target))
        fixed, moving, targets = (torch.stack(tensors) for tensors in zip(*windows, strict=True))
        return fixed, moving, targets
