"""Where the outputs of a dense pass lie, and the tiles in which they are computed."""

import functools
import operator
from itertools import pairwise, product

import numpy as np

from regnet.images.boxes import Box, bounding_box
from regnet.learning.networks.regnet import ORIGINAL_MARGIN
from regnet.synthesis.samples import OUTPUT_STRIDE, window_size

MASK_MARGIN = 2
"""Outputs are computed up to this distance from the mask, in voxels along each axis, so that the field between the outputs is
the network's own right up to the border of the mask: a corner of a voxel lies up to 2.5 voxels from the outputs around it."""

TILE_SIDES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
"""Sizes of tiles to choose from: points of every second voxel per axis."""

ORIGINAL_NS, LOW_NS, JOINT_NS = 800.0, 1000.0, 4500.0
"""Time that the layers at original and at low resolution and the joint ones take per voxel of their own grid, on a CPU core."""

FEATURE_BYTES_PER_VOXEL = {"float32": 400, "bfloat16": 240}
"""Memory of the feature maps at their largest, per voxel that the layers at original resolution see. Measured: float32 299, and
373 for the variant of that resolution only; in bfloat16, where some layers stay in float32, 206."""


def output_lattice(shape: tuple[int, int, int], stride: int = OUTPUT_STRIDE) -> tuple[tuple[int, int, int], float]:
    """Where the outputs for a volume are: their number along z, y, x, and the voxel index of the first one on each axis.

    With a stride of 2, neighbours are two voxels apart, from index 0.5 to the last voxel or half a voxel beyond it. With a
    stride of 1, they lie between all voxels, and half a voxel outside the first and the last: the odd nodes of this lattice are
    those of stride 2.
    """
    z, y, x = (side + 1 if stride == 1 else -(-side // OUTPUT_STRIDE) for side in shape)
    return (z, y, x), -0.5 if stride == 1 else 0.5


def near_mask(mask: np.ndarray, stride: int = OUTPUT_STRIDE) -> np.ndarray:
    """Which outputs are wanted for a mask ``(z, y, x)``: those of `output_lattice` within `MASK_MARGIN` voxels of it."""
    counts, first = output_lattice(mask.shape, stride)
    near = np.asarray(mask) != 0
    for axis, count in enumerate(counts):
        widths = [(MASK_MARGIN + 1, MASK_MARGIN + 2) if other == axis else (0, 0) for other in range(3)]
        voxels = np.moveaxis(np.pad(near, widths), axis, 0)
        # An output lies between two voxels. Voxels count up to the margin away from these two.
        begin = int(first + 0.5)
        shifted = (voxels[begin + offset :: stride][:count] for offset in range(2 * MASK_MARGIN + 2))
        near = np.moveaxis(functools.reduce(operator.or_, shifted), 0, axis)
    return near


def tile_seconds(outputs: tuple[int, int, int], stride: int) -> float:
    """Estimate the seconds that a tile takes in bfloat16 on a CPU core, to compare tiles of different sizes.

    Three groups of layers work on regions that exceed the outputs by different margins; each takes its measured time per voxel
    of its region. With a stride of 1, the last two run eight times.

    Parameters
    ----------
    outputs
        Points of every second voxel along z, y, x.
    stride
        1 or 2.
    """
    original, low, joint = (
        np.prod([scale * count + margin for count in outputs]) for scale, margin in ((2, 21), (1, 17), (1, 3))
    )
    repeats = 8 if stride == 1 else 1
    return 1e-9 * float(ORIGINAL_NS * original + repeats * (LOW_NS * low + JOINT_NS * joint))


def tile_gib(outputs: tuple[int, int, int], precision: str) -> float:
    """Largest memory of the feature maps of a tile, in GiB; `outputs` as in `tile_seconds`."""
    voxels = float(np.prod([window_size(count) - sum(ORIGINAL_MARGIN) for count in outputs]))
    return FEATURE_BYTES_PER_VOXEL[precision] * voxels / 2**30


def tiles(wanted: np.ndarray, side: int) -> list[Box]:
    """Boxes that cover the wanted outputs without overlap, of at most `side` outputs per axis.

    The box around all wanted outputs is cut evenly, and each part is shrunk to the box around its own ones.
    """
    cuts = []
    for extent in bounding_box(wanted):
        parts = -(-(extent.stop - extent.start) // side)
        edges = np.linspace(extent.start, extent.stop, parts + 1).astype(int).tolist()
        cuts.append([slice(*ends) for ends in pairwise(edges)])
    boxes = []
    for part in product(*cuts):
        box = bounding_box(wanted[part])
        if box:
            boxes.append(tuple(slice(cut.start + own.start, cut.start + own.stop) for cut, own in zip(part, box, strict=True)))
    return boxes
