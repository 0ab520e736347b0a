"""Registration with RegNet after an affine registration, composed with it: one pass (section 2.3.2), or coarse to fine."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from regnet.images.transforms import compose, field_transform
from regnet.images.volumes import Grid, resample
from regnet.learning.inference import MAX_MEMORY_GIB, DenseNetwork
from regnet.learning.network import RegNet
from regnet.learning.tiles import output_lattice
from regnet.synthesis.samples import OUTPUT_STRIDE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A step of a coarse-to-fine registration.

    Attributes
    ----------
    network
        A trained network.
    window
        Lowest and highest HU that it sees.
    fixed, moving
        CT images, int16 HU; `fixed` isotropic at the spacing at which the network was trained.
    mask
        Where the field is wanted, on the grid of `fixed`, as in `predict_field`.
    """

    network: RegNet
    window: tuple[float, float]
    fixed: sitk.Image
    moving: sitk.Image
    mask: sitk.Image | None = None


def predict_field(
    network: DenseNetwork, fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image | None = None
) -> tuple[np.ndarray, Grid]:
    """Predict the displacement field between two images on the same isotropic grid.

    Parameters
    ----------
    network
        Made ready for whole volumes, with the stride of the field.
    fixed, moving
        HU.
    mask
        Not 0 where the field is wanted, on the same grid; outside, the field continues smoothly. None for the whole image.

    Returns
    -------
    field : numpy.ndarray
        Displacements from fixed to moving, shape ``(z, y, x, 3)``, physical components x, y, z in mm.
    grid : Grid
        Where they are: every second voxel, or every voxel, displaced by half a voxel.
    """
    grid = Grid.of(fixed)
    arrays = [sitk.GetArrayViewFromImage(image) for image in (fixed, moving)]
    wanted = None if mask is None else sitk.GetArrayViewFromImage(mask)
    voxels = network.predict(*arrays, spacing=grid.spacing[0], mask=wanted)
    counts, first = output_lattice(grid.shape, network.stride)
    spacing = tuple(network.stride * side for side in grid.spacing)
    lattice = Grid(counts[::-1], spacing, tuple(grid.points(np.full(3, first)).tolist()), grid.direction)
    return grid.to_physical(np.moveaxis(voxels, 0, -1) * grid.spacing), lattice


def register(
    network: RegNet,
    fixed: sitk.Image,
    moving: sitk.Image,
    initial: sitk.Transform,
    *,
    window: tuple[float, float],
    passes: int,
    device: torch.device,
    mask: sitk.Image | None = None,
    smoothing: float = 0.0,
    stride: int = OUTPUT_STRIDE,
    mirrors: int = 1,
    precision: str = "auto",
    max_memory_gib: float = MAX_MEMORY_GIB,
) -> sitk.CompositeTransform:
    """Register a pair with the network.

    Each pass sees the moving image under the transform found so far and adds its field by composition, never by addition.

    Parameters
    ----------
    network
        A trained network.
    fixed, moving
        CT images, int16 HU; `fixed` isotropic at the network's working spacing.
    initial
        The affine registration, fixed -> moving.
    window
        Lowest and highest HU that the network sees.
    passes
        How often the network is applied; the chapter's registration is one pass.
    device
        Where to compute.
    mask
        Where the field is wanted, as in `predict_field`: the lungs, in which the network was trained.
    smoothing
        Standard deviation of a Gaussian that smooths each field, in mm; 0 for fields as the network gives them.
    stride, mirrors, precision, max_memory_gib
        As in `regnet.learning.inference.DenseNetwork`.

    Returns
    -------
    SimpleITK.CompositeTransform
        Maps points from fixed to moving, in mm: ``x -> A(x + u(x))`` with one pass.

    Raises
    ------
    InputError
        If the mask is empty.
    ConfigError
        If the memory or the precision cannot work.
    """
    options = {"precision": precision, "max_memory_gib": max_memory_gib}
    dense = DenseNetwork(network, window=window, stride=stride, mirrors=mirrors, device=device, **options)
    total = compose(initial)
    for number in range(passes):
        started = time.monotonic()
        warped = resample(moving, total, Grid.of(fixed), sitk.sitkBSpline)
        field, lattice = predict_field(dense, fixed, warped, mask)
        field = ndimage.gaussian_filter(field, smoothing / lattice.spacing[0], mode="nearest", axes=(0, 1, 2))
        total = compose(total, field_transform(field, lattice))
        magnitude = np.linalg.norm(field, axis=-1)
        log.info("pass %d: mean |u| %.2f mm, %.1f s", number + 1, magnitude.mean(), time.monotonic() - started)
    return total


def register_stages(
    stages: Sequence[Stage], initial: sitk.Transform, *, passes: int, device: torch.device, **options: Any
) -> sitk.CompositeTransform:
    """Register a pair coarse to fine, with one network after the other.

    Coarse voxels bring large displacements into the reach of a network; the chapter names such a scheme as future work. Each
    stage sees its moving image under the composed transform so far. With one stage this is `register`.

    Parameters
    ----------
    stages
        In the order in which they are applied, coarse to fine.
    initial
        The affine registration, fixed -> moving.
    passes
        How often the network of each stage is applied.
    device
        Where to compute.
    options
        ``smoothing``, ``stride``, ``mirrors``, ``precision`` and ``max_memory_gib`` of `register`.

    Returns
    -------
    SimpleITK.CompositeTransform
        Maps points from fixed to moving, in mm: with two stages ``x -> A(y + u(y))`` with ``y = x + v(x)``, where u is the
        field of the first stage.

    Raises
    ------
    InputError, ConfigError
        As `register` does.
    """
    total = compose(initial)
    for number, stage in enumerate(stages, 1):
        log.info("stage %d of %d: %g mm", number, len(stages), stage.fixed.GetSpacing()[0])
        images = {"fixed": stage.fixed, "moving": stage.moving, "mask": stage.mask}
        total = register(stage.network, **images, initial=total, window=stage.window, passes=passes, device=device, **options)
    return total
