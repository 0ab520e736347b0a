"""A network of any kind made ready for whole volumes."""

from typing import Protocol

import numpy as np
import torch

from regnet.learning.inference import DenseNetwork
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.interface import Network
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.pyramid_inference import DensePyramid


class Dense(Protocol):
    """What a registration needs of a network that was made ready for whole volumes."""

    stride: int

    def lattice(self, shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], float]:
        """Where the outputs for a volume are: their number along z, y, x, and the voxel index of the first one on each axis."""

    def predict(
        self, fixed: np.ndarray, moving: np.ndarray, *, spacing: float = 1.0, mask: np.ndarray | None = None
    ) -> np.ndarray:
        """Displacements in voxels on the lattice, ``(3, z, y, x)``, components x, y, z first, as wanted in a mask."""


def dense(
    network: Network, *, window: tuple[float, float], settings: InferenceSettings, device: torch.device | str = "cpu"
) -> Dense:
    """Make a network ready for whole volumes; arguments as those of `DenseNetwork`."""
    kind = DensePyramid if isinstance(network, RegNetPyramid) else DenseNetwork
    return kind(network, window=window, settings=settings, device=device)
