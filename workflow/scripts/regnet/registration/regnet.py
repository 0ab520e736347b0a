"""Registration with RegNet: one pass of the network after an affine registration, composed with it (section 2.3.2)."""

import logging
import time

import numpy as np
import SimpleITK as sitk
import torch

from regnet.inference import output_lattice, predict_volume
from regnet.network import OUTPUT_STRIDE, RegNet
from regnet.transforms import compose, field_transform
from regnet.volumes import Grid, resample

log = logging.getLogger(__name__)


def predict_field(
    network: RegNet, fixed: sitk.Image, moving: sitk.Image, *, window: tuple[float, float], device: torch.device
) -> tuple[np.ndarray, Grid]:
    """Predict the displacement field between two images on the same isotropic grid.

    Returns
    -------
    field : numpy.ndarray
        Displacements from fixed to moving, shape ``(z, y, x, 3)``, physical components x, y, z in mm, at every second voxel.
    grid : Grid
        Where they are.
    """
    grid = Grid.of(fixed)
    arrays = [sitk.GetArrayViewFromImage(image) for image in (fixed, moving)]
    voxels = predict_volume(network, *arrays, window=window, device=device)
    counts, first = output_lattice(grid.shape)
    spacing = tuple(OUTPUT_STRIDE * side for side in grid.spacing)
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
) -> sitk.CompositeTransform:
    """Register a pair with the network.

    Each pass sees the moving image under the transform found so far and adds its field by composition, never by addition.

    Parameters
    ----------
    network
        In evaluation mode.
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

    Returns
    -------
    SimpleITK.CompositeTransform
        Maps points from fixed to moving, in mm: ``x -> A(x + u(x))`` with one pass.
    """
    total = compose(initial)
    for number in range(passes):
        started = time.monotonic()
        warped = resample(moving, total, Grid.of(fixed), sitk.sitkBSpline)
        field, lattice = predict_field(network, fixed, warped, window=window, device=device)
        total = compose(total, field_transform(field, lattice))
        magnitude = np.linalg.norm(field, axis=-1)
        log.info("pass %d: mean |u| %.2f mm, %.1f s", number + 1, magnitude.mean(), time.monotonic() - started)
    return total
