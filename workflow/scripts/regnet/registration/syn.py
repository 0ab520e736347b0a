"""Symmetric normalization, SyN [Avants 2008], with cross-correlation, by ANTs (antspyx)."""

import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk

from regnet.images.volumes import Grid
from regnet.registration.field_methods import composed, on_one_grid

# ITK inside ANTs reads it when it makes its first filter.
THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"

RADIUS = 2
"""Radius of the neighbourhood over which the correlation is computed, in voxels."""

GRADIENT_STEP = 0.2
"""Step of the gradient descent, in voxels."""


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    settings: Mapping[str, Any],
) -> sitk.CompositeTransform:
    """Register a pair by local cross-correlation in the lungs (docs/adding-a-method.md has the arguments).

    `settings` holds ``iterations`` (of each resolution; the last is that of the image, each before it is half as fine), as the
    config describes them.

    References
    ----------
    B. B. Avants et al., Symmetric diffeomorphic image registration with cross-correlation, Medical Image Analysis 12, 2008.
    """
    pair = on_one_grid(fixed, moving, initial)
    return composed(initial, _to_field(_syn(*pair, fixed_mask, settings)), Grid.of(fixed))


def _syn(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image | None, settings: Mapping[str, Any]) -> sitk.Image:
    """The warp of ANTs on the grid of the pair."""
    os.environ[THREADS] = str(settings["threads"])
    import ants

    with TemporaryDirectory() as folder:
        result = ants.registration(
            _ants_image(fixed),
            _ants_image(moving),
            "SyNOnly",
            # Otherwise ANTs would start by aligning the centres of mass.
            initial_transform="Identity",
            outprefix=f"{folder}/",
            mask=None if mask is None else _ants_image(sitk.Cast(mask != 0, sitk.sitkFloat32)),
            grad_step=GRADIENT_STEP,
            syn_metric="CC",
            syn_sampling=RADIUS,
            reg_iterations=tuple(settings["iterations"]),
            random_seed=settings["seed"],
            verbose=True,
        )
        # The affine part, here the identity, is a separate file.
        (warp,) = (path for path in result["fwdtransforms"] if Path(path).name.endswith("Warp.nii.gz"))
        return sitk.ReadImage(warp)


def _ants_image(image: sitk.Image) -> Any:
    """The same image as an object of ANTs, whose arrays are ``(x, y, z)``, on the same grid."""
    import ants

    return ants.from_numpy(
        sitk.GetArrayFromImage(image).T.copy(),
        origin=image.GetOrigin(),
        spacing=image.GetSpacing(),
        direction=np.reshape(image.GetDirection(), (3, 3)),
    )


def _to_field(warp: sitk.Image) -> np.ndarray:
    """The warp as an array. As SimpleITK reads it, ANTs has this package's conventions: mm, LPS, from fixed to moving."""
    return sitk.GetArrayFromImage(warp)
