"""The feature pyramid applied to whole volumes: coarse levels at once, the fine ones in parts. Only torch and numpy."""

import functools
import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from regnet.errors import InputError
from regnet.images.boxes import Box, bounding_box
from regnet.learning.devices import has_fast_bfloat16, require_correct_bfloat16
from regnet.learning.inference import BFLOAT16_LIMIT_MM, MIRRORINGS, ONE_SHOT, PROGRAM_GIB, SPOT_SHARE, too_little_memory
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.pyramid import LEVELS, RADII, SIDE_STEP, WIDTHS, Coarser, RegNetPyramid, upsampled, upsampled_maps
from regnet.learning.tiles import MASK_MARGIN
from regnet.synthesis.samples import OUTPUT_STRIDE, normalize

log = logging.getLogger(__name__)

HALO = len(WIDTHS[0]) + 1 + max(RADII[:-1])
"""Nodes around a part of a level on which its outputs depend: one for each convolution, and the reach of the correlation."""

FEATURE_HALO = 3
"""The same for the features of the two finest levels, given the images."""

SPOTS, SPOT_SIDE = 4, 49
"""`auto` tries bfloat16 on this many parts of the lungs, with this many voxels along each axis."""

VOXEL_BYTES, NODE_BYTES = 14, 900
"""Memory that a prediction takes for each voxel beside the images, and for each node of the finest level at a time."""

ALL_MAPS = (slice(None), slice(None))
"""Index of the first two axes of a tensor: the pairs of a batch, and the feature maps."""

FEWEST_PLANES = 4
"""Of the finest level, at a time: with fewer, most of the work would go into the halo."""


class DensePyramid:
    """A feature pyramid made ready for whole volumes.

    Parameters
    ----------
    network
        A trained network.
    window
        Lowest and highest HU that the network sees.
    settings
        ``mirrors`` (one of `regnet.learning.inference.MIRRORINGS`), ``precision`` and ``max_memory_gib`` are used. Memory
        bounds the parts in which the finest level is computed. With the precision ``auto``, both are tried on a few parts of
        each pair, and bfloat16 is taken where it changes no displacement by more than
        `regnet.learning.inference.SPOT_SHARE` of `regnet.learning.inference.BFLOAT16_LIMIT_MM`.
    device
        Where to compute.
    planes
        Planes of the finest level that are computed at a time; None for as many as the memory holds.

    Raises
    ------
    ConfigError
        If bfloat16 is asked for where cuDNN computes it wrongly.
    """

    stride = OUTPUT_STRIDE

    def __init__(
        self,
        network: RegNetPyramid,
        *,
        window: tuple[float, float],
        settings: InferenceSettings = ONE_SHOT,
        device: torch.device | str = "cpu",
        planes: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        require_correct_bfloat16(settings.precision, self.device)
        self.network = network.eval().to(self.device)
        self.window = window
        self.settings = settings
        self.planes = planes

    @staticmethod
    def lattice(shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], float]:
        """Where the outputs for a volume are: their number along z, y, x, and the voxel index of the first one on each axis."""
        z, y, x = ((side - 1) // OUTPUT_STRIDE + 1 for side in shape)
        return (z, y, x), RegNetPyramid.first_output

    def predict(
        self, fixed: np.ndarray, moving: np.ndarray, *, spacing: float = 1.0, mask: np.ndarray | None = None
    ) -> np.ndarray:
        """Apply the network to a pair of volumes.

        Parameters
        ----------
        fixed, moving
            HU, the same shape ``(z, y, x)``, isotropic.
        spacing
            Of the voxels, in mm, for the comparison with `regnet.learning.inference.BFLOAT16_LIMIT_MM`.
        mask
            Not 0 where displacements are wanted, the same shape. The finest level is computed in boxes around it only;
            elsewhere the field is that of the coarser level. None for the whole volume.

        Returns
        -------
        numpy.ndarray
            Displacements in voxels, components along the axes x, y, z of the voxel grid, at every second voxel from the first
            (`lattice`): shape ``(3, *counts)``, float32.

        Raises
        ------
        InputError
            If the mask is empty.
        ConfigError
            If not even a few planes fit into the memory.
        ValueError
            If the shapes differ.
        """
        for name, volume in (("moving", moving), ("mask", mask)):
            if volume is not None and volume.shape != fixed.shape:
                raise ValueError(f"{name}: shape {volume.shape}, expected that of fixed, {fixed.shape}")
        wanted = np.ones(fixed.shape, bool) if mask is None else mask != 0
        around = bounding_box(wanted)
        if not around:
            raise InputError("the mask of the fixed image is empty, expected voxels that are not 0")
        padding = [(0, SIDE_STEP * max(1, -(-(side - 1) // SIDE_STEP)) + 1 - side) for side in fixed.shape]
        planes = self.planes or self._planes(wanted, 2 * (fixed.nbytes + moving.nbytes))
        padded_fixed, padded_moving = (np.pad(volume, padding, mode="edge") for volume in (fixed, moving))
        boxes = list(_boxes(wanted, planes))
        field = torch.zeros(())
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            bfloat16 = self._uses_bfloat16(padded_fixed, padded_moving, around, spacing)
            for axes in MIRRORINGS[self.settings.mirrors]:
                mirrored = self._mirrored(padded_fixed, padded_moving, boxes, axes, bfloat16)
                field = field + mirrored / self.settings.mirrors
        counts, _ = self.lattice(fixed.shape)
        return field[0][:, *map(slice, counts)].numpy()

    def _mirrored(
        self, fixed: np.ndarray, moving: np.ndarray, boxes: list[Box], axes: tuple[int, ...], bfloat16: bool
    ) -> Tensor:
        """The field of a pair that is mirrored along some of the axes x = 0, y = 1, z = 2, mirrored back; on the CPU."""
        dims = tuple(2 - axis for axis in axes)
        # Sides of 8 k + 1 voxels: mirrored nodes lie on nodes.
        counts = [(side - 1) // OUTPUT_STRIDE + 1 for side in fixed.shape]
        turned = [
            tuple(
                slice(count - extent.stop, count - extent.start) if dim in dims else extent
                for dim, (extent, count) in enumerate(zip(box, counts, strict=True))
            )
            for box in boxes
        ]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            field = self._field(np.flip(fixed, dims), np.flip(moving, dims), turned).flip([2 + dim for dim in dims])
        field[:, list(axes)] *= -1
        return field

    def _field(self, fixed: np.ndarray, moving: np.ndarray, boxes: list[Box]) -> Tensor:
        """The displacements at the nodes of the finest level, from boxes of them; sides of ``8 k + 1`` voxels."""
        network, coarsest = self.network, LEVELS - 1
        of_fixed, of_moving = (self._coarse_features(volume) for volume in (fixed, moving))
        projected = network.project(coarsest, of_moving.pop())
        coarser = network.refine(coarsest, of_fixed.pop(), projected, None)
        for level in reversed(range(1, coarsest)):
            features, projected = of_fixed.pop(), network.project(level, of_moving.pop())
            coarser = self._refined(level, _slabs(features.shape[2:]), features.__getitem__, projected.__getitem__, coarser)
            del features, projected
        finest = functools.partial(self._features, fixed, 0)
        return self._refined(
            0, boxes, lambda box: finest(box[2:]), lambda box: network.project(0, self._features(moving, 0, box[2:])), coarser
        )[0].cpu()

    def _refined(
        self,
        level: int,
        boxes: Sequence[Box],
        fixed_at: Callable[[tuple], Tensor],
        projected_at: Callable[[tuple], Tensor],
        coarser: Coarser,
    ) -> Coarser:
        """What a level finds, box by box; outside them what the coarser one found.

        Parameters
        ----------
        level
            0 is the finest.
        boxes
            Parts of the level's nodes.
        fixed_at, projected_at
            The features of the fixed image, and what is compared of the moving one, for a part ``(n, c, z, y, x)`` of all.
        coarser
            What the coarser level found.
        """
        counts = [2 * count - 1 for count in coarser[0].shape[2:]]
        whole: list[Tensor] = []
        for box in boxes:
            outer, above = zip(*(_with_halo(extent, count) for extent, count in zip(box, counts, strict=True)), strict=True)
            part = upsampled(
                (coarser[0][(*ALL_MAPS, *above)], coarser[1][(*ALL_MAPS, *above)]),
                [extent.stop - extent.start for extent in outer],
            )
            reached = _reached(part[0] / 2 ** (level + 1), outer, counts)
            first = tuple(extent.start - start.start for extent, start in zip(outer, reached, strict=True))
            found = self.network.refine(level, fixed_at((*ALL_MAPS, *outer)), projected_at((*ALL_MAPS, *reached)), part, first)
            if not whole:
                # The finest level hands nothing down.
                whole = [upsampled_maps(maps, counts) for maps in (coarser if level > 0 else coarser[:1])]
            inner = tuple(slice(own.start - out.start, own.stop - out.start) for own, out in zip(box, outer, strict=True))
            for result, maps in zip(whole, found, strict=False):
                result[(*ALL_MAPS, *box)] = maps[(*ALL_MAPS, *inner)].float()
        return whole[0], whole[-1]

    def _coarse_features(self, volume: np.ndarray) -> list[Tensor]:
        """The features of a volume at all levels but the finest, which would not fit the memory; fine to coarse."""
        counts = [(side - 1) // 4 + 1 for side in volume.shape]
        features = torch.cat([self._features(volume, 1, slab) for slab in _slabs(counts)], dim=2)
        levels = [features]
        for block in self.network.encoder[2:]:
            levels.append(block(levels[-1]))
        return levels

    def _features(self, volume: np.ndarray, level: int, box: Box) -> Tensor:
        """The features of a box of nodes, of the finest level, 0, or the next one, ``(1, c, *box)``."""
        step = 2 ** (level + 1)
        extents = [
            (max(0, own.start - FEATURE_HALO), min((side - 1) // step, own.stop - 1 + FEATURE_HALO))
            for own, side in zip(box, volume.shape, strict=True)
        ]
        part = volume[tuple(slice(step * start, step * last + 1) for start, last in extents)]
        maps = normalize(torch.from_numpy(np.array(part, np.float32)).to(self.device), self.window)[None, None]
        maps = maps.contiguous(memory_format=torch.channels_last_3d)
        for block in self.network.encoder[: level + 1]:
            maps = block(maps)
        inner = tuple(slice(own.start - start, own.stop - start) for own, (start, _) in zip(box, extents, strict=True))
        return maps[(*ALL_MAPS, *inner)]

    def _planes(self, wanted: np.ndarray, image_bytes: int) -> int:
        """How many planes of the finest level fit into the memory at a time."""
        room = self.settings.max_memory_gib * 2**30 - VOXEL_BYTES * wanted.size
        if self.device.type == "cpu":
            room -= PROGRAM_GIB * 2**30 + image_bytes
        depth, rows, columns = (
            min((extent.stop - extent.start) // 2 + 2 * HALO, side // 2 + 1)
            for extent, side in zip(bounding_box(wanted), wanted.shape, strict=True)
        )
        planes = int(room / (NODE_BYTES * rows * columns)) - 2 * HALO
        if planes < min(FEWEST_PLANES, depth):
            needed = self.settings.max_memory_gib + NODE_BYTES * rows * columns * (FEWEST_PLANES - planes) / 2**30
            raise too_little_memory(self.settings.max_memory_gib, needed)
        return planes

    def _uses_bfloat16(self, fixed: np.ndarray, moving: np.ndarray, around: Box, spacing: float) -> bool:
        """Whether to compute in bfloat16; where that is open, by the changes it makes to parts of the pair."""
        if self.settings.precision != "auto":
            return self.settings.precision == "bfloat16"
        if not has_fast_bfloat16(self.device):
            return False
        changes = []
        for share in (np.arange(SPOTS) + 0.5) / SPOTS:
            starts = [
                max(0, min(round(extent.start + share * (extent.stop - extent.start - SPOT_SIDE)), side - SPOT_SIDE))
                for extent, side in zip(around, fixed.shape, strict=True)
            ]
            spot = tuple(slice(start, start + SPOT_SIDE) for start in starts)
            everything = [tuple(slice(0, (count - 1) // 2 + 1) for count in fixed[spot].shape)]
            exact, rounded = (self._mirrored(fixed[spot], moving[spot], everything, (), precise) for precise in (False, True))
            changes.append(spacing * float((rounded - exact).norm(dim=1).max()))
        accepted = max(changes) <= SPOT_SHARE * BFLOAT16_LIMIT_MM
        precision = "bfloat16" if accepted else "float32"
        log.info("%s: bfloat16 changes displacements by at most %.3f mm in %d parts", precision, max(changes), len(changes))
        return accepted


def _boxes(wanted: np.ndarray, planes: int) -> Iterator[Box]:
    """Boxes of nodes of the finest level, each a few planes thick, that hold all within `MASK_MARGIN` of the wanted voxels."""
    depth = (wanted.shape[0] - 1) // OUTPUT_STRIDE + 1
    number = -(-depth // planes)
    for part in range(number):
        slab = slice(part * depth // number, (part + 1) * depth // number)
        voxels = slice(max(0, 2 * slab.start - MASK_MARGIN), 2 * slab.stop - 1 + MASK_MARGIN)
        near = bounding_box(wanted[voxels], MASK_MARGIN)
        if near:
            yield (slab, *(slice(extent.start // 2, (extent.stop - 1) // 2 + 1) for extent in near[1:]))


def _slabs(counts: Sequence[int]) -> list[Box]:
    """All nodes of a coarser level, at most as many planes at a time as the finest level has at least."""
    depth, *others = counts
    step = 8 * FEWEST_PLANES
    rows = [slice(0, count) for count in others]
    return [(slice(start, min(start + step, depth)), *rows) for start in range(0, depth, step)]


def _with_halo(extent: slice, count: int) -> tuple[slice, slice]:
    """An extent with `HALO` nodes around it, from an even node to an even one, and the same nodes of the coarser level."""
    start = max(0, extent.start - HALO) // 2
    last = -(-min(count - 1, extent.stop - 1 + HALO) // 2)
    return slice(2 * start, 2 * last + 1), slice(start, last + 1)


def _reached(displacement: Tensor, box: Box, counts: Sequence[int]) -> Box:
    """The nodes between which the moving features lie that displacements, in nodes, ``(1, 3, *box)``, lead to."""
    reached = []
    for axis, (extent, count) in enumerate(zip(box, counts, strict=True)):
        shape = [-1 if other == axis else 1 for other in range(3)]
        places = displacement[0, 2 - axis] + torch.arange(extent.start, extent.stop, device=displacement.device).view(shape)
        lowest, highest = (float(place) for place in torch.aminmax(places))
        start = int(np.clip(np.floor(lowest), 0, count - 2))
        reached.append(slice(start, int(np.clip(np.ceil(highest), start + 1, count - 1)) + 1))
    return tuple(reached)
