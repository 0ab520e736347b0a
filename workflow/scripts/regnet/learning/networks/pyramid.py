"""A feature pyramid that compares: the network `regnet_pyramid`.

RegNet concatenates the features of both images and has to learn how to compare them. This network compares. The features of
both images come from the same weights, and each level refines the displacement by the correlation of the fixed features with
the moving ones at all shifts within a few nodes (after PWC-Net, Sun et al., CVPR 2018; for lungs He et al., arXiv:2106.07608).
The principle is the chapter's: it learns from artificial deformations alone, and a registration is one forward pass.

Node i of level l lies at voxel ``i 2^l``: with sides of ``8 k + 1`` voxels the corners of all levels coincide. The network
knows voxels only, so that one set of weights serves any spacing.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regnet.learning.networks.interface import Network
from regnet.learning.optimizers import Optimization

CHANNELS = (16, 32, 48)
"""Feature maps of the levels, fine (stride 2) to coarse (stride 8)."""

RADII = (1, 2, 3)
"""Largest shift along each axis that a level compares, in its nodes."""

WIDTHS = ((32, 32, 24), (48, 48, 32), (64, 64, 48))
"""Feature maps of the convolutions that turn a comparison into a displacement, for each level."""

HANDED_DOWN = 16
"""Feature maps that a level hands to the finer one."""

SHARPNESS = 5.0
"""Factor on the correlation, which lies between -1 and 1, before training."""

LEVELS = len(CHANNELS)

SIDE_STEP = 2**LEVELS
"""Sides of an image are a multiple of this, and one voxel more."""

REACH = 123
"""Of the levels, coarse to fine, 77 + 32 + 14 voxels: four convolutions of one node, the correlation, and the interpolation
between the nodes of the coarser level; the first number includes 21 voxels of the encoder."""

CACHED_PRODUCTS = 2**18
"""How many products the correlation makes at a time on a CPU: they fit its cache, which is two to three times as fast."""

Start = tuple[int, int, int]
"""Where a part begins in a whole: nodes along z, y, x."""

Coarser = tuple[Tensor, Tensor]
"""What a level leaves to the finer one: displacements in voxels of the images, and feature maps, at its nodes."""

SLOPE = 0.1
"""Of the leaky ReLU."""

SMALLEST_NORM = 1e-2
"""Features with a smaller norm count as having this one: regions without texture are compared to nothing."""


class RegNetPyramid(Network):
    """Displacements from coarse to fine, each level comparing features within a few nodes of what the level above found."""

    variant = "regnet_pyramid"
    reach = REACH
    first_output = 0.0
    any_spacing = True
    # Convolutions are faster in channels_last_3d, the correlation five times slower: each gets its own.
    memory_format = torch.contiguous_format
    optimization = Optimization(momentum=0.9, adam_rate=0.4, largest_gradient=1.0)

    def __init__(self) -> None:
        super().__init__()
        sources = (1, *CHANNELS[:-1])
        self.encoder = nn.ModuleList(
            nn.Sequential(_convolution(before, channels, stride=2), _convolution(channels, channels))
            for before, channels in zip(sources, CHANNELS, strict=True)
        )
        self.projections = nn.ModuleList(nn.Conv3d(channels, channels, 1) for channels in CHANNELS)
        self.decoders = nn.ModuleList(_Decoder(level, self.compared_maps(level)) for level in range(LEVELS))
        self.sharpness = nn.Parameter(torch.full((LEVELS,), SHARPNESS))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                nn.init.zeros_(module.bias)
        for decoder in self.decoders:
            # The first answer is no displacement.
            nn.init.zeros_(decoder.displacement.weight)

    def forward(self, fixed: Tensor, moving: Tensor) -> list[Tensor]:
        """Predict displacements at the nodes of all levels.

        Parameters
        ----------
        fixed, moving
            Normalized intensities, shape ``(n, 1, z, y, x)``, each side ``8 k + 1`` voxels.

        Returns
        -------
        list of torch.Tensor
            For each level, coarse to fine, displacements in voxels of the images, float32, shape ``(n, 3, z, y, x)`` with
            ``side // 2^l + 1`` nodes a side; components x, y, z first; from the fixed point to the corresponding moving one.
        """
        features = self.features(torch.cat([fixed, moving]))
        fields: list[Tensor] = []
        coarser: Coarser | None = None
        for level in reversed(range(LEVELS)):
            of_fixed, of_moving = features[level].chunk(2)
            if coarser is not None:
                coarser = upsampled(coarser, of_fixed.shape[2:])
            coarser = self.refine(level, of_fixed, self.project(level, of_moving), coarser)
            fields.append(coarser[0])
        return fields

    def inner_kernels(self) -> Iterator[nn.Parameter]:
        """As in `Network`."""
        last = {id(decoder.displacement) for decoder in self.decoders}
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.in_channels > 1 and id(module) not in last:
                yield module.weight

    def features(self, images: Tensor) -> list[Tensor]:
        """The features of images ``(n, 1, z, y, x)`` at all levels, fine to coarse."""
        levels = []
        images = images.contiguous(memory_format=torch.channels_last_3d)
        for block in self.encoder:
            images = block(images)
            levels.append(images)
        return levels

    def compared_maps(self, level: int) -> int:
        """How many maps `compare` gives."""
        return (2 * RADII[level] + 1) ** 3

    def compare(self, level: int, fixed: Tensor, projected: Tensor) -> Tensor:
        """The comparison of fixed features with the moving ones of `project`, both on the same nodes; float32."""
        return correlate(unit(self.project(level, fixed)), unit(projected), RADII[level]) * self.sharpness[level]

    def project(self, level: int, features: Tensor) -> Tensor:
        """What a level compares of its features; float32."""
        return self.projections[level](features).float().contiguous()

    def refine(
        self,
        level: int,
        fixed: Tensor,
        projected: Tensor,
        coarser: Coarser | None,
        first: Start = (0, 0, 0),
    ) -> Coarser:
        """The displacement of a level, and the feature maps that it hands to the finer one.

        Parameters
        ----------
        level
            0 is the finest.
        fixed
            Features of the fixed image, ``(n, c, z, y, x)``.
        projected
            Of `project`, for the moving image; more of it than of the fixed one, where `fixed` is a part.
        coarser
            What `refine` returned for the coarser level, on the nodes of `fixed` (`upsampled`); None for the coarsest level.
        first
            Where `fixed` begins in `projected`.
        """
        scale = 2 ** (level + 1)
        known = [fixed]
        if coarser is not None:
            displacement, handed = coarser
            projected = warp_features(projected, displacement / scale, first)
            known += [displacement / scale, handed]
        compared = self.compare(level, fixed, projected)
        change, handed = self.decoders[level](torch.cat([compared, *(maps.to(compared) for maps in known)], dim=1))
        change = change * scale
        return change if coarser is None else coarser[0] + change, handed


class _Decoder(nn.Module):
    """The convolutions of a level: from correlation, features and what the coarser level knows to a change of displacement."""

    def __init__(self, level: int, compared: int) -> None:
        super().__init__()
        from_above = 3 + HANDED_DOWN if level < LEVELS - 1 else 0
        widths = (compared + CHANNELS[level] + from_above, *WIDTHS[level])
        pairs = pairwise(widths)
        self.body = nn.Sequential(*(_convolution(before, after) for before, after in pairs))
        self.displacement = nn.Conv3d(widths[-1], 3, 3, padding=1)
        self.handed = nn.Conv3d(widths[-1], HANDED_DOWN, 1) if level > 0 else None

    def forward(self, parts: Tensor) -> Coarser:
        maps = self.body(parts.contiguous(memory_format=torch.channels_last_3d))
        # Rounded to the 8 bits of bfloat16, a displacement of 14 voxels would be off by up to 0.03.
        with torch.autocast(parts.device.type, enabled=False):
            displacement = self.displacement(maps.float())
        return displacement, maps if self.handed is None else self.handed(maps)


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(before, after, 3, stride, padding=1), nn.LeakyReLU(SLOPE, inplace=True))


def upsampled(coarser: Coarser, size: Sequence[int]) -> Coarser:
    """What a level found, on the nodes of the finer one, `size` along z, y, x; trilinear, float32."""
    displacement, handed = (upsampled_maps(maps, size) for maps in coarser)
    return displacement, handed


def upsampled_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps ``(n, c, z, y, x)`` on the nodes of the finer level, `size` along z, y, x; trilinear, float32."""
    return functional.interpolate(maps.float(), size=tuple(size), mode="trilinear", align_corners=True)


def unit(features: Tensor) -> Tensor:
    """Features minus their mean over channels, divided by their norm."""
    centred = features - features.mean(dim=1, keepdim=True)
    return centred * centred.square().sum(dim=1, keepdim=True).clamp(min=SMALLEST_NORM**2).rsqrt()


def warp_features(maps: Tensor, displacement: Tensor, first: Start = (0, 0, 0)) -> Tensor:
    """Maps at displaced nodes, ``maps(x + u(x))``; trilinear, with the border continued.

    Parameters
    ----------
    maps
        Shape ``(n, c, z, y, x)``.
    displacement
        In nodes, components x, y, z first, ``(n, 3, z, y, x)``.
    first
        The node of `maps` to which the first of `displacement` belongs.
    """
    axes = [
        torch.arange(start, start + count, device=maps.device, dtype=maps.dtype)
        for start, count in zip(first, displacement.shape[2:], strict=True)
    ]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)
    last = torch.tensor([count - 1 for count in reversed(maps.shape[2:])], device=maps.device, dtype=maps.dtype)
    places = (nodes + displacement.movedim(1, -1)) * 2 / last - 1
    return functional.grid_sample(maps, places, padding_mode="border", align_corners=True)


def correlate(fixed: Tensor, moving: Tensor, radius: int) -> Tensor:
    """Products, summed over channels, of fixed features with the moving ones at all shifts within a radius.

    Parameters
    ----------
    fixed, moving
        Shape ``(n, c, z, y, x)``. Beyond the border the moving ones are 0.
    radius
        In nodes.

    Returns
    -------
    torch.Tensor
        Shape ``(n, (2 radius + 1)^3, z, y, x)``, shifts in the order z, y, x.
    """
    return _Correlation.apply(fixed, moving, radius)


class _Correlation(torch.autograd.Function):
    """Forward and backward one shift and a few planes at a time: the products of all together would not fit the memory."""

    @staticmethod
    def forward(ctx: Any, fixed: Tensor, moving: Tensor, radius: int) -> Tensor:
        padded = functional.pad(moving, (radius,) * 6)
        count = 2 * radius + 1
        result = fixed.new_empty(len(fixed), count**3, *fixed.shape[2:])
        for planes in _planes(fixed):
            part = fixed[:, :, planes]
            products = torch.empty_like(part)
            for number, shift in enumerate(product(range(count), repeat=3)):
                torch.mul(part, padded[_shifted(shift, planes, fixed.shape)], out=products)
                torch.sum(products, dim=1, out=result[:, number, planes])
        ctx.save_for_backward(fixed, padded)
        ctx.radius = radius
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        fixed, padded = ctx.saved_tensors
        radius, gradient = ctx.radius, gradient.contiguous()
        of_fixed, of_padded = torch.zeros_like(fixed), torch.zeros_like(padded)
        for planes in _planes(fixed):
            for number, shift in enumerate(product(range(2 * radius + 1), repeat=3)):
                part, box = gradient[:, number : number + 1, planes], _shifted(shift, planes, fixed.shape)
                of_fixed[:, :, planes].addcmul_(part, padded[box])
                of_padded[box].addcmul_(part, fixed[:, :, planes])
        inner = (..., *(slice(radius, -radius),) * 3)
        return of_fixed, of_padded[inner], None


def _planes(features: Tensor) -> Iterator[slice]:
    """Parts of features along z: what fits the cache of a CPU; everything at once on other devices."""
    depth = features.shape[2]
    step = depth
    if features.device.type == "cpu":
        step = max(1, CACHED_PRODUCTS * depth // features.numel())
    return (slice(start, min(start + step, depth)) for start in range(0, depth, step))


def _shifted(shift: Sequence[int], planes: slice, shape: torch.Size) -> tuple:
    """The part of the padded features under a shift that belongs to some planes of features of a shape."""
    along_z, *others = shift
    rows = (slice(start, start + count) for start, count in zip(others, shape[3:], strict=True))
    return (..., slice(planes.start + along_z, planes.stop + along_z), *rows)
