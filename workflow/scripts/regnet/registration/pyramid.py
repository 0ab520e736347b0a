"""Registration with the feature pyramid after an affine registration, composed with it: coarse voxels first, one pass each."""

from collections.abc import Mapping
from typing import Any

import SimpleITK as sitk
import torch

from regnet.images.volumes import Grid, resample_ct, resample_mask
from regnet.learning.devices import pick_device
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.released import find_weights
from regnet.learning.weight_files import load_network
from regnet.registration.regnet import Stage, register_stages


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    settings: Mapping[str, Any],
) -> sitk.CompositeTransform:
    """Register a pair with the feature pyramid (docs/adding-a-method.md has the arguments).

    The field is wanted in `fixed_mask`, the lungs; outside, it is a coarser one. `moving_mask` is not used. `settings` holds

    - ``weights``, a released name or a path, and ``spacings``, in mm, coarse to fine: the network is applied once at each, to
      the moving image under the transform found so far, and its field is composed;
    - optionally ``mirrors``, ``smoothing``, ``precision`` and ``max_memory_gib``, as in `InferenceSettings`.
    """
    torch.set_num_threads(settings["threads"])
    network, facts = load_network(find_weights(settings["weights"]), variant="regnet_pyramid")
    given = {name: settings[name] for name in ("mirrors", "smoothing", "precision", "max_memory_gib") if name in settings}
    stages = []
    for spacing in settings["spacings"]:
        mask = None if fixed_mask is None else resample_mask(fixed_mask, Grid.of(fixed).isotropic(spacing))
        stages.append(Stage(network, tuple(facts["window"]), _at(fixed, spacing), _at(moving, spacing), mask))
    return register_stages(stages, initial, InferenceSettings(**given), pick_device(settings["gpus"]))


def _at(image: sitk.Image, spacing: float) -> sitk.Image:
    """A CT image on the isotropic grid of `spacing` mm; the image itself if it is on one."""
    grid = Grid.of(image)
    if grid.is_isotropic(spacing):
        return image
    factor = spacing / grid.spacing[0]
    if grid.is_isotropic(grid.spacing[0]) and factor == round(factor) and min(grid.size) >= factor:
        # Means of blocks of voxels are what `resample_ct` approximates, and ten times as fast.
        return sitk.BinShrink(image, [round(factor)] * 3)
    return resample_ct(image, grid.isotropic(spacing))
