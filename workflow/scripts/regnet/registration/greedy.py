"""Greedy diffeomorphic registration [Yushkevich 2016] with cross-correlation, by picsl-greedy in a process of its own."""

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
from regnet.registration.field_methods import after, on_one_grid

# All that the other process does. Greedy is under the GPL: it shares files with this package, and no address space.
PROGRAM = "import sys; from picsl_greedy import Greedy3D; Greedy3D().execute(sys.argv[1])"

RADIUS = 2
"""Of the neighbourhood in which the correlation is taken, in voxels."""


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
    return after(initial, _to_field(_greedy(*pair, fixed_mask, settings)), Grid.of(fixed))


def _greedy(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image | None, settings: Mapping[str, Any]) -> sitk.Image:
    """The warp of greedy on the grid of the pair."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = {"fixed": fixed, "moving": moving} | ({} if mask is None else {"mask": sitk.Cast(mask != 0, sitk.sitkUInt8)})
        for what, image in images.items():
            sitk.WriteImage(image, str(folder / f"{what}.nii.gz"))
        radius, iterations = ("x".join(map(str, values)) for values in ([RADIUS] * 3, settings["iterations"]))
        command = (
            f"-d 3 -threads {settings['threads']} -m NCC {radius} -n {iterations} -i fixed.nii.gz moving.nii.gz -o warp.nii.gz "
            f"-s {settings['update_smoothing']}vox {settings['smoothing']}vox {'' if mask is None else '-gm mask.nii.gz'}"
        )
        # What it prints goes where this process's output goes.
        process = subprocess.run([sys.executable, "-c", PROGRAM, command], cwd=folder, stderr=subprocess.PIPE, check=False)
        if process.returncode != 0 or not (folder / "warp.nii.gz").exists():
            said = process.stderr.decode(errors="replace")
            os.write(2, said.encode())
            last = said.strip().splitlines()[-1:] or [f"status {process.returncode}"]
            raise RegistrationError(f"greedy: {last[0]} (more in {settings['log']})")
        return sitk.ReadImage(str(folder / "warp.nii.gz"))


def _to_field(warp: sitk.Image) -> np.ndarray:
    """A warp of greedy as SimpleITK reads it is what this package has: displacements in mm, LPS, from fixed to moving."""
    return sitk.GetArrayFromImage(warp)
