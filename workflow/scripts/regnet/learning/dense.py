"""A network of any kind made ready for whole volumes."""

from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

from regnet.images.boxes import bounding_box
from regnet.learning.inference import DenseNetwork
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.interface import Network
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.pyramid_inference import DensePyramid
from regnet.synthesis.samples import SamplePool, output_points


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


def predict_pairs(
    network: Network, pool: SamplePool, *, settings: InferenceSettings, device: torch.device | str = "cpu"
) -> np.ndarray:
    """Apply a network to the volumes of all pairs of a pool, and interpolate its fields at the points of the samples.

    Parameters
    ----------
    network
        A trained network.
    pool
        The samples.
    settings
        How the network is applied.
    device
        Where to compute.

    Returns
    -------
    numpy.ndarray
        Displacements in voxels along the axes x, y, z of the voxel grid, shape ``(n, k, k, k, 3)`` as in `Samples`, float32.
    """
    ready = dense(network, window=pool.window, settings=settings, device=device)
    predicted = np.empty(pool.displacements.shape, np.float32)
    for number, (fixed, moving) in enumerate(zip(pool.fixed, pool.moving, strict=True)):
        chosen = pool.pair == number
        points = output_points(pool.centres[chosen], pool.block)
        volumes = [pool.volumes[volume] for volume in (fixed, moving)]
        wanted = np.zeros(volumes[0].shape, bool)
        wanted[tuple(pool.centres[chosen].T[::-1])] = True
        # What lies farther away changes nothing.
        box = bounding_box(wanted, network.reach + pool.block)
        field = ready.predict(*(volume[box] for volume in volumes))
        _, first = ready.lattice(field.shape[1:])
        nodes = (points - [along.start for along in box[::-1]] - first) / ready.stride
        last = np.array(field.shape[:0:-1]) - 1
        places = torch.from_numpy((2 * nodes / last - 1).astype(np.float32)).view(1, -1, 1, 1, 3)
        found = functional.grid_sample(torch.from_numpy(field)[None], places, padding_mode="border", align_corners=True)
        predicted[chosen] = found[0, :, :, 0, 0].T.reshape(points.shape).numpy()
    return predicted
