"""Weights on disk, and the network applied to whole volumes (docs/inference.md) and to samples.

Only torch and numpy (and safetensors).
"""

import copy
import functools
import json
import logging
import operator
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from regnet.errors import ConfigError, InputError, OutputError
from regnet.learning.batches import Feed
from regnet.learning.devices import has_fast_bfloat16, has_right_bfloat16
from regnet.learning.network import FIRST_OUTPUT, ORIGINAL_MARGIN, OUTPUT_STRIDE, VARIANTS, RegNet, window_size
from regnet.synthesis.samples import HU_PER_UNIT, SamplePool
from regnet.system.files import whole_file

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16")
"""What convolutions of the dense pass may run in; `auto` is bfloat16 where it is fast, right, and changes nearly nothing."""

BFLOAT16_LIMIT_MM = 0.05
"""How much bfloat16 may change a displacement anywhere in the mask before `auto` falls back to float32."""

SPOTS, SPOT_OUTPUTS, SPOT_SHARE = 16, 8, 0.78
"""bfloat16 is tried at this many spots in the mask, with this many outputs per axis each: 8192 outputs at most. The largest
change anywhere is larger (0.041 to 0.045 mm where the spots showed 0.030 to 0.038): no more than this share of the limit is
allowed there."""

MASK_MARGIN = 2
"""Outputs are computed up to this distance from the mask, in voxels along each axis, so that the field between the outputs is
the network's own right up to the border of the mask: a corner of a voxel lies up to 2.5 voxels from the outputs around it."""

RELAXATIONS = 4
"""How often each level of a continued field is averaged with its neighbours."""

TILE_SIDES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
"""Sizes of tiles to choose from: points of every second voxel per axis."""

ORIGINAL_NS, LOW_NS, JOINT_NS = 800.0, 1000.0, 4500.0
"""What the layers at original and at low resolution and the joint ones take per voxel of their own grid on a CPU core."""

BYTES_PER_VOXEL = {"float32": 400, "bfloat16": 240}
"""Memory of the feature maps at their largest, per voxel that the layers at original resolution see. Measured: float32 299, and
373 for the variant of that resolution only; in bfloat16, where some layers stay in float32, 206."""

PROGRAM_GIB = 0.5
"""Memory of the process without images: Python, torch, SimpleITK and the weights."""

MAX_MEMORY_GIB = 4.0
"""Memory that a prediction may take where nobody says otherwise."""

MIRRORINGS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((),),
    2: ((), (0, 1, 2)),
    4: ((), (0, 1), (0, 2), (1, 2)),
    8: tuple(axes for count in range(4) for axes in combinations(range(3), count)),
}
"""The axes (x = 0, y = 1, z = 2) along which a pair is mirrored, for each number of mirror images; 1 is the pair as it is. Each
axis is mirrored in half of the others, so that an error of the network along it is evened out."""

Box = tuple[slice, slice, slice]
"""Part of a lattice of outputs, along z, y, x."""

METADATA = "regnet"
"""Entry of a weights file's metadata that holds all we say of the weights, as JSON."""


def save_network(network: RegNet, path: str | Path, *, spacing: float, window: tuple[float, float], **facts: object) -> None:
    """Write a network's weights, and what is needed to use them, as a safetensors file.

    Parameters
    ----------
    network
        The network.
    path
        Ends in ``.safetensors``.
    spacing
        Working spacing of the network, in mm.
    window
        Lowest and highest HU that the network sees.
    facts
        Anything else worth knowing, kept as JSON.

    Raises
    ------
    OutputError
        If the file cannot be written, for example because the disk is full.
    """
    metadata = {"variant": network.variant, "spacing": spacing, "window": list(window), **facts}
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with whole_file(path) as partial:
        # One entry: the order of several would differ from process to process, and with it the bytes of the file.
        try:
            save_file(weights, str(partial), {METADATA: json.dumps(metadata)})
        except SafetensorError as error:
            raise OutputError(f"{path}: cannot be written ({error})") from error


def load_network(
    path: str | Path, *, variant: str | None = None, spacing: float | None = None
) -> tuple[RegNet, dict[str, Any]]:
    """Read a network that `save_network` wrote, ready for inference, and its metadata.

    Parameters
    ----------
    path
        The file.
    variant, spacing
        What the network has to be: its variant, and its working spacing in mm; any if None.

    Raises
    ------
    InputError
        If the file is not such a file, its weights do not fit the variant it names, or it is another network.
    """
    try:
        with safe_open(str(path), framework="pt") as stored:
            metadata = json.loads((stored.metadata() or {}).get(METADATA, "{}"))
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as weights of RegNet in safetensors ({error})") from error
    if metadata.get("variant") not in VARIANTS or not {"spacing", "window"} <= metadata.keys():
        raise InputError(f"{path}: names the variant {metadata.get('variant')!r}, expected one of {', '.join(VARIANTS)}")
    for name, expected in (("variant", variant), ("spacing", spacing)):
        if expected is not None and metadata[name] != expected:
            raise InputError(f"{path}: found weights of the {name} {metadata[name]}, expected {expected}")
    network = RegNet(metadata["variant"])
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the weights do not fit the variant {metadata['variant']} ({reason[:200]})") from error
    return network.eval(), metadata


def output_lattice(shape: tuple[int, int, int], stride: int = OUTPUT_STRIDE) -> tuple[tuple[int, int, int], float]:
    """Where the outputs for a volume are: their number along z, y, x, and the voxel index of the first one on each axis.

    With a stride of 2 neighbours are two voxels apart, from 0.5 to the last voxel or half a voxel behind it. With a stride of 1
    they lie between all voxels, and half a voxel outside the first and the last. Odd nodes of that lattice are the other one's.
    """
    if stride == 1:
        return tuple(side + 1 for side in shape), -0.5
    return tuple(-(-side // OUTPUT_STRIDE) for side in shape), 0.5


def near_mask(mask: np.ndarray, stride: int = OUTPUT_STRIDE) -> np.ndarray:
    """Which outputs are wanted for a mask ``(z, y, x)``: those of `output_lattice` within `MASK_MARGIN` voxels of it."""
    counts, first = output_lattice(mask.shape, stride)
    near = np.asarray(mask) != 0
    for axis, count in enumerate(counts):
        widths = [(MASK_MARGIN + 1, MASK_MARGIN + 2) if other == axis else (0, 0) for other in range(3)]
        voxels = np.moveaxis(np.pad(near, widths), axis, 0)
        # The output lies between two voxels; the outermost ones that count are the margin away from these.
        begin = int(first + 0.5)
        seen = (voxels[begin + offset :: stride][:count] for offset in range(2 * MASK_MARGIN + 2))
        near = np.moveaxis(functools.reduce(operator.or_, seen), 0, axis)
    return near


def continued(field: Tensor, known: Tensor) -> Tensor:
    """Continue a field smoothly from where it is known to the whole lattice.

    From coarse to fine: a level that is half as fine holds the means of what is known, and is continued first; what is unknown
    is interpolated from it and averaged a few times with its neighbours. So the field flattens out with the distance, and no
    value is outside the range of the known ones. Known values stay as they are.

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
    whole = (..., *(slice(side) for side in values.shape[2:]))
    filled = torch.where(known, values, coarse[whole])
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


def tile_seconds(outputs: tuple[int, int, int], stride: int) -> float:
    """About how long a tile takes in bfloat16 on a CPU core, in seconds: what tiles of different sizes cost side by side.

    Three groups of layers work on regions that exceed the outputs by different margins; per voxel of its region each takes the
    time that was measured for it. With a stride of 1 the last two run eight times.

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
    """Memory that the feature maps of a tile take at most, in GiB; `outputs` as in `tile_seconds`."""
    voxels = float(np.prod([window_size(count) - sum(ORIGINAL_MARGIN) for count in outputs]))
    return BYTES_PER_VOXEL[precision] * voxels / 2**30


def tiles(wanted: np.ndarray, side: int) -> list[Box]:
    """Boxes that cover the wanted outputs without overlap, of at most `side` outputs per axis.

    The box around all wanted outputs is cut evenly, and each part shrunk to the box around its own ones.
    """

    def around(part: np.ndarray) -> Box | None:
        ends = []
        for axis in range(3):
            inside = np.flatnonzero(part.any(axis=tuple(other for other in range(3) if other != axis)))
            if not len(inside):
                return None
            ends.append(slice(int(inside[0]), int(inside[-1]) + 1))
        return tuple(ends)

    whole = around(wanted)
    cuts = []
    for extent in whole:
        parts = -(-(extent.stop - extent.start) // side)
        edges = np.linspace(extent.start, extent.stop, parts + 1).astype(int).tolist()
        cuts.append([slice(*ends) for ends in pairwise(edges)])
    found = []
    for part in product(*cuts):
        box = around(wanted[part])
        if box is not None:
            found.append(tuple(slice(cut.start + own.start, cut.start + own.stop) for cut, own in zip(part, box, strict=True)))
    return found


class DenseNetwork:
    """A network made ready for whole volumes: exactly the patch network at every point asked for, in tiles.

    Parameters
    ----------
    network
        A trained network; it stays as it is.
    window
        Lowest and highest HU that the network sees.
    stride
        2 for every second voxel per axis, in one pass of the network; 1 for every voxel, in eight.
    mirrors
        Over how many mirror images of the pair displacements are averaged, one of `MIRRORINGS`; 1 is the network's own answer.
    device
        Where to compute.
    precision
        One of `PRECISIONS`. With `auto`, the first volume decides: both precisions are tried at `SPOTS` spots of it, once, and
        bfloat16 is taken if no displacement changes by more than `SPOT_SHARE` of `BFLOAT16_LIMIT_MM`. That is done here and not
        by a test, since the error depends on the weights, which may be anybody's, and on the images.
    max_memory_gib
        Memory that a prediction may take, in GiB: on a CPU that of the whole process with the program, both images and the
        field, on a GPU that of the feature maps. It bounds the tiles.
    tile
        Outputs per axis that are computed at once, at most; None for the size that is fastest within the memory.

    Raises
    ------
    ConfigError
        If bfloat16 is asked for where it gives wrong results.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        window: tuple[float, float],
        stride: int = OUTPUT_STRIDE,
        mirrors: int = 1,
        device: torch.device | str = "cpu",
        precision: str = "auto",
        max_memory_gib: float = MAX_MEMORY_GIB,
        tile: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        if precision == "bfloat16" and not has_right_bfloat16(self.device):
            raise ConfigError(
                f"regnet.precision: found bfloat16, which cuDNN {torch.backends.cudnn.version()} computes wrongly; "
                "expected auto or float32"
            )
        self.network = folded(network).to(self.device, memory_format=torch.channels_last_3d)
        self.window = window
        self.stride = stride
        self.mirrors = mirrors
        self.precision = precision
        self.max_memory_gib = max_memory_gib
        self.tile = tile

    def predict(
        self, fixed: np.ndarray, moving: np.ndarray, *, spacing: float = 1.0, mask: np.ndarray | None = None
    ) -> np.ndarray:
        """Apply the network to a pair of volumes.

        Parameters
        ----------
        fixed, moving
            HU, the same shape ``(z, y, x)``, at the network's working spacing. Outside, their border values continue.
        spacing
            The working spacing in mm, in which `BFLOAT16_LIMIT_MM` is meant.
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
            If the smallest tile does not fit the memory.
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
            # The images twice: the moving one is held before and after it was warped.
            for box in self._plan(wanted, 2 * (fixed.nbytes + moving.nbytes) + field.nbytes):
                field[(slice(None), *box)] = self._outputs(fixed, moving, box, self.precision)
            if mask is not None:
                # What a tile computes beyond the wanted outputs is dropped, so that tiles do not show in the result.
                known = torch.from_numpy(wanted)
                field = continued(field.mul_(known), known)
        return field.numpy()

    def _plan(self, wanted: np.ndarray, held: int) -> list[Box]:
        """The tiles for the wanted outputs; `held` bytes of memory are taken by the images and the field."""
        if self.tile is not None:
            return tiles(wanted, self.tile)
        room = self.max_memory_gib
        if self.device.type == "cpu":
            room -= PROGRAM_GIB + held / 2**30
        sides = [side for side in TILE_SIDES if tile_gib((side, side, side), self.precision) <= room]
        if not sides:
            needed = self.max_memory_gib - room + tile_gib((TILE_SIDES[0],) * 3, self.precision)
            raise ConfigError(
                f"regnet.max_memory_gib: found {self.max_memory_gib:g}, expected at least {needed:.1f} for images of this size"
            )
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
        answer = self.network if self.stride == OUTPUT_STRIDE else self.network.every_voxel
        outputs = 0
        for axes in MIRRORINGS[self.mirrors]:
            # Outputs lie symmetrically in their window: those of a mirrored window are at the same points.
            dims = [4 - axis for axis in axes]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                mirrored = answer(*(window.flip(dims) for window in windows)).float().flip(dims)
            mirrored[:, list(axes)] *= -1
            outputs = outputs + mirrored / self.mirrors
        counts = (slice(extent.stop - extent.start) for extent in box)
        return outputs[(0, slice(None), *counts)].cpu()

    def _window(self, volume: np.ndarray, starts: list[int], sides: list[int]) -> Tensor:
        """A window of a volume as the network sees it, shape ``(1, 1, z, y, x)``; outside the volume its border value."""
        spans = [(start, start + side) for start, side in zip(starts, sides, strict=True)]
        inside = tuple(slice(max(start, 0), stop) for start, stop in spans)
        padding = [(max(-start, 0), max(stop - size, 0)) for (start, stop), size in zip(spans, volume.shape, strict=True)]
        lower, upper = self.window
        intensity = torch.from_numpy(np.array(volume[inside], np.float32)).to(self.device)
        normalized = intensity.clamp_(lower, upper).sub_(lower).div_(HU_PER_UNIT)
        widths = [width for pair in reversed(padding) for width in pair]
        padded = functional.pad(normalized[None, None], widths, mode="replicate")
        return padded.contiguous(memory_format=torch.channels_last_3d)

    def _choose_precision(self, fixed: np.ndarray, moving: np.ndarray, wanted: np.ndarray, spacing: float) -> str:
        """bfloat16 if it is fast and changes next to nothing at the spots, else float32; says which in the log."""
        if not has_fast_bfloat16(self.device):
            log.info("float32, as bfloat16 is not fast, or not right, on this device")
            return "float32"
        places = np.flatnonzero(wanted)
        places = places[(2 * np.arange(SPOTS) + 1) * len(places) // (2 * SPOTS)]
        changes = []
        for place in zip(*np.unravel_index(places, wanted.shape), strict=True):
            spot = tuple(
                slice(int(node), min(int(node) + SPOT_OUTPUTS, count)) for node, count in zip(place, wanted.shape, strict=True)
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
