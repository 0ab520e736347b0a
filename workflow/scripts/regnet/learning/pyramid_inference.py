"""The feature pyramid applied to whole volumes: coarse levels at once, the finest in slabs. Only torch and numpy."""

import logging

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regnet.errors import ConfigError
from regnet.learning.devices import has_correct_bfloat16, has_fast_bfloat16
from regnet.learning.pyramid import LEVELS, RADII, SIDE_STEP, WIDTHS, Coarser, RegNetPyramid, upsampled
from regnet.synthesis.samples import normalize

log = logging.getLogger(__name__)

HALO = 2 * -(-(len(WIDTHS[0]) + 1 + RADII[0]) // 2)
"""Planes around a slab on which its outputs depend: one for each convolution, and the reach of the correlation; even, so that
slabs begin at a node of the coarser level."""

SLAB_NODES = 2**20
"""About how many nodes of the finest level are worked on at once, without the halo."""


class DensePyramid:
    """A feature pyramid made ready for whole volumes.

    Parameters
    ----------
    network
        A trained network.
    window
        Lowest and highest HU that the network sees.
    device
        Where to compute.
    precision
        ``float32``, ``bfloat16``, or ``auto`` for bfloat16 where the device has it.
    slab_nodes
        About how many nodes of the finest level are worked on at once: it bounds the memory.

    Raises
    ------
    ConfigError
        If bfloat16 is asked for where it gives wrong results.
    """

    def __init__(
        self,
        network: RegNetPyramid,
        *,
        window: tuple[float, float],
        device: torch.device | str = "cpu",
        precision: str = "auto",
        slab_nodes: int = SLAB_NODES,
    ) -> None:
        self.device = torch.device(device)
        if precision == "bfloat16" and not has_correct_bfloat16(self.device):
            raise ConfigError(f"precision: found bfloat16, which cuDNN {torch.backends.cudnn.version()} computes wrongly")
        self.network = network.eval().to(self.device)
        self.window = window
        self.bfloat16 = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(self.device))
        self.slab_nodes = slab_nodes

    def predict(self, fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        """Apply the network to a pair of volumes.

        Parameters
        ----------
        fixed, moving
            HU, the same shape ``(z, y, x)``, isotropic.

        Returns
        -------
        numpy.ndarray
            Displacements in voxels, components along the axes x, y, z of the voxel grid, at every second voxel from the first:
            shape ``(3, *counts)`` with ``side // 2 + 1`` nodes a side at most; float32.
        """
        if moving.shape != fixed.shape:
            raise ValueError(f"moving: shape {moving.shape}, expected that of fixed, {fixed.shape}")
        padding = [(0, -(side - 1) % SIDE_STEP) for side in fixed.shape]
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            features = [self.network.features(self._image(volume, padding)) for volume in (fixed, moving)]
            of_fixed, of_moving = (levels.pop() for levels in features)
            coarser = self.network.refine(LEVELS - 1, of_fixed, self.network.project(LEVELS - 1, of_moving), None)
            for level in reversed(range(1, LEVELS - 1)):
                of_fixed, of_moving = (levels.pop() for levels in features)
                projected = self.network.project(level, of_moving)
                coarser = self.network.refine(level, of_fixed, projected, upsampled(coarser, of_fixed.shape[2:]))
            of_fixed, of_moving = (levels.pop() for levels in features)
            field = self._finest(of_fixed, of_moving, coarser)
        counts = [slice((side - 1) // 2 + 1) for side in fixed.shape]
        return field[0][:, *counts].numpy()

    def _finest(self, fixed: Tensor, moving: Tensor, coarser: Coarser) -> Tensor:
        """The displacement of the finest level, some planes at a time."""
        projected = self.network.project(0, moving)
        depth, rows, columns = fixed.shape[2:]
        result = torch.empty(1, 3, depth, rows, columns)
        planes = max(2, self.slab_nodes // (rows * columns) // 2 * 2)
        for start in range(0, depth, planes):
            first, last = max(0, start - HALO), min(depth, start + planes + HALO + 1)
            last -= (last - first + 1) % 2
            last = max(last, min(depth, start + planes))
            # An odd number of planes, from an even one: every second is a plane of the coarser level.
            planes_above = slice(first // 2, (last - 1) // 2 + 1)
            size = (2 * (planes_above.stop - planes_above.start) - 1, rows, columns)
            displacement, handed = (maps[:, :, planes_above] for maps in coarser)
            part = fixed[:, :, first : first + size[0]]
            refined, _ = self.network.refine(0, part, projected, upsampled((displacement, handed), size), first)
            stop = min(depth, start + planes)
            result[:, :, start:stop] = refined[:, :, start - first : stop - first].cpu()
        return result

    def _image(self, volume: np.ndarray, padding: list[tuple[int, int]]) -> Tensor:
        """A volume as the network sees it, ``(1, 1, z, y, x)``, its border continued to sides of ``8 k + 1`` voxels."""
        image = normalize(torch.from_numpy(np.array(volume, np.float32)).to(self.device), self.window)
        widths = [width for pair in reversed(padding) for width in pair]
        return functional.pad(image[None, None], widths, mode="replicate")
