"""Training samples: where the windows of the network are, what it should answer there, and cutting them from volumes.

A sample is a *block*: k neighbouring outputs per axis that share one window (k = 1 is the chapter's patch). Samples are kept
as centres and target displacements; windows are cut from memory-mapped int16 volumes when a batch needs them. Only numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regnet.errors import InputError
from regnet.files import whole_file

WINDOW_BEFORE = 26
"""Voxels from the first voxel of a window to the centre of its block, less k."""


def output_points(centres: np.ndarray, block: int) -> np.ndarray:
    """The points that the outputs of blocks belong to.

    With k = 1 that is half a voxel before the centre on each axis; see `regnet.network`.

    Parameters
    ----------
    centres
        Voxel indices ``(n, 3)``, x, y, z.
    block
        Outputs per axis, k.

    Returns
    -------
    numpy.ndarray
        Continuous voxel indices, shape ``(n, k, k, k, 3)``: blocks along z, y, x, components x, y, z.
    """
    steps = 2.0 * np.arange(block) + 0.5 - block
    z, y, x = np.meshgrid(steps, steps, steps, indexing="ij")
    return np.asarray(centres)[:, None, None, None, :] + np.stack([x, y, z], axis=-1)


def sample_centres(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw block centres at random from the voxels of a mask ``(z, y, x)``: indices ``(count, 3)``, x, y, z, int32.

    Raises
    ------
    InputError
        If the mask is empty.
    """
    inside = np.flatnonzero(mask)
    if not len(inside):
        raise InputError("the lung mask is empty, expected voxels to sample patches from")
    chosen = np.unravel_index(rng.choice(inside, count, replace=count > len(inside)), mask.shape)
    return np.stack(chosen[::-1], axis=-1).astype(np.int32)


@dataclass(frozen=True)
class Samples:
    """The samples of one synthetic pair.

    Attributes
    ----------
    centres
        Voxel indices of the block centres in the fixed image, shape ``(n, 3)``, x, y, z.
    displacements
        Target displacements at `output_points`, shape ``(n, k, k, k, 3)``, components along the axes x, y, z of the voxel grid,
        in voxels.
    """

    centres: np.ndarray
    displacements: np.ndarray

    def save(self, path: str | Path) -> None:
        """Write the samples as an ``.npz`` file."""
        with whole_file(path) as partial:
            np.savez(partial, centres=self.centres, displacements=self.displacements)

    @classmethod
    def load(cls, path: str | Path) -> "Samples":
        """Read samples that `save` wrote.

        Raises
        ------
        InputError
            If the file cannot be read as samples, or holds none.
        """
        try:
            with np.load(path) as stored:
                samples = cls(stored["centres"], stored["displacements"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: cannot be read as a table of samples ({error})") from error
        if not len(samples.centres):
            raise InputError(f"{path}: the table of samples is empty")
        return samples


HU_PER_UNIT = 500
"""How many HU make a difference of 1 in what the network sees."""


def normalize(intensity: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """The linear map by which HU enter the network: clipped to `window`, then 0 at its lower end."""
    lower, upper = window
    return (np.clip(intensity, lower, upper).astype(np.float32) - lower) / HU_PER_UNIT


class SamplePool:
    """The samples of several synthetic pairs, from which batches are cut.

    Parameters
    ----------
    samples
        Files that `Samples.save` wrote, one per synthetic pair; all with the same block size.
    fixed, moving
        The int16 volumes of each pair, ``.npy`` files of shape ``(z, y, x)``, HU. They are memory-mapped.
    window
        Lowest and highest HU that the network sees.

    Attributes
    ----------
    moving
        The moving volume of each pair.

    Raises
    ------
    InputError
        If a file cannot be read, there are no samples, or the blocks differ in size.
    """

    def __init__(
        self,
        samples: Sequence[str | Path],
        fixed: Sequence[str | Path],
        moving: Sequence[str | Path],
        window: tuple[float, float],
    ) -> None:
        if not samples:
            raise InputError("no synthetic pairs to take samples from")
        tables = [Samples.load(path) for path in samples]
        self.block = tables[0].displacements.shape[1]
        for path, table in zip(samples, tables, strict=True):
            if table.displacements.shape[1] != self.block:
                raise InputError(f"{path}: blocks of {table.displacements.shape[1]}, expected {self.block} as in {samples[0]}")
        self.pair = np.repeat(np.arange(len(tables)), [len(table.centres) for table in tables])
        self.centres = np.concatenate([table.centres for table in tables])
        self.displacements = np.concatenate([table.displacements for table in tables])
        self.window = window
        opened = {path: np.load(path, mmap_mode="r") for path in {*fixed, *moving}}
        self._fixed = [opened[path] for path in fixed]
        self.moving = [opened[path] for path in moving]

    def __len__(self) -> int:
        return len(self.centres)

    def cut(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cut the windows of the samples with the given numbers, which continue the border value outside the volumes.

        Returns
        -------
        fixed, moving : numpy.ndarray
            Normalized windows, shape ``(n, 1, z, y, x)``, ``52 + 2 k`` voxels a side, float32.
        displacements : numpy.ndarray
            Targets in voxels, shape ``(n, 3, k, k, k)``: components x, y, z first, float32.
        """
        pairs, centres = self.pair[chosen], self.centres[chosen]
        fixed = self._windows(self._fixed, pairs, centres)
        moving = self._windows(self.moving, pairs, centres)
        targets = np.moveaxis(self.displacements[chosen], -1, 1)
        return normalize(fixed, self.window), normalize(moving, self.window), targets.astype(np.float32)

    def _windows(self, volumes: Sequence[np.ndarray], pairs: np.ndarray, centres: np.ndarray) -> np.ndarray:
        side = 2 * (WINDOW_BEFORE + self.block)
        windows = np.empty((len(pairs), 1, side, side, side), np.int16)
        for window, pair, centre in zip(windows, pairs, centres, strict=True):
            volume = volumes[pair]
            first = centre[::-1] - WINDOW_BEFORE - self.block
            index = [np.clip(start + np.arange(side), 0, size - 1) for start, size in zip(first, volume.shape, strict=True)]
            window[0] = volume[np.ix_(*index)]
        return windows
