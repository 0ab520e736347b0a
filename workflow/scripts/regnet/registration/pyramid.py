"""Registration with the feature pyramid after an affine registration, composed with it: coarse voxels first, one pass each."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from regnet.images.transforms import compose, field_transform
from regnet.images.volumes import IDENTITY, Grid, resample, resample_ct
from regnet.learning.devices import pick_device
from regnet.learning.pyramid_inference import DensePyramid
from regnet.learning.released import find_weights
from regnet.learning.weight_files import load_network

log = logging.getLogger(__name__)


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    settings: Mapping[str, Any],
) -> sitk.CompositeTransform:
    """Register a pair with the feature pyramid (docs/adding-a-method.md has the arguments).

    The masks are not used: `regnet.registration.run` has cropped the images to the lungs. `settings` holds ``weights``, a
    released name or a path, and ``spacings``, in mm, coarse to fine. The network is applied once at each, to the moving image
    under the transform found so far, and its field is composed.
    """
    torch.set_num_threads(settings["threads"])
    network, facts = load_network(find_weights(settings["weights"]), variant="regnet_pyramid")
    dense = DensePyramid(network, window=tuple(facts["window"]), device=pick_device(settings["gpus"]))
    total = compose(initial or IDENTITY)
    for spacing in settings["spacings"]:
        started = time.monotonic()
        images = [_at(image, spacing) for image in (fixed, moving)]
        grid = Grid.of(images[0])
        warped = resample(images[1], total, grid, sitk.sitkLinear)
        voxels = dense.predict(*(sitk.GetArrayViewFromImage(image) for image in (images[0], warped)))
        nodes = Grid(voxels.shape[:0:-1], (2 * grid.spacing[0],) * 3, grid.origin, grid.direction)
        field = grid.to_physical(np.moveaxis(voxels, 0, -1) * grid.spacing)
        total = compose(total, field_transform(field, nodes))
        mean = np.linalg.norm(field, axis=-1).mean()
        log.info("%g mm: mean |u| %.2f mm, %.1f s", spacing, mean, time.monotonic() - started)
    return total


def _at(image: sitk.Image, spacing: float) -> sitk.Image:
    """An image on an isotropic grid of `spacing` mm; the image itself if it is on one."""
    grid = Grid.of(image)
    return image if np.allclose(grid.spacing, spacing, atol=1e-4) else resample_ct(image, grid.isotropic(spacing))
