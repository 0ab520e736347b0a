"""Registration with networks after an affine one, composed with it: one pass of RegNet (section 2.3.2), or coarse to fine."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

from regnet.images.transforms import compose, field_transform
from regnet.images.volumes import IDENTITY, Grid, resample
from regnet.learning.dense import Dense, dense
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.interface import Network

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
        CT images, int16 HU; `fixed` isotropic, at the spacing at which the network was trained unless it works at any.
    mask
        Where the field is wanted, on the grid of `fixed`, as in `predict_field`.
    """

    network: Network
    window: tuple[float, float]
    fixed: sitk.Image
    moving: sitk.Image
    mask: sitk.Image | None = None


def predict_field(
    network: Dense, fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image | None = None
) -> tuple[np.ndarray, Grid]:
    """Predict the displacement field between two images on the same isotropic grid.

    Parameters
    ----------
    network
        Prepared for whole volumes; its stride is that of the field.
    fixed, moving
        HU.
    mask
        Not 0 where the field is wanted, on the same grid; outside, the field continues smoothly. None for the whole image.

    Returns
    -------
    field : numpy.ndarray
        Displacements from fixed to moving, shape ``(z, y, x, 3)``, physical components x, y, z in mm.
    grid : Grid
        Their points.
    """
    grid = Grid.of(fixed)
    arrays = [sitk.GetArrayViewFromImage(image) for image in (fixed, moving)]
    wanted = None if mask is None else sitk.GetArrayViewFromImage(mask)
    voxels = network.predict(*arrays, spacing=grid.spacing[0], mask=wanted)
    counts, first = network.lattice(grid.shape)
    spacing = tuple((network.stride * np.array(grid.spacing)).tolist())
    lattice = Grid(counts[::-1], spacing, tuple(grid.points(np.full(3, first)).tolist()), grid.direction)
    return grid.to_physical(np.moveaxis(voxels, 0, -1) * grid.spacing), lattice


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    settings: Mapping[str, Any],
) -> sitk.CompositeTransform:
    """Register a pair with a trained network, or coarse to fine with several (docs/adding-a-method.md has the arguments).

    `fixed` is isotropic, at the working spacing of the network. The field is wanted in `fixed_mask`, the lungs, in which
    networks are trained; outside, it continues smoothly. `moving_mask` is not used. `settings` holds

    - ``network`` and ``window``, the network, and the lowest and highest HU that it sees;
    - ``coarser``, a `Stage` for each network that is applied before it, coarse to fine, with the pair at its spacing: coarse
      voxels bring large displacements into the reach of a network (the chapter names such a scheme as future work);
    - ``inference``, the `InferenceSettings` of all stages, and ``device``.

    Each pass of each stage sees the moving image under the transform found so far and adds its field by composition, never by
    addition: with one pass ``x -> A(x + u(x))``; with a coarser stage, whose field is u, ``x -> A(y + u(y))`` and
    ``y = x + v(x)``.

    Raises
    ------
    InputError
        If the mask is empty.
    ConfigError
        If the memory is too small for any tile, or the device computes the precision wrongly.

    Examples
    --------
    Two stages. Instead of a trained network, both use one that predicts a shift of 1 voxel along x everywhere: 4 mm in the
    coarse stage and 2 mm in the fine one.

    >>> from regnet.learning.networks.regnet import RegNet
    >>> network = RegNet()
    >>> with torch.no_grad():
    ...     shift = network.joint[-1].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    ...     nothing = network.joint[-1].weight.zero_()
    >>> fine, coarse = (Grid((side, side, side), (spacing,) * 3) for side, spacing in ((8, 2.0), (4, 4.0)))
    >>> image, coarse_image = (grid.image(np.full(grid.shape, -800, np.int16)) for grid in (fine, coarse))
    >>> window = (-1000, 400)
    >>> settings = {
    ...     "network": network,
    ...     "window": window,
    ...     "coarser": [Stage(network, window, coarse_image, coarse_image)],
    ...     "inference": InferenceSettings(precision="float32"),
    ...     "device": torch.device("cpu"),
    ... }
    >>> transform = register(image, image, None, None, None, settings)
    >>> np.round(transform.TransformPoint((4.0, 6.0, 8.0)), 3)
    array([10.,  6.,  8.])
    """
    stages = [*settings["coarser"], Stage(settings["network"], settings["window"], fixed, moving, fixed_mask)]
    return register_stages(stages, initial, settings["inference"], settings["device"])


def register_stages(
    stages: Sequence[Stage], initial: sitk.Transform | None, inference: InferenceSettings, device: torch.device
) -> sitk.CompositeTransform:
    """The initial transform, followed by the fields of all passes of all stages."""
    total = compose(initial or IDENTITY)
    for number, stage in enumerate(stages, 1):
        log.info("stage %d of %d: %g mm", number, len(stages), stage.fixed.GetSpacing()[0])
        network = dense(stage.network, window=stage.window, settings=inference, device=device)
        # Networks that work at any spacing have learned from images that were interpolated linearly.
        interpolator = sitk.sitkLinear if stage.network.any_spacing else sitk.sitkBSpline
        for pass_number in range(1, inference.passes + 1):
            started = time.monotonic()
            warped = resample(stage.moving, total, Grid.of(stage.fixed), interpolator)
            field, lattice = predict_field(network, stage.fixed, warped, stage.mask)
            field = ndimage.gaussian_filter(field, inference.smoothing / lattice.spacing[0], mode="nearest", axes=(0, 1, 2))
            total = compose(total, field_transform(field, lattice))
            mean = np.linalg.norm(field, axis=-1).mean()
            log.info("pass %d: mean |u| %.2f mm, %.1f s", pass_number, mean, time.monotonic() - started)
    return total
