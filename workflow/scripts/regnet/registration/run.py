"""The one door that every registration goes through: what a method is given, and what it leaves.

A method sees the images around the lungs and leaves a transform from fixed to moving, in mm, the affine registration
included. What is the same for all is here: cropping, one line for what fails, and a field that ends nowhere in the image.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from regnet.errors import RegistrationError
from regnet.images.transforms import compose, cover, transform_points
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
) -> sitk.CompositeTransform:
    """Register a pair with a method of the config.

    Parameters
    ----------
    fixed, moving
        CT images, int16 HU, on any grids, oblique ones included.
    settings
        The method's entry in the config: its ``module``, and what that module wants to know.
    tool_log
        Where the method's own output goes, its log or what it prints; an existing file is replaced. None for a method that has
        no output but what it logs through Python.
    fixed_mask, moving_mask
        Lungs, not 0 inside, each on the grid of its image.
    initial
        The affine registration, fixed to moving, with which the method begins; None for the affine registration itself.
    margin
        The method sees what lies up to this far from the lungs, in mm; None for the whole images.
    seed
        For methods that draw random numbers, ``[0, 2**31)``.
    threads
        CPU threads.

    Returns
    -------
    SimpleITK.CompositeTransform
        From fixed to moving, mm, `initial` included. Where the method did not look, what it found continues from there.

    Raises
    ------
    RegistrationError
        If the images do not meet, if the method gives up, or if what it leaves is no transform.
    """
    parts = (fixed, moving, fixed_mask, moving_mask)
    if margin is not None:
        parts = _around_the_lungs(*parts, initial, margin)
    if initial is not None:
        _refuse_no_overlap(parts[0], parts[2], moving, initial)
    given = {name: value for name, value in settings.items() if name != "module"}
    register = load(settings["module"])
    with _own_output_to(tool_log):
        try:
            transform = register(*parts, initial, {**given, "seed": seed, "threads": threads, "log": str(tool_log)})
        except (RuntimeError, ValueError) as error:
            # What compiled code raises; all of it goes to the log, its last line to the user.
            log.exception("the method gave up")
            where = f" (more in {tool_log})" if tool_log else ""
            raise RegistrationError(f"{str(error).strip().splitlines()[-1]}{where}") from error
    if not isinstance(transform, sitk.Transform) or transform.GetDimension() != 3:
        raise RegistrationError(
            f"found {type(transform).__name__}, expected a SimpleITK transform in 3D, fixed to moving, in mm"
        )
    grid = Grid.of(fixed)
    transform = cover(compose(transform), grid)
    if not np.isfinite(transform_points(transform, grid.corners())).all():
        raise RegistrationError("found a transform with numbers that are not finite")
    return transform


@contextmanager
def _own_output_to(tool_log: str | Path | None) -> Iterator[None]:
    """Send what the method's program prints while the block runs to a file, if there is one."""
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
    """The pair and its masks, cropped to the lungs and `margin` mm more; whole, where it is not known where these are."""
    known = moving_mask if initial is None else fixed_mask
    if fixed_mask is None or known is None:
        # One image alone is not cropped: an affine registration begins with the centres of both on each other.
        return fixed, moving, fixed_mask, moving_mask
    lungs = mask_corners(fixed_mask)
    there = mask_corners(known) if initial is None else transform_points(initial, lungs)
    # What the method moves is not known yet: the moving image keeps twice the margin.
    return (
        crop(fixed, lungs, margin),
        crop(moving, there, 2 * margin),
        crop(fixed_mask, lungs, margin),
        moving_mask and crop(moving_mask, there, 2 * margin),
    )


def _refuse_no_overlap(fixed: sitk.Image, mask: sitk.Image | None, moving: sitk.Image, initial: sitk.Transform) -> None:
    grid, there = Grid.of(fixed), Grid.of(moving)
    inside = np.argwhere(np.ones(grid.shape, bool) if mask is None else sitk.GetArrayViewFromImage(mask) != 0)
    # A thousand of them, spread evenly, tell as much as all.
    some = inside[:: len(inside) // 1000 + 1, ::-1]
    index = there.indices(transform_points(initial, grid.points(some)))
    if not ((index >= -0.5) & (index <= np.array(there.size) - 0.5)).all(axis=1).any():
        raise RegistrationError(
            f"no overlap: after the affine registration none of {len(some)} points of the fixed image"
            f"{' mask' if mask is not None else ''} lies in the moving image, expected some"
        )
