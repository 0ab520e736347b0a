"""Greedy diffeomorphic registration [Yushkevich 2016] with cross-correlation, by picsl-greedy in a separate process."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk

from regnet.errors import RegistrationError
from regnet.images.volumes import Grid
from regnet.registration.field_methods import composed, on_one_grid

# The whole program of the other process. Greedy is under the GPL: it exchanges files with this package, but shares no memory.
PROGRAM = "import sys; from picsl_greedy import Greedy3D; Greedy3D().execute(sys.argv[1])"

RADIUS = 2
"""Radius of the neighbourhood over which the correlation is computed, in voxels."""


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    settings: Mapping[str, Any],
) -> sitk.CompositeTransform:
    """Register a pair by local cross-correlation in the lungs (docs/adding-a-method.md has the arguments).

    `settings` holds ``iterations`` (of each resolution; the last is that of the image, each before it is half as fine),
    ``update_smoothing`` and ``smoothing`` (voxels), as the config describes them.

    References
    ----------
    P. A. Yushkevich et al., Fast automatic segmentation of hippocampal subfields and medial temporal lobe subregions in 3 Tesla
    and 7 Tesla T2-weighted MRI, Alzheimer's and Dementia 12, 2016 (the software: github.com/pyushkevich/greedy).
    """
    pair = on_one_grid(fixed, moving, initial)
    return composed(initial, _to_field(_greedy(*pair, fixed_mask, settings)), Grid.of(fixed))


def _greedy(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image | None, settings: Mapping[str, Any]) -> sitk.Image:
    """The warp of greedy on the grid of the pair."""
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        images = {"fixed": fixed, "moving": moving} | ({} if mask is None else {"mask": sitk.Cast(mask != 0, sitk.sitkUInt8)})
        for name, image in images.items():
            sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
        radius, iterations = ("x".join(map(str, values)) for values in ([RADIUS] * 3, settings["iterations"]))
        command = (
            f"-d 3 -threads {settings['threads']} -m NCC {radius} -n {iterations} -i fixed.nii.gz moving.nii.gz -o warp.nii.gz "
            f"-s {settings['update_smoothing']}vox {settings['smoothing']}vox {'' if mask is None else '-gm mask.nii.gz'}"
        )
        # Its standard output goes where that of this process goes.
        process = subprocess.run([sys.executable, "-c", PROGRAM, command], cwd=folder, stderr=subprocess.PIPE, check=False)
        if process.returncode != 0 or not (folder / "warp.nii.gz").exists():
            errors = process.stderr.decode(errors="replace")
            os.write(2, errors.encode())
            last = errors.strip().splitlines()[-1:] or [f"status {process.returncode}"]
            raise RegistrationError(f"greedy: {last[0]} (more in {settings['log']})")
        return sitk.ReadImage(str(folder / "warp.nii.gz"))


def _to_field(warp: sitk.Image) -> np.ndarray:
    """The warp as an array. As SimpleITK reads it, greedy has this package's conventions: mm, LPS, from fixed to moving."""
    return sitk.GetArrayFromImage(warp)
