"""ConvexAdam [Siebert 2024]: coupled convex optimization on MIND features and a grid of displacements, refined by Adam."""

import warnings
from collections.abc import Mapping
from math import lcm
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from regnet.images.volumes import Grid
from regnet.registration.field_methods import composed, on_one_grid

MIND_RADIUS = 1
"""Radius of the patches that the MIND features compare, in voxels."""

MIND_DILATION = 2
"""Distance between these patches, in voxels."""


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    settings: Mapping[str, Any],
) -> sitk.CompositeTransform:
    """Register a pair by the self-similarity of its structures, on the CPU (docs/adding-a-method.md has the arguments).

    The masks are not used: the package's own masking extrapolates the images from the lungs, and loses accuracy with it.
    `settings` holds ``grid``, ``search`` and ``adam_grid`` (voxels), ``iterations`` and ``smoothness``, as the config describes
    them.

    References
    ----------
    H. Siebert, C. Großbröhmer, L. Hansen, M. P. Heinrich, ConvexAdam: self-configuring dual-optimisation-based 3D multitask
    medical image registration, IEEE Trans. Med. Imaging 44, 2025.
    """
    fixed_array, moving_array = map(sitk.GetArrayFromImage, on_one_grid(fixed, moving, initial))
    grid = Grid.of(fixed)
    return composed(initial, _to_field(_convexadam(fixed_array, moving_array, settings), grid), grid)


def _convexadam(fixed: np.ndarray, moving: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """The displacements of ConvexAdam, shape ``(z, y, x, 3)``, components z, y, x in voxels."""
    # Both grids have to divide the volume: it is padded with its border values.
    step = lcm(settings["grid"], settings["adam_grid"])
    missing = [(0, -side % step) for side in fixed.shape]
    threads = torch.get_num_threads()
    torch.set_num_threads(settings["threads"])
    # The package calls functions that torch warns about, and makes Python ignore all warnings when it is imported.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from convexAdam.convex_adam_MIND import convex_adam_pt

        displacements = convex_adam_pt(
            *(np.pad(volume, missing, mode="edge") for volume in (fixed, moving)),
            mind_r=MIND_RADIUS,
            mind_d=MIND_DILATION,
            lambda_weight=settings["smoothness"],
            grid_sp=settings["grid"],
            disp_hw=settings["search"],
            selected_niter=settings["iterations"],
            grid_sp_adam=settings["adam_grid"],
            dtype=torch.float32,
            verbose=True,
            device=torch.device("cpu"),
        )
    torch.set_num_threads(threads)
    # The package moves its samples by n / (n - 1) times the displacements it returns, n the nodes of Adam's grid along an axis:
    # it divides by (n - 1) / 2, while the coordinates of torch's grid_sample, corners not aligned, take n / 2 nodes for 1.
    nodes = np.array([side // settings["adam_grid"] for side in displacements.shape[:3]])
    return (displacements * nodes / (nodes - 1))[tuple(slice(side) for side in fixed.shape)]


def _to_field(voxels: np.ndarray, grid: Grid) -> np.ndarray:
    """Displacements in mm (LPS), components x, y, z, from those in voxels, components z, y, x."""
    return grid.to_physical(voxels[..., ::-1] * grid.spacing)
