"""Training pairs for networks that answer everywhere: crops of CT volumes, warped and changed while the network trains.

Both images of a pair are resampled from one volume, the fixed one under a random displacement field, so that neither is the
original; then each is changed on its own (`regnet.synthesis.appearance`). The network learns to match on procedural textures
first, which come from the same source. Only torch and numpy; lengths are in voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regnet.synthesis.appearance import SOFTER, Appearance, blurred, change, smooth_field, uniform

SIDE = 65
"""Voxels along each axis of a crop: ``8 k + 1``, as levels of a pyramid coincide at their corners."""

TEXTURE_SIGMAS = (1.2, 2.0, 3.2)
"""Standard deviations of the Gaussians that smooth white noise into textures."""

TEXTURE_SIDE = 190

TEXTURE_HU = (-350.0, 300.0)
"""Mean and standard deviation of a texture."""

CENTRE_RANGE = 24.0
"""The middle of a crop lies within this distance, along each axis, of the voxel of a lung that was drawn."""

PLAIN_NOISE_HU = 5.0
"""Standard deviation of the noise of pairs whose appearance is not changed: the chapter's."""


@dataclass(frozen=True)
class Volume:
    """A CT volume to cut crops from.

    Attributes
    ----------
    hu
        Shape ``(z, y, x)``, int16 or float32.
    lungs
        The same shape, not 0 inside.
    spacing
        Isotropic, in mm.
    weight
        How often crops are cut from it, relative to the other volumes.
    """

    hu: np.ndarray
    lungs: np.ndarray
    spacing: float
    weight: float = 1.0


@dataclass(frozen=True)
class Crop:
    """A pair.

    Attributes
    ----------
    fixed, moving
        HU, float32, ``(1, 1, z, y, x)``.
    displacement
        From fixed to moving, in voxels, ``(1, 3, z, y, x)``, components x, y, z first.
    lungs
        1 in the lungs of the fixed image, ``(1, 1, z, y, x)``.
    spacing
        Of the voxels, in mm.
    """

    fixed: Tensor
    moving: Tensor
    displacement: Tensor
    lungs: Tensor
    spacing: float


class _Source:
    """What crops are cut from: a volume and the same softer, its lungs, and where these are."""

    def __init__(self, hu: Tensor, lungs: Tensor, places: np.ndarray, spacing: float, window: tuple[float, float]) -> None:
        self.sharp = hu.float().clamp(*window)[None, None]
        self.soft = blurred(self.sharp, [SOFTER] * 3)
        self.lungs = lungs.float()[None, None]
        self.places = places
        self.spacing = spacing


class CropPairs:
    """An endless supply of crops.

    Parameters
    ----------
    volumes
        Of the training images.
    window
        Lowest and highest HU that the network sees.
    appearance
        How the two images of a pair are changed on their own; None for noise of `PLAIN_NOISE_HU` alone.
    sliding
        Share of the pairs in which what is not lung moves otherwise.
    generator
        Source of the random numbers, on the CPU.
    side
        Voxels along each axis of a crop.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        window: tuple[float, float],
        generator: torch.Generator,
        *,
        appearance: Appearance | None = None,
        sliding: float = 0.0,
        side: int = SIDE,
    ) -> None:
        self.generator = generator
        self.appearance = appearance
        self.sliding = sliding
        self.side = side
        self.texture_share = 0.0
        """Share of the pairs that are textures."""
        self.amplitude = 1.0
        """Factor on all displacements."""
        self.difficulty = 1.0
        """Factor on all levels of `appearance` and on `sliding`."""
        self._sources = []
        for volume in volumes:
            places = np.argwhere(volume.lungs).astype(np.int16)
            hu, lungs = torch.from_numpy(np.asarray(volume.hu, np.float32)), torch.from_numpy(volume.lungs != 0)
            self._sources.append(_Source(hu, lungs, places, volume.spacing, window))
        weights = np.array([volume.weight for volume in volumes])
        self._ends = np.cumsum(weights / weights.sum())
        self._textures = [self._texture(sigma, window) for sigma in TEXTURE_SIGMAS]
        middle = torch.arange(side) - (side - 1) / 2
        self._nodes = torch.stack(torch.meshgrid(middle, middle, middle, indexing="ij")[::-1])[None]

    def _texture(self, sigma: float, window: tuple[float, float]) -> _Source:
        noise = blurred(torch.randn(1, 1, *(TEXTURE_SIDE,) * 3, generator=self.generator), [sigma] * 3)[0, 0]
        mean, sd = TEXTURE_HU
        margin = TEXTURE_SIDE // 3
        places = np.argwhere(np.ones((8, 8, 8), bool)) * ((TEXTURE_SIDE - 2 * margin) // 7) + margin
        return _Source(mean + sd * (noise - noise.mean()) / noise.std(), torch.ones_like(noise), places, 1.0, window)

    def draw(self, number: int | None = None) -> Crop:
        """A pair; from the volume with a number, if one is given."""
        generator, nodes = self.generator, self._nodes
        source = self._sources[int(np.searchsorted(self._ends, uniform(generator, 0, 1), side="right"))]
        if number is not None:
            source = self._sources[number]
        elif uniform(generator, 0, 1) < self.texture_share:
            source = self._textures[int(uniform(generator, 0, len(self._textures)))]
        place = self._placement(source)
        displacement = self._displacement()
        sharpness = uniform(generator, 0, 1)

        def show(points: Tensor) -> Tensor:
            return torch.lerp(_sampled(source.sharp, points), _sampled(source.soft, points), sharpness)

        moving, fixed = show(place(nodes)), show(place(nodes + displacement))
        lungs = (_sampled(source.lungs, place(nodes + displacement)) > 0.5).float()
        if uniform(generator, 0, 1) < self.sliding * self.difficulty:
            further = smooth_field((self.side,) * 3, uniform(generator, 20, 40), 3, generator) * uniform(generator, 0, 6)
            points = place(nodes + displacement + further)
            outside = show(points)
            # Lung that would come to lie outside the lungs is soft tissue there.
            is_lung = _sampled(source.lungs, points) > 0.5
            outside = torch.where(is_lung, torch.full_like(outside, uniform(generator, -50, 50)), outside)
            fixed = torch.where(lungs > 0.5, fixed, outside)
        fixed, moving = (self._changed(image) for image in (fixed, moving))
        return Crop(fixed, moving, displacement, lungs, source.spacing)

    def _changed(self, image: Tensor) -> Tensor:
        if self.appearance is None:
            return image + PLAIN_NOISE_HU * torch.randn(image.shape, generator=self.generator)
        levels = {name: level * self.difficulty for name, level in vars(self.appearance).items()}
        return change(image, Appearance(**levels), self.generator)

    def _placement(self, source: _Source) -> Any:
        """A map from points of the crop, relative to its middle, to a random place of the source: turned, scaled, mirrored."""
        generator = self.generator
        place = source.places[int(uniform(generator, 0, len(source.places)))][::-1].astype(np.float32)
        matrix = (torch.eye(3) + 0.08 * torch.randn(3, 3, generator=generator)) * uniform(generator, 0.85, 1.2)
        matrix = matrix @ torch.eye(3)[torch.randperm(3, generator=generator)]
        matrix = matrix * torch.where(torch.rand(3, generator=generator) < 0.5, -1.0, 1.0)
        shift = torch.empty(1, 3, 1, 1, 1).uniform_(-CENTRE_RANGE, CENTRE_RANGE, generator=generator)
        centre = torch.from_numpy(place.copy()).view(1, 3, 1, 1, 1)
        return lambda points: torch.einsum("ij,njzyx->nizyx", matrix, points + shift) + centre

    def _displacement(self) -> Tensor:
        """A random field with a long and a short wavelength, an affine part and a shift, in voxels: ``(1, 3, z, y, x)``."""
        generator = self.generator
        long = uniform(generator, 16, 40)
        largest = min(uniform(generator, 0, 14), 0.4 * long)
        along = torch.empty(1, 3, 1, 1, 1).uniform_(0.3, 1, generator=generator)
        field = smooth_field((self.side,) * 3, long, 3, generator) * largest * along
        short = uniform(generator, 6, 13)
        field = field + smooth_field((self.side,) * 3, short, 3, generator) * uniform(generator, 0, 0.3) * short
        matrix = 0.015 * torch.randn(3, 3, generator=generator)
        field = field + torch.einsum("ij,njzyx->nizyx", matrix, self._nodes)
        return self.amplitude * (field + torch.empty(1, 3, 1, 1, 1).uniform_(-3, 3, generator=generator))


def _sampled(volume: Tensor, points: Tensor) -> Tensor:
    """A volume ``(1, 1, z, y, x)`` at points ``(1, 3, ...)``, x, y, z in voxels; trilinear, with the border continued."""
    last = torch.tensor(volume.shape[:1:-1]) - 1.0
    places = points.permute(0, 2, 3, 4, 1) * 2 / last - 1
    return functional.grid_sample(volume, places, padding_mode="border", align_corners=True)
