"""Runs a registration method: the common path of all methods, from the pair to a checked transform.

A method sees the images around the lungs and returns a transform from fixed to moving, in mm, the affine registration included.
This module crops the images, turns a failure into one line, and continues fields to the borders of the image.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from regnet.errors import RegistrationError
from regnet.images.transforms import compose, cover, is_finite, transform_points
from regnet.images.volumes import Grid, crop, mask_corners
from regnet.registration.loading import load
from regnet.system.jobs import output_to

log = logging.getLogger(__name__)


def register_pair(
    fixed: sitk.Image,
    moving: sitk.Image,
    settings: Mapping[str, Any],
    *,
    tool_log: str | Path | None = None,
    fixed_mask: sitk.Image | None = None,
    moving_mask: sitk.Image | None = None,
    initial: sitk.Transform | None = None,
    margin: float | None = None,
    seed: int = 0,
    threads: int = 1,
    gpus: int = 0,
) -> sitk.CompositeTransform:
    """Register a pair with a method of the config.

    Parameters
    ----------
    fixed, moving
        CT images, int16 HU, on any grids, oblique ones included.
    settings
        The method's entry in the config: its ``module``, and the settings of that module.
    tool_log
        Where the method's own output goes, its log or what it prints; an existing file is replaced. None for a method whose
        only output is logged through Python.
    fixed_mask, moving_mask
        Lungs, not 0 inside, each on the grid of its image.
    initial
        The transform, fixed to moving, from which the method starts: the affine registration, or that of another method; None
        for the affine registration itself.
    margin
        The method sees the lungs and this much around them, in mm; None for the whole images.
    seed
        For methods that draw random numbers, ``[0, 2**31)``.
    threads
        CPU threads.
    gpus
        How many GPUs the job was granted.

    Returns
    -------
    SimpleITK.CompositeTransform
        From fixed to moving, mm, `initial` included. Outside the region that the method saw, its field continues from there.

    Raises
    ------
    RegistrationError
        If the images do not overlap, if the method fails, or if it does not return a finite transform in 3D.

    Examples
    --------
    Demons find the shift of a blob: 3 mm along x and -2 mm along y, to within half a voxel.

    >>> grid = Grid((32, 28, 24), (2.0, 2.0, 2.0))
    >>> z, y, x = 2.0 * np.indices(grid.shape)
    >>> def blob(*centre):
    ...     squared = sum((axis - middle) ** 2 for axis, middle in zip((x, y, z), centre, strict=True))
    ...     return grid.image(np.int16(600 * np.exp(-squared / 200) - 800))
    >>> fixed, moving = blob(30, 28, 24), blob(33, 26, 24)
    >>> demons = {"module": "demons", "shrink": [2, 1], "iterations": [20, 10], "smoothing": 1.0}
    >>> transform = register_pair(fixed, moving, demons)
    >>> displacement = np.subtract(transform.TransformPoint((36.0, 24.0, 24.0)), (36.0, 24.0, 24.0))
    >>> bool(np.linalg.norm(displacement - (3.0, -2.0, 0.0)) < 1)
    True
    """
    parts = (fixed, moving, fixed_mask, moving_mask)
    if margin is not None:
        parts = _around_the_lungs(*parts, initial, margin)
    if initial is not None:
        _refuse_no_overlap(parts[0], parts[2], moving, initial)
    own_settings = {name: value for name, value in settings.items() if name not in ("module", "initial")}
    register = load(settings["module"])
    with _own_output_to(tool_log):
        try:
            transform = register(
                *parts, initial, {**own_settings, "seed": seed, "threads": threads, "gpus": gpus, "log": str(tool_log)}
            )
        except (RuntimeError, ValueError) as error:
            # Compiled code raises these, with many lines: all go to the log, the last one to the user.
            log.exception("the method failed")
            hint = f" (more in {tool_log})" if tool_log else ""
            raise RegistrationError(f"{str(error).strip().splitlines()[-1]}{hint}") from error
    if not isinstance(transform, sitk.Transform) or transform.GetDimension() != 3:
        raise RegistrationError(
            f"found {type(transform).__name__}, expected a SimpleITK transform in 3D, fixed to moving, in mm"
        )
    if not is_finite(transform):
        raise RegistrationError("found a transform with numbers that are not finite")
    return cover(compose(transform), Grid.of(fixed))


@contextmanager
def _own_output_to(tool_log: str | Path | None) -> Iterator[None]:
    """Send what the method's program prints while the block runs to a file; without a file, change nothing."""
    if tool_log is None:
        yield
        return
    Path(tool_log).parent.mkdir(parents=True, exist_ok=True)
    with open(tool_log, "w", buffering=1, encoding="utf-8") as file, output_to(file):
        yield


def _around_the_lungs(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    margin: float,
) -> tuple[sitk.Image, sitk.Image, sitk.Image | None, sitk.Image | None]:
    """The pair and its masks, cropped to the lungs and `margin` mm around them; whole, if the lungs are not known."""
    known = moving_mask if initial is None else fixed_mask
    if fixed_mask is None or known is None:
        # Never crop only one image: an affine registration starts by aligning the centres of both.
        return fixed, moving, fixed_mask, moving_mask
    lungs = mask_corners(fixed_mask)
    moving_lungs = mask_corners(known) if initial is None else transform_points(initial, lungs)
    # How far the method will move points is not known yet: the moving image keeps twice the margin.
    return (
        crop(fixed, lungs, margin),
        crop(moving, moving_lungs, 2 * margin),
        crop(fixed_mask, lungs, margin),
        None if moving_mask is None else crop(moving_mask, moving_lungs, 2 * margin),
    )


def _refuse_no_overlap(fixed: sitk.Image, mask: sitk.Image | None, moving: sitk.Image, initial: sitk.Transform) -> None:
    fixed_grid, moving_grid = Grid.of(fixed), Grid.of(moving)
    inside = np.argwhere(np.ones(fixed_grid.shape, bool) if mask is None else sitk.GetArrayViewFromImage(mask) != 0)
    # A thousand of them, spread evenly, are as good as all.
    chosen = inside[:: len(inside) // 1000 + 1, ::-1]
    index = moving_grid.indices(transform_points(initial, fixed_grid.points(chosen)))
    if not ((index >= -0.5) & (index <= np.array(moving_grid.size) - 0.5)).all(axis=1).any():
        raise RegistrationError(
            f"no overlap: after the affine registration none of {len(chosen)} points of the fixed image"
            f"{' mask' if mask is not None else ''} lies in the moving image, expected some"
        )
