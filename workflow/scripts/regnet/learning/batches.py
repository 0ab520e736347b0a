"""Feeding the network: the samples of a pool in batches, on the network's device."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from regnet.synthesis.samples import HU_PER_UNIT, MappedVolumes, SamplePool, normalize, window_size

log = logging.getLogger(__name__)

DEVICE_SHARE = 0.5
"""How much of a GPU's free memory the volumes may take; the rest is for the network."""

CPU_CHUNK = 8
"""Samples that the CPU cuts and augments at a time: they fit its cache, which is twice as fast as a whole batch at once."""

NOISE_VALUES = 2**24
"""Length of the noise table: a hundred windows of 54^3."""

Batch = tuple[Tensor, Tensor, Tensor]


class DeviceVolumes:
    """Volumes in the memory of a device, from which windows are gathered there.

    Parameters
    ----------
    volumes
        HU, int16, ``(z, y, x)``.
    device
        Where to keep them.
    """

    def __init__(self, volumes: MappedVolumes | Sequence[np.ndarray | Tensor], device: torch.device | str) -> None:
        shapes = torch.tensor([volume.shape for volume in volumes])
        ends = shapes.prod(dim=1).cumsum(0)
        self.voxels = torch.empty(int(ends[-1]), dtype=torch.int16, device=device)
        for volume, voxels in zip(volumes, self.voxels.split(shapes.prod(dim=1).tolist()), strict=True):
            voxels.copy_(torch.as_tensor(volume).flatten())
        self.shapes = shapes.to(device)
        self.starts = (ends - shapes.prod(dim=1)).to(device)

    def windows(self, numbers: np.ndarray, centres: np.ndarray, block: int) -> Tensor:
        """Cut windows, as `regnet.synthesis.samples.MappedVolumes.windows`."""
        device = self.voxels.device
        side = window_size(block)
        # Do not block: the GPU is still busy with the previous step.
        chosen = torch.from_numpy(numbers).to(device, non_blocking=True)
        first = torch.from_numpy(centres).to(device, non_blocking=True).long().flip(1) - side // 2
        shapes = self.shapes[chosen]
        indices = (first[:, :, None] + torch.arange(side, device=device)).clamp(min=0).minimum(shapes[:, :, None] - 1)
        z, y, x = indices.unbind(dim=1)
        y = y * shapes[:, 2:]
        z = z * shapes[:, 2:] * shapes[:, 1:2] + self.starts[chosen, None]
        return self.voxels[z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]]


class Feed:
    """The samples of a pool as batches on a device.

    On a GPU, volumes that fit into `DEVICE_SHARE` of its free memory are kept there. Otherwise windows are cut from the mapped
    files and copied, as int16. The windows are the same either way.

    Parameters
    ----------
    pool
        The samples.
    device
        Where the network is.
    """

    def __init__(self, pool: SamplePool, device: torch.device | str = "cpu") -> None:
        self.pool = pool
        self.device = torch.device(device)
        self._volumes: MappedVolumes | DeviceVolumes = pool.volumes
        if self.device.type == "cuda":
            needed, free = sum(volume.nbytes for volume in pool.volumes), torch.cuda.mem_get_info(self.device)[0]
            fits = needed <= DEVICE_SHARE * free
            outcome = "copied to the GPU" if fits else "left in their files and not copied to the GPU"
            log.info("volumes of %.1f GiB are %s, which has %.1f GiB free", needed / 2**30, outcome, free / 2**30)
            if fits:
                self._volumes = DeviceVolumes(pool.volumes, self.device)

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def reads_files(self) -> bool:
        """Whether the CPU cuts windows from files for a network on another device."""
        return self.device.type != "cpu" and self._volumes is self.pool.volumes

    def windows(self, chosen: np.ndarray) -> Batch:
        """Cut the windows of the samples with the given numbers, as they are stored.

        Returns
        -------
        fixed, moving : torch.Tensor
            HU, int16, shape ``(n, 1, z, y, x)``, ``52 + 2 k`` voxels a side.
        displacements : torch.Tensor
            Targets in voxels, float32, shape ``(n, 3, k, k, k)``: components x, y, z first.
        """
        pairs, centres, block = self.pool.pair[chosen], self.pool.centres[chosen], self.pool.block
        fixed, moving = (
            torch.as_tensor(self._volumes.windows(numbers[pairs], centres, block), device=self.device).unsqueeze(1)
            for numbers in (self.pool.fixed, self.pool.moving)
        )
        targets = torch.from_numpy(self.pool.displacements[chosen]).movedim(-1, 1)
        return fixed, moving, targets.to(self.device, torch.float32, non_blocking=True)

    def cut(self, chosen: np.ndarray, augment: Callable[[Batch, slice], Batch] | None = None) -> Batch:
        """Cut the samples with the given numbers as the network sees them: as `windows` does, but normalized, float32.

        `augment` is called for one part of the batch after the other, with its normalized samples and its slice of the batch.
        """
        batch: list[Tensor] = []
        chunk = CPU_CHUNK if self.device.type == "cpu" else len(chosen)
        for start in range(0, len(chosen), chunk):
            part = slice(start, start + chunk)
            fixed, moving, targets = self.windows(chosen[part])
            samples = normalize(fixed.float(), self.pool.window), normalize(moving.float(), self.pool.window), targets
            if augment is not None:
                samples = augment(samples, part)
            if not batch:
                batch = [tensor.new_empty(len(chosen), *tensor.shape[1:]) for tensor in samples]
            for whole, tensor in zip(batch, samples, strict=True):
                whole[part] = tensor
        fixed, moving, targets = batch
        return fixed, moving, targets


class Noise:
    """Gaussian noise for windows: sections of one long table of random numbers, starting at random offsets.

    Drawing new numbers for every voxel would take longer than all other steps of feeding together. Within a window the values
    are independent; two windows may hold the same values at different voxels.

    Parameters
    ----------
    sd
        Standard deviation.
    rng
        Source of the table.
    device
        Where the windows are.
    """

    def __init__(self, sd: float, rng: np.random.Generator, device: torch.device | str) -> None:
        self.table = torch.from_numpy(sd * rng.standard_normal(NOISE_VALUES, np.float32)).to(device)

    def add_to(self, windows: Tensor, offsets: np.ndarray) -> None:
        """Add noise to windows ``(n, 1, z, y, x)`` in place: the sections that begin at `offsets`, ``(n,)``, of the table."""
        sections = self.table.unfold(0, windows[0].numel(), 1)
        windows += sections[torch.from_numpy(offsets).to(windows.device, non_blocking=True)].view_as(windows)


class BatchSource(Protocol):
    """A source of batches. Its state determines all batches that follow."""

    def batch(self) -> tuple[Tensor, ...]:
        """The next fixed and moving images, the displacements at their outputs, and what else the objective takes."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""


class Prefetch:
    """The batches of a source, each made in the background while the previous one is in use, so that no GPU waits for files.

    The state is that of the source right after the last batch handed out: the batch that is being prepared does not count.

    Parameters
    ----------
    source
        The source; nothing else may use it.
    """

    def __init__(self, source: BatchSource) -> None:
        self.source = source
        self._state = source.state_dict()
        self._worker = ThreadPoolExecutor(1)
        self._waiting = self._worker.submit(self._make)

    def _make(self) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        return self.source.batch(), self.source.state_dict()

    def batch(self) -> tuple[Tensor, ...]:
        """The next batch."""
        batch, self._state = self._waiting.result()
        self._waiting = self._worker.submit(self._make)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The state after the last batch that was handed out."""
        return self._state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self._waiting.result()
        self.source.load_state_dict(state)
        self._state = dict(state)
        self._waiting = self._worker.submit(self._make)


def flip(batch: Batch, axes: tuple[int, ...]) -> Batch:
    """Mirror windows and targets along some of the axes x = 0, y = 1, z = 2; the displacement along them changes sign."""
    if not axes:
        return batch
    dims = [4 - axis for axis in axes]
    sign = torch.ones(3, device=batch[2].device)
    sign[list(axes)] = -1
    fixed, moving, target = (tensor.flip(dims) for tensor in batch)
    return fixed, moving, target * sign.view(1, 3, 1, 1, 1)


class SyntheticPairs:
    """Blocks from the synthetic pairs of a cohort, each drawn once before any is drawn again, mirrored and with noise.

    Parameters
    ----------
    feed
        The samples.
    settings
        The config's ``training``: ``batch``, ``flips`` and ``noise_sd`` (HU) are used.
    rng
        Source of all random numbers, whatever the device: the order, the mirroring and the noise.
    """

    def __init__(self, feed: Feed, settings: Mapping[str, Any], rng: np.random.Generator) -> None:
        self.feed = feed
        self.settings = settings
        self.rng = rng
        self.order = np.empty(0, int)
        self.noise = Noise(settings["noise_sd"] / HU_PER_UNIT, rng, feed.device)

    def batch(self) -> Batch:
        """The next windows of fixed and moving images, and the displacements at their outputs."""
        count = self.settings["batch"]
        while len(self.order) < count:
            self.order = np.concatenate([self.order, self.rng.permutation(len(self.feed))])
        chosen, self.order = self.order[:count], self.order[count:]
        # Sorted, samples of the same pair follow each other and read the same volumes; the order in a batch does not matter.
        chosen = np.sort(chosen)
        axes = tuple(np.flatnonzero(self.rng.integers(0, 2, 3)).tolist()) if self.settings["flips"] else ()
        offsets = self.rng.integers(0, NOISE_VALUES - window_size(self.feed.pool.block) ** 3, (2, count))

        def augment(batch: Batch, part: slice) -> Batch:
            fixed, moving, target = flip(batch, axes)
            self.noise.add_to(fixed, offsets[0, part])
            self.noise.add_to(moving, offsets[1, part])
            return fixed, moving, target

        return self.feed.cut(chosen, augment)

    def state_dict(self) -> dict[str, Any]:
        """The state of the generator, and the order of the samples still to be drawn."""
        return {"generator": json.dumps(self.rng.bit_generator.state), "order": torch.from_numpy(self.order)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `state_dict` returned for a pool of the same samples."""
        self.rng.bit_generator.state = json.loads(state["generator"])
        self.order = state["order"].numpy()
