"""Synthetic pairs that are made while a network trains, on the network's device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regnet.conventions import AIR_HU
from regnet.learning.batches import Batch, DeviceVolumes
from regnet.synthesis.appearance import Appearance, change, source_of_pair
from regnet.synthesis.random_fields import RandomField, draw_field, warp_volume
from regnet.synthesis.samples import HU_PER_UNIT, SamplePool, normalize, output_points

FIXED, MOVING = 0, 1
"""Numbers of the volumes of a pair."""

INVERSION_STEPS = 20
"""Iterations that take a lung point of the moving image back to the fixed one; each at least halves the remaining error."""


@dataclass(frozen=True)
class FreshPair:
    """A synthetic pair on the device.

    Attributes
    ----------
    volumes
        The fixed image and the moving one, ``(z, y, x)``, int16 HU.
    field
        From fixed to moving.
    centres
        Voxels in the lungs of the fixed image, ``(n, 3)``, x, y, z.
    """

    volumes: DeviceVolumes
    field: RandomField
    centres: np.ndarray


class FreshPairs:
    """Blocks from synthetic pairs that are made during training: ``training.fresh`` at a time, each renewed once per epoch.

    A pair is a moving volume of the training images, mirrored if flips are on, and a new random field that does not fold.
    Every draw follows from the seed and a running number, so that the state is a single number.

    Parameters
    ----------
    pool
        The samples of the pairs on disk. They tell where the lungs lie in the moving volumes.
    settings
        The config's ``training``: ``fresh``, ``batch``, ``flips`` and ``noise_sd`` (HU) are used.
    synthesis
        The config's ``synthesis``; ``sliding``, which needs lung masks, is left out.
    spacing
        Spacing of the volumes, isotropic, in mm.
    steps_per_epoch
        Batches after which every pair has been renewed.
    seed
        Determines all that is drawn.
    device
        Where pairs are made and kept.
    """

    def __init__(
        self,
        pool: SamplePool,
        settings: Mapping[str, Any],
        synthesis: Mapping[str, Any],
        *,
        spacing: float,
        steps_per_epoch: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.pool = pool
        self.volumes = [pool.volumes[number] for number in pool.moving]
        self.settings = settings
        self.synthesis = synthesis
        self.spacing = spacing
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.device = device
        self.appearance = Appearance.of(synthesis["appearance"])
        self.drawn = 0
        self.pairs: dict[int, FreshPair] = {}
        # Samples lie in the lungs of the fixed image; the points that they are displaced to lie in those of the moving image.
        self.lungs = [
            pool.centres[chosen] + pool.displacements[chosen].mean(axis=(1, 2, 3))
            for chosen in (pool.pair == number for number in range(len(self.volumes)))
        ]

    def state_dict(self) -> dict[str, int]:
        """How many batches were drawn; everything else follows from it."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.drawn = state["drawn"]

    def batch(self) -> Batch:
        """The next windows of fixed and moving images, and the displacements at their outputs, on the device."""
        self._renew()
        rng = np.random.default_rng([self.seed, 1, self.drawn])
        self.drawn += 1
        parts = []
        numbers, counts = np.unique(rng.choice(list(self.pairs), self.settings["batch"]), return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            pair = self.pairs[number]
            centres = pair.centres[rng.integers(len(pair.centres), size=count)]
            points = torch.from_numpy(output_points(centres, self.pool.block) * self.spacing).to(self.device)
            targets = (pair.field.at(points.flatten(0, -2)) / self.spacing).view(points.shape).movedim(-1, 1)
            fixed, moving = (self._windows(pair, image, centres) for image in (FIXED, MOVING))
            parts.append((fixed, moving, targets.float()))
        fixed, moving, target = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        noise = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        for window in (fixed, moving):
            deviates = torch.randn(window.shape, generator=noise, device=self.device)
            window.add_(deviates, alpha=self.settings["noise_sd"] / HU_PER_UNIT)
        return fixed, moving, target

    def _renew(self) -> None:
        """Make the pairs of the next batch: a range of running numbers from which one leaves when the next one enters."""
        count = self.settings["fresh"]
        first = self.drawn * count // self.steps_per_epoch
        wanted = range(first, first + count)
        self.pairs = {number: pair for number, pair in self.pairs.items() if number in wanted}
        for number in wanted:
            if number not in self.pairs:
                self.pairs[number] = self._pair(number)

    def _pair(self, number: int) -> FreshPair:
        rng = np.random.default_rng([self.seed, 0, number])
        source = int(rng.integers(len(self.volumes)))
        settings = list(self.synthesis["frequencies"].values())[number % len(self.synthesis["frequencies"])]
        moving = torch.from_numpy(np.array(self.volumes[source])).to(self.device)
        lungs = self.lungs[source]
        size = np.array(moving.shape[::-1])
        if self.settings["flips"]:
            mirrored = rng.integers(0, 2, 3).astype(bool)
            moving = moving.flip([2 - axis for axis in np.flatnonzero(mirrored).tolist()])
            lungs = np.where(mirrored, size - 1 - lungs, lungs)
        spacing = (self.spacing,) * 3
        border = self.synthesis["border"]
        field = draw_field(tuple(size.tolist()), spacing, **settings, border=border, rng=rng, device=self.device)
        if self.appearance:
            moving = self._changed(source_of_pair, moving, rng)
        warped = warp_volume(moving, field, spacing)
        noise = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        deviates = torch.randn(warped.shape, generator=noise, device=self.device)
        warped.add_(deviates, alpha=self.synthesis["noise_sd"])
        if self.appearance:
            warped, moving = (self._changed(change, image, rng, self.appearance) for image in (warped, moving))
        fixed, moving = (image.round().clamp(AIR_HU, 32767).to(torch.int16) for image in (warped, moving))
        return FreshPair(DeviceVolumes([fixed, moving], self.device), field, self._in_fixed(lungs, field, size))

    def _changed(self, function: Callable[..., Tensor], volume: Tensor, rng: np.random.Generator, *arguments: Any) -> Tensor:
        """A volume after a function of `regnet.synthesis.appearance`, which works on the CPU; float32."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return function(volume.cpu().float()[None, None], *arguments, generator)[0, 0].to(self.device)

    def _in_fixed(self, lungs: np.ndarray, field: RandomField, size: np.ndarray) -> np.ndarray:
        """The voxels x of the fixed image that show the voxels y, ``(n, 3)``, of the moving one: solves ``x + u(x) = y``."""
        moving_points = torch.from_numpy(lungs * self.spacing).to(self.device)
        fixed_points = moving_points
        for _ in range(INVERSION_STEPS):
            fixed_points = moving_points - field.at(fixed_points)
        return np.clip((fixed_points / self.spacing).round().long().cpu().numpy(), 0, size - 1)

    def _windows(self, pair: FreshPair, image: int, centres: np.ndarray) -> Tensor:
        """Normalized windows ``(n, 1, z, y, x)``, float32, which continue the border value outside the volume."""
        windows = pair.volumes.windows(np.full(len(centres), image), centres, self.pool.block)
        return normalize(windows[:, None].float(), self.pool.window)
