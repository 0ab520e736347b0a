"""Training samples: where the network's windows are, which displacements it should predict there, and how windows are cut.

A sample is a *block*: k neighbouring outputs per axis that share one window (k = 1 is the chapter's patch). Samples are stored
as centres and target displacements; windows are cut from memory-mapped int16 volumes when a batch needs them. Imports numpy
only.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib import format as npy
from numpy.lib.stride_tricks import sliding_window_view

from regnet.errors import InputError
from regnet.system.files import NPZ_ERRORS, whole_file

if TYPE_CHECKING:
    from torch import Tensor

WINDOW_MARGIN = 26
"""Voxels of a window on each side of its block, which is 2 k voxels wide."""

OUTPUT_STRIDE = 2
"""Distance between neighbouring outputs, in voxels."""


def window_size(block: int) -> int:
    """Side, in voxels, of the window from which the network predicts `block` outputs per axis."""
    return 2 * WINDOW_MARGIN + OUTPUT_STRIDE * block


def output_points(centres: np.ndarray, block: int) -> np.ndarray:
    """The points whose displacements the outputs of blocks are.

    With k = 1, the point is half a voxel before the centre on each axis; see `regnet.learning.networks.regnet`.

    Parameters
    ----------
    centres
        Voxel indices ``(n, 3)``, x, y, z.
    block
        Outputs per axis, k.

    Returns
    -------
    numpy.ndarray
        Continuous voxel indices, shape ``(n, k, k, k, 3)``: outputs along z, y, x, components x, y, z.
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
            with open(path, "rb") as file, np.load(file) as stored:
                samples = cls(stored["centres"], stored["displacements"])
        except NPZ_ERRORS as error:
            raise InputError(f"{path}: cannot be read as a table of samples ({error})") from error
        if not len(samples.centres):
            raise InputError(f"{path}: the table of samples is empty")
        return samples


HU_PER_UNIT = 500
"""HU per unit of network input."""


def normalize(intensity: "Tensor", window: tuple[float, float]) -> "Tensor":
    """Turn HU, float32, into network input: clip to `window`, shift its lower end to 0, divide by `HU_PER_UNIT`.

    `intensity` is changed and returned: a copy of a window would count in the memory of a prediction.
    """
    lower, upper = window
    return intensity.clamp_(lower, upper).sub_(lower).div_(HU_PER_UNIT)


def save_volume(volume: np.ndarray, path: str | Path) -> None:
    """Write a volume ``(z, y, x)`` as an ``.npy`` file, for `MappedVolumes`; never leaves half a file.

    Raises
    ------
    OutputError
        If it cannot be written, for example because the disk is full.
    """
    with whole_file(path) as partial, open(partial, "wb") as file:
        # Not np.save, which does not report a full disk if only the last kilobytes do not fit.
        npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(volume))
        file.write(np.ascontiguousarray(volume).data)


class MappedVolumes:
    """Volumes in memory-mapped files, from which windows are cut.

    The pages that were read from a file count as memory of the process while they are mapped: 8.3 GiB for the chapter's
    cohort. So volumes are read one after the other, and each is released before the next.

    Parameters
    ----------
    paths
        int16 volumes ``(z, y, x)``, HU, as ``.npy`` files.

    Raises
    ------
    InputError
        If a file is not such a volume.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self._volumes = [_open_volume(path) for path in paths]

    def __len__(self) -> int:
        return len(self._volumes)

    def __getitem__(self, number: int) -> np.ndarray:
        return self._volumes[number]

    def __iter__(self) -> Iterator[np.ndarray]:
        for volume in self._volumes:
            yield volume
            _release(volume)

    def windows(self, numbers: np.ndarray, centres: np.ndarray, block: int) -> np.ndarray:
        """Cut windows.

        Parameters
        ----------
        numbers
            Which volume each window is from, shape ``(n,)``.
        centres
            Voxel indices of the block centres, shape ``(n, 3)``, x, y, z.
        block
            Outputs per axis, k.

        Returns
        -------
        numpy.ndarray
            HU, int16, shape ``(n, z, y, x)``, `window_size` voxels along each axis; outside the volumes their border values
            continue.
        """
        side = window_size(block)
        first = np.asarray(centres, np.int64)[:, ::-1] - side // 2
        windows = np.empty((len(centres), side, side, side), np.int16)
        for number in np.unique(numbers):
            chosen = np.flatnonzero(numbers == number)
            volume = self._volumes[number]
            indices = first[chosen, :, None] + np.arange(side)
            z, y, x = (np.clip(indices[:, axis], 0, size - 1) for axis, size in enumerate(volume.shape))
            # Whole rows are copied; voxel by voxel only where a row leaves the volume.
            whole = x[:, -1] - x[:, 0] == side - 1
            if whole.any():
                rows = sliding_window_view(volume, side, axis=2)
                windows[chosen[whole]] = rows[z[whole, :, None], y[whole, None, :], x[whole, :1, None]]
            part = ~whole
            windows[chosen[part]] = volume[z[part, :, None, None], y[part, None, :, None], x[part, None, None, :]]
            _release(volume)
        return windows


def _release(volume: np.memmap) -> None:
    """Take the pages of a volume out of this process's memory; they stay in the system's file cache and can be mapped again."""
    assert isinstance(volume.base, mmap.mmap)
    volume.base.madvise(mmap.MADV_DONTNEED)


def _open_volume(path: str | Path) -> np.memmap:
    try:
        # Copy on write protects the file like read-only, but torch takes no read-only arrays.
        volume = npy.open_memmap(path, mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a volume ({error})") from error
    if volume.dtype != np.int16 or volume.ndim != 3:
        raise InputError(f"{path}: found {volume.dtype} of shape {volume.shape}, expected an int16 volume (z, y, x)")
    return volume


class SamplePool:
    """The samples of several synthetic pairs and the volumes of these; `regnet.learning.batches` makes batches from it.

    Parameters
    ----------
    samples
        Files that `Samples.save` wrote, one per synthetic pair; all with the same block size.
    fixed, moving
        The volumes of each pair, files for `MappedVolumes`. Each file is opened once, even if several pairs share it.
    window
        Lowest and highest HU of the network's input (`normalize`).

    Attributes
    ----------
    block
        Outputs per axis of all samples, k.
    pair
        The pair of each sample, counted from 0, shape ``(n,)``.
    centres, displacements
        As in `Samples`, for one pair after the other.
    volumes
        The volumes of all pairs.
    fixed, moving
        Indices into `volumes` of the fixed and the moving volume of each pair, shape ``(pairs,)``.

    Raises
    ------
    InputError
        If a file cannot be read, there are no samples, the blocks differ in size, or so do the volumes of a pair.
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
                size = table.displacements.shape[1]
                raise InputError(f"{path}: found blocks of {size}, expected {self.block} as in {samples[0]}")
        paths = list(dict.fromkeys([*fixed, *moving]))
        self.volumes = MappedVolumes(paths)
        self.fixed = np.array([paths.index(path) for path in fixed])
        self.moving = np.array([paths.index(path) for path in moving])
        for number, (fixed_path, moving_path) in enumerate(zip(fixed, moving, strict=True)):
            expected, found = (self.volumes[indices[number]].shape for indices in (self.fixed, self.moving))
            if found != expected:
                raise InputError(f"{moving_path}: found shape {found}, expected {expected} as in {fixed_path}")
        self.pair = np.repeat(np.arange(len(tables)), [len(table.centres) for table in tables])
        self.centres = np.concatenate([table.centres for table in tables])
        self.displacements = np.concatenate([table.displacements for table in tables])
        self.window = window

    def __len__(self) -> int:
        return len(self.centres)
