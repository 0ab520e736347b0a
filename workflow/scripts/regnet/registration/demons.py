"""Diffeomorphic demons [Vercauteren 2009] at several resolutions, by SimpleITK."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk

from regnet.images.volumes import Grid
from regnet.registration.field_methods import composed, on_one_grid

log = logging.getLogger(__name__)


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    settings: Mapping[str, Any],
) -> sitk.CompositeTransform:
    """Register a pair by the difference of its HU (docs/adding-a-method.md has the arguments).

    `settings` holds ``shrink``, ``iterations`` and ``smoothing`` (standard deviation of the Gaussian that
    smooths the field, in voxels of each resolution), as the config describes them.

    References
    ----------
    T. Vercauteren et al., Diffeomorphic demons: efficient non-parametric image registration, NeuroImage 45, 2009.
    """
    pair = on_one_grid(fixed, moving, initial, fixed_mask=fixed_mask, moving_mask=moving_mask)
    return composed(initial, _to_field(_demons(*pair, settings)), Grid.of(fixed))


def _demons(fixed: sitk.Image, moving: sitk.Image, settings: Mapping[str, Any]) -> sitk.Image:
    """The field on the grid of the pair, computed from coarse to fine."""
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetStandardDeviations(settings["smoothing"])
    demons.SetSmoothDisplacementField(True)
    demons.SetNumberOfThreads(settings["threads"])
    field: Any = None
    for shrink, iterations in zip(settings["shrink"], settings["iterations"], strict=True):
        coarse = [_shrunk(image, shrink) for image in (fixed, moving)]
        demons.SetNumberOfIterations(iterations)
        field = demons.Execute(*coarse) if field is None else demons.Execute(*coarse, _on_grid_of(field, coarse[0]))
        log.info("shrunk by %d: %d iterations, metric %.4g", shrink, demons.GetElapsedIterations(), demons.GetMetric())
    return _on_grid_of(field, fixed)


def _shrunk(image: sitk.Image, factor: int) -> sitk.Image:
    if factor == 1:
        return image
    sigma = [0.5 * factor * side for side in image.GetSpacing()]
    return sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, sigma), [factor] * 3)


def _on_grid_of(field: sitk.Image, image: sitk.Image) -> sitk.Image:
    """A field, linear between its nodes and constant beyond them, on the grid of an image."""
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(image)
    resampler.UseNearestNeighborExtrapolatorOn()
    return resampler.Execute(field)


def _to_field(image: sitk.Image) -> np.ndarray:
    """The field as an array. ITK has this package's conventions: displacements in mm, LPS, from fixed to moving."""
    return sitk.GetArrayFromImage(image)
