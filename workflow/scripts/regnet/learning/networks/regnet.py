"""RegNet and its two variants: one fully convolutional definition for single patches and for whole volumes.

The network sees a cubic *window* of the fixed and of the moving image and predicts displacements at k points per axis. A window
for k outputs has ``52 + 2 k`` voxels a side. Output i of an axis belongs to the point ``26.5 + 2 i`` in voxels of the window:
half-way between two voxels, because pooling and downsampling both work on pairs. With k = 1 these are the chapter's patches:
the 54^3 window, averaged in pairs to 27^3, and its central 29^3 at original resolution (section 2.2.1).
"""

from collections.abc import Iterator
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.nn import functional

from regnet.errors import ConfigError
from regnet.learning.networks.interface import Network
from regnet.learning.optimizers import Optimization
from regnet.synthesis.samples import OUTPUT_STRIDE, window_size

VARIANTS = ("regnet", "regnet_1scale", "regnet_early")
"""Names of the network and of the variants it is compared with: original resolution only, and early fusion."""

FIRST_OUTPUT = 26.5
"""Position of the first output on each axis, in voxels of the window."""

ORIGINAL_MARGIN = (13, 12)
"""Voxels of the window before and behind the patch at original resolution: 54 = 13 + 29 + 12."""


def _convolutions(*widths: int, kernel: int = 3) -> nn.Sequential:
    """Valid convolutions between the given numbers of feature maps, each with batch normalization and ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv3d(inputs, outputs, kernel, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class _Scale(nn.Module):
    """The layers of one resolution: streams for fixed and moving (one each, or one for both), and the layers that merge them.

    Parameters
    ----------
    stream
        Feature maps of the layers of each stream. It starts with 1 for late fusion (a stream for each image), with 2 for
        early fusion (one stream for both).
    merged
        Feature maps of the layers after the streams are concatenated.
    """

    def __init__(self, stream: tuple[int, ...], merged: tuple[int, ...]) -> None:
        super().__init__()
        self.early = stream[0] == 2
        self.streams = nn.ModuleList(_convolutions(*stream) for _ in range(1 if self.early else 2))
        self.merged = _convolutions(len(self.streams) * stream[-1], *merged)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        inputs = [torch.cat([fixed, moving], dim=1)] if self.early else [fixed, moving]
        return self.merged(torch.cat([stream(image) for stream, image in zip(self.streams, inputs, strict=True)], dim=1))


class RegNet(Network):
    """The multi-scale network of section 2.2.1 of the chapter, or one of the variants of its Table 2.1.

    Feature maps are those of the author's public implementation (903,961 parameters). The variants are widened where they lack
    layers, so that all three have about the same number of parameters.

    Parameters
    ----------
    variant
        One of `VARIANTS`.

    Raises
    ------
    ConfigError
        If there is no such variant.
    """

    reach = 27
    first_output = 0.5
    any_spacing = False
    memory_format = torch.channels_last_3d
    optimization = Optimization()

    def __init__(self, variant: str = "regnet") -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ConfigError(f"network variant: found {variant!r}, expected one of {', '.join(VARIANTS)}")
        self.variant = variant
        self.low: _Scale | None
        if variant == "regnet":
            self.original = _Scale((1, 16, 16, 16), (25, 30))
            self.low = _Scale((1, 16, 16, 16), (25, 25, 25, 30, 30, 30))
            joint = (60, 60, 70, 75, 150)
        elif variant == "regnet_early":
            self.original = _Scale((2, 25, 25, 25), (25, 30))
            self.low = _Scale((2, 25, 25, 25), (25, 25, 25, 30, 30, 30))
            joint = (60, 60, 70, 75, 150)
        else:
            self.original = _Scale((1, 16, 16, 16), (40, 60))
            self.low = None
            joint = (60, 70, 80, 80, 150)
        self.joint = nn.Sequential(_convolutions(*joint), _convolutions(150, 150, kernel=1), nn.Conv3d(150, 3, 1))

    def inner_kernels(self) -> Iterator[nn.Parameter]:
        """As in `Network`."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module.in_channels > 2 and module.bias is None:
                yield module.weight

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """Predict displacements at every second voxel of a window.

        Parameters
        ----------
        fixed, moving
            Normalized intensities, shape ``(n, 1, z, y, x)``, each side ``52 + 2 k`` voxels.

        Returns
        -------
        torch.Tensor
            Displacements in voxels, shape ``(n, 3, k, k, k)``, components x, y, z first, then z, y, x; from the fixed point to
            the corresponding moving one.
        """
        return self._outputs(self._original_features(fixed, moving), fixed, moving)

    def every_voxel(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """Predict displacements at every voxel of a window: `forward` for its eight shifts by 0 or 1 voxel per axis.

        The layers at original resolution give the same for all eight and run once. Pooling, downsampling and all layers after
        them run eight times.

        Parameters
        ----------
        fixed, moving
            Normalized intensities, shape ``(n, 1, z, y, x)``, each side ``53 + 2 k`` voxels.

        Returns
        -------
        torch.Tensor
            As from `forward`, but shape ``(n, 3, 2 k, 2 k, 2 k)``: output i of an axis belongs to the point ``26.5 + i`` in
            voxels of the window.
        """
        features = self._original_features(fixed, moving)
        counts = [side - window_size(0) - 1 for side in fixed.shape[2:]]
        outputs = fixed.new_empty(len(fixed), 3, *counts)
        for shifts in product(range(OUTPUT_STRIDE), repeat=3):
            shifted = [
                tensor[:, :, *(slice(shift, side - 1 + shift) for shift, side in zip(shifts, tensor.shape[2:], strict=True))]
                for tensor in (features, fixed, moving)
            ]
            outputs[:, :, *(slice(shift, None, OUTPUT_STRIDE) for shift in shifts)] = self._outputs(*shifted)
        return outputs

    def responding_features(self, fixed: Tensor, moving: Tensor) -> dict[str, tuple[int, int]]:
        """Count the feature maps of each resolution that are above 0 anywhere in some windows.

        A resolution whose features are 0 everywhere tells the joint layers nothing, and its layers get no gradient any more.

        Parameters
        ----------
        fixed, moving
            As in `forward`.

        Returns
        -------
        dict
            How many respond, and how many there are, by ``"original"`` and, where the variant has it, ``"low"``.
        """
        features = {"original": self._original_features(fixed, moving)}
        if self.low is not None:
            features["low"] = self._low_features(fixed, moving)
        return {name: (int((maps.amax((0, 2, 3, 4)) > 0).sum()), maps.shape[1]) for name, maps in features.items()}

    def _original_features(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """The features of a window at original resolution, before they are pooled."""
        before, behind = ORIGINAL_MARGIN
        crop = (slice(None), slice(None), *(slice(before, side - behind) for side in fixed.shape[2:]))
        return self.original(fixed[crop], moving[crop])

    def _low_features(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """The features of a window at low resolution, in a variant that has it."""
        assert self.low is not None
        return self.low(functional.avg_pool3d(fixed, 2), functional.avg_pool3d(moving, 2))

    def _outputs(self, features: Tensor, fixed: Tensor, moving: Tensor) -> Tensor:
        """The outputs of a window, given its features at original resolution."""
        features = functional.max_pool3d(features, 2)
        if self.low is not None:
            features = torch.cat([features, self._low_features(fixed, moving)], dim=1)
        return self.joint(features)
