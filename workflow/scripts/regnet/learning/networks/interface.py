"""What training, inference and weight files need to know of a network."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from regnet.learning.optimizers import Optimization


class Network(nn.Module, ABC):
    """A network that predicts the displacements between two images, in voxels, at every second voxel.

    Attributes
    ----------
    variant
        Its name in configs and weight files.
    reach
        Voxels along each axis, to either side of a point, on which the displacement there depends, beside the displacement
        itself for a network that warps.
    first_output
        Position of the first output for a volume on each axis, in voxels of the volume.
    any_spacing
        Whether one set of weights serves images of any spacing; otherwise that at which it was trained.
    memory_format
        Layout of its weights and images in which it is fastest.
    optimization
        How an optimizer treats it.
    """

    variant: str
    reach: int
    first_output: float
    any_spacing: bool
    memory_format: torch.memory_format
    optimization: Optimization

    @abstractmethod
    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor | list[Tensor]:
        """Predict displacements from normalized intensities ``(n, 1, z, y, x)``; several fields from coarse to fine."""

    @abstractmethod
    def inner_kernels(self) -> Iterator[nn.Parameter]:
        """The kernels of all convolutions between feature maps: not those on images, nor those whose outputs are DVFs."""


def parameter_count(network: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
