"""The network applied to whole volumes (docs/inference.md) and to samples."""

import copy
import logging
import math
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from regnet.errors import ConfigError, InputError
from regnet.images.boxes import Box
from regnet.learning.batches import Feed
from regnet.learning.devices import has_fast_bfloat16, require_correct_bfloat16
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.regnet import FIRST_OUTPUT, RegNet
from regnet.learning.tiles import TILE_SIDES, near_mask, output_lattice, tile_gib, tile_seconds, tiles
from regnet.synthesis.samples import OUTPUT_STRIDE, SamplePool, normalize, window_size

log = logging.getLogger(__name__)

BFLOAT16_LIMIT_MM = 0.05
"""How much bfloat16 may change a displacement anywhere in the mask before `auto` falls back to float32."""

SPOTS, SPOT_OUTPUTS, SPOT_SHARE = 16, 8, 0.78
"""`auto` tries bfloat16 at this many spots in the mask, with this many outputs per axis each: at most 8192 outputs. The largest
change anywhere in the mask exceeds that at the spots (0.041 to 0.045 mm where the spots showed 0.030 to 0.038), so the spots
may use only this share of the limit."""

ONE_SHOT = InferenceSettings()

PROGRAM_GIB = 0.55
"""Memory of the process without images: 0.31 for Python, torch, SimpleITK and the weights, and up to 0.18 that even the
smallest tile takes for buffers and leaves between them."""

MIRRORINGS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((),),
    2: ((), (0, 1, 2)),
    4: ((), (0, 1), (0, 2), (1, 2)),
    8: tuple(axes for count in range(4) for axes in combinations(range(3), count)),
}
"""The axes (x = 0, y = 1, z = 2) along which a pair is mirrored, for each number of mirror images; 1 is the pair as it is. The
other sets mirror each axis in half of their images, so that an error of the network along it cancels out."""

RELAXATIONS = 4
"""How often each level of a continued field is averaged with its neighbours."""


def continued(field: Tensor, known: Tensor) -> Tensor:
    """Continue a field smoothly from where it is known to the whole lattice.

    It works from coarse to fine: a level of half the resolution holds the means of the known values and is continued first;
    unknown values are interpolated from it and averaged a few times with their neighbours. So the field flattens out with the
    distance, and no value leaves the range of the known ones. Known values stay as they are.

    Parameters
    ----------
    field
        Shape ``(3, z, y, x)``.
    known
        Where it is known, bool, shape ``(z, y, x)``; at least one node.
    """
    return _continued(field[None], known[None, None])[0]


def _continued(values: Tensor, known: Tensor) -> Tensor:
    if known.all():
        return values
    factors = [min(2, side) for side in values.shape[2:]]
    share = functional.avg_pool3d(known.float(), factors, ceil_mode=True, count_include_pad=False)
    means = functional.avg_pool3d(values * known, factors, ceil_mode=True, count_include_pad=False) / share.clamp(min=1e-3)
    scale = [float(factor) for factor in factors]
    coarse = functional.interpolate(_continued(means, share > 0), scale_factor=scale, mode="trilinear", align_corners=False)
    filled = torch.where(known, values, coarse[:, :, *(slice(side) for side in values.shape[2:])])
    for _ in range(RELAXATIONS):
        around = functional.avg_pool3d(functional.pad(filled, (1,) * 6, mode="replicate"), 3, stride=1)
        filled = torch.where(known, values, around)
    return filled


class _InFloat32(nn.Module):
    """A layer that stays in float32 where autocast runs the others in bfloat16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return self.layer(features.float())


def too_little_memory(found: float, needed: float) -> ConfigError:
    """The error of a memory limit that images do not fit, both in GiB."""
    return ConfigError(
        f"regnet.max_memory_gib: found {found:g}, expected at least {math.ceil(10 * needed) / 10:g} for images of this size"
    )


def folded(network: nn.Module) -> nn.Module:
    """A copy of a network for inference, with batch normalization folded into the convolutions before it.

    Under autocast the first convolution of each stream and the fully connected layers stay in float32: they are 2 % of the
    work, and rounding intensities and displacements to 8 bits makes nearly half of the error of bfloat16. So does the layer in
    which the streams meet at original resolution: it takes a fifth of the time, and without it the largest changes exceed
    `BFLOAT16_LIMIT_MM`.
    """
    network = copy.deepcopy(network).eval()
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for index, layer in enumerate(sequence):
            if not isinstance(layer, nn.Conv3d):
                continue
            if index + 1 < len(sequence) and isinstance(sequence[index + 1], nn.BatchNorm3d):
                layer = fuse_conv_bn_eval(layer, sequence[index + 1])
                sequence[index + 1] = nn.Identity()
            in_float32 = layer.in_channels <= 2 or layer.kernel_size == (1, 1, 1)
            sequence[index] = _InFloat32(layer) if in_float32 else layer
    if isinstance(network, RegNet):
        network.original.merged[0] = _InFloat32(network.original.merged[0])
    return network


class DenseNetwork:
    """A network prepared for whole volumes: it computes, in tiles, what the patch network returns at every wanted point.

    Parameters
    ----------
    network
        A trained network; it is not changed.
    window
        Lowest and highest HU that the network sees.
    settings
        ``stride``, ``mirrors`` (one of `MIRRORINGS`), ``precision`` and ``max_memory_gib`` are used. Memory bounds the tiles.
        With the precision ``auto`` the first volume decides: both precisions are tried at `SPOTS` spots of it, once, and
        bfloat16 is taken if no displacement changes by more than `SPOT_SHARE` of `BFLOAT16_LIMIT_MM`. No test
        could decide it: the error depends on the weights, which may be a user's own, and on the images.
    device
        Where to compute.
    tile
        At most this many outputs per axis are computed at once; None for the fastest size that fits into the memory.

    Raises
    ------
    ConfigError
        If bfloat16 is requested where cuDNN computes it wrongly.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        window: tuple[float, float],
        settings: InferenceSettings = ONE_SHOT,
        device: torch.device | str = "cpu",
        tile: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        require_correct_bfloat16(settings.precision, self.device)
        self.network = folded(network).to(self.device, memory_format=torch.channels_last_3d)
        self.window = window
        self.settings = settings
        self.stride = settings.stride
        # The first volume replaces ``auto`` with one of the other two.
        self.precision = settings.precision
        self.tile = tile

    def lattice(self, shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], float]:
        """Where the outputs for a volume are, as `output_lattice` says."""
        return output_lattice(shape, self.stride)

    def predict(
        self, fixed: np.ndarray, moving: np.ndarray, *, spacing: float = 1.0, mask: np.ndarray | None = None
    ) -> np.ndarray:
        """Apply the network to a pair of volumes.

        Parameters
        ----------
        fixed, moving
            HU, the same shape ``(z, y, x)``, at the network's working spacing. Outside, their border values continue.
        spacing
            The working spacing in mm, for the comparison with `BFLOAT16_LIMIT_MM`.
        mask
            Not 0 where displacements are wanted, the same shape. The network is applied to the outputs of `near_mask` only, and
            the field is `continued` from there. None for the whole volume.

        Returns
        -------
        numpy.ndarray
            Displacements in voxels, components along the axes x, y, z of the voxel grid, shape ``(3, *counts)`` on the points
            of `output_lattice`, float32.

        Raises
        ------
        InputError
            If the mask is empty.
        ConfigError
            If the smallest tile does not fit into the memory.
        ValueError
            If the shapes differ.

        Examples
        --------
        A network without training, on a volume of 3 x 4 x 6 voxels along x, y and z. With a stride of 2, the outputs belong to
        every second voxel, shifted by half a voxel.

        >>> from regnet.learning.networks.regnet import RegNet
        >>> fixed = np.full((6, 4, 3), -800, np.int16)
        >>> fixed[2:4, 1:3, 1] = 0
        >>> network = DenseNetwork(RegNet(), window=(-1000, 400), settings=InferenceSettings(precision="float32"))
        >>> displacements = network.predict(fixed, np.roll(fixed, 1, axis=2), spacing=2.0)
        >>> displacements.shape, displacements.dtype
        ((3, 3, 2, 2), dtype('float32'))
        >>> output_lattice(fixed.shape, stride=2)
        ((3, 2, 2), 0.5)
        """
        for name, volume in (("moving", moving), ("mask", mask)):
            if volume is not None and volume.shape != fixed.shape:
                raise ValueError(f"{name}: shape {volume.shape}, expected that of fixed, {fixed.shape}")
        counts, _ = output_lattice(fixed.shape, self.stride)
        wanted = np.ones(counts, bool) if mask is None else near_mask(mask, self.stride)
        if not wanted.any():
            raise InputError("the mask of the fixed image is empty, expected voxels that are not 0")
        field = torch.zeros(3, *counts)
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            if self.precision == "auto":
                self.precision = self._choose_precision(fixed, moving, wanted, spacing)
            # Count the images twice: the moving one is held before and after it is warped.
            for box in self._tiles(wanted, 2 * (fixed.nbytes + moving.nbytes) + field.nbytes):
                field[(slice(None), *box)] = self._outputs(fixed, moving, box, self.precision)
            if mask is not None:
                # What a tile computes beyond the wanted outputs is dropped, so that tiles do not show in the result.
                known = torch.from_numpy(wanted)
                field = continued(field.mul_(known), known)
        return field.numpy()

    def _tiles(self, wanted: np.ndarray, used_bytes: int) -> list[Box]:
        """The tiles for the wanted outputs; the images and the field use `used_bytes` of the memory."""
        if self.tile is not None:
            return tiles(wanted, self.tile)
        room = self.settings.max_memory_gib
        if self.device.type == "cpu":
            room -= PROGRAM_GIB + used_bytes / 2**30
        sides = [side for side in TILE_SIDES if tile_gib((side, side, side), self.precision) <= room]
        if not sides:
            needed = self.settings.max_memory_gib - room + tile_gib((TILE_SIDES[0],) * 3, self.precision)
            raise too_little_memory(self.settings.max_memory_gib, needed)
        plans = [tiles(wanted, side * OUTPUT_STRIDE // self.stride) for side in sides]
        return min(plans, key=lambda boxes: sum(tile_seconds(self._pairs(box), self.stride) for box in boxes))

    def _pairs(self, box: Box) -> tuple[int, int, int]:
        """Points of every second voxel that one pass computes for a box of outputs, along z, y, x."""
        return tuple(-(-(extent.stop - extent.start) * self.stride // OUTPUT_STRIDE) for extent in box)

    def _outputs(self, fixed: np.ndarray, moving: np.ndarray, box: Box, precision: str) -> Tensor:
        """The network's outputs in a box of the lattice, shape ``(3, *box)``, float32, on the CPU."""
        _, first = output_lattice(fixed.shape, self.stride)
        starts = [round(self.stride * extent.start + first - FIRST_OUTPUT) for extent in box]
        sides = [window_size(count) + OUTPUT_STRIDE - self.stride for count in self._pairs(box)]
        windows = [self._window(volume, starts, sides) for volume in (fixed, moving)]
        apply = self.network if self.stride == OUTPUT_STRIDE else self.network.every_voxel
        outputs = torch.zeros((), device=self.device)
        for axes in MIRRORINGS[self.settings.mirrors]:
            # Outputs lie symmetrically in their window: a mirrored window has them at the same points.
            dims = [4 - axis for axis in axes]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                mirrored = apply(*(window.flip(dims) for window in windows)).float().flip(dims)
            mirrored[:, list(axes)] *= -1
            outputs = outputs + mirrored / self.settings.mirrors
        counts = (slice(extent.stop - extent.start) for extent in box)
        return outputs[0][:, *counts].cpu()

    def _window(self, volume: np.ndarray, starts: list[int], sides: list[int]) -> Tensor:
        """A window of a volume as the network sees it, shape ``(1, 1, z, y, x)``; outside the volume its border value."""
        spans = [(start, start + side) for start, side in zip(starts, sides, strict=True)]
        inside = tuple(slice(max(start, 0), stop) for start, stop in spans)
        padding = [(max(-start, 0), max(stop - size, 0)) for (start, stop), size in zip(spans, volume.shape, strict=True)]
        normalized = normalize(torch.from_numpy(np.array(volume[inside], np.float32)).to(self.device), self.window)
        widths = [width for pair in reversed(padding) for width in pair]
        padded = functional.pad(normalized[None, None], widths, mode="replicate")
        return padded.contiguous(memory_format=torch.channels_last_3d)

    def _choose_precision(self, fixed: np.ndarray, moving: np.ndarray, wanted: np.ndarray, spacing: float) -> str:
        """bfloat16 if it is fast and changes next to nothing at the spots, else float32; the log says which."""
        if not has_fast_bfloat16(self.device):
            log.info("float32, as bfloat16 is slow or wrong on this device")
            return "float32"
        nodes = np.flatnonzero(wanted)
        nodes = nodes[(2 * np.arange(SPOTS) + 1) * len(nodes) // (2 * SPOTS)]
        changes = []
        for node in zip(*np.unravel_index(nodes, wanted.shape), strict=True):
            spot = tuple(
                slice(int(start), min(int(start) + SPOT_OUTPUTS, end)) for start, end in zip(node, wanted.shape, strict=True)
            )
            exact, rounded = (self._outputs(fixed, moving, spot, precision) for precision in ("float32", "bfloat16"))
            change = (rounded - exact).norm(dim=0)[torch.from_numpy(wanted[spot])]
            changes.append(spacing * float(change.max()))
        precision = "bfloat16" if max(changes) <= SPOT_SHARE * BFLOAT16_LIMIT_MM else "float32"
        log.info("%s: bfloat16 changes displacements by at most %.3f mm at %d spots", precision, max(changes), len(changes))
        return precision


def predict_samples(network: RegNet, pool: SamplePool, *, device: torch.device | str = "cpu", batch: int = 16) -> np.ndarray:
    """Apply the network to the windows of all samples of a pool.

    Returns
    -------
    numpy.ndarray
        Displacements in voxels along the axes x, y, z of the voxel grid, shape ``(n, k, k, k, 3)`` as in `Samples`, float32.
    """
    network = network.to(device, memory_format=torch.channels_last_3d)
    predicted = np.empty(pool.displacements.shape, np.float32)
    feed = Feed(pool, device)
    with torch.inference_mode():
        for chosen in np.array_split(np.arange(len(pool)), -(-len(pool) // batch)):
            windows = [window.to(memory_format=torch.channels_last_3d) for window in feed.cut(chosen)[:2]]
            predicted[chosen] = network(*windows).float().permute(0, 2, 3, 4, 1).cpu().numpy()
    return predicted
