"""What the stages of a coarse-to-fine registration are worth, on a synthetic pair with large displacements.

With ``--volume FILE``, a chest CT that the released networks were not trained on: its right half is deformed with a field of at
most 16 mm per axis, and registered with several sequences of released weights. It measures errors, not time.
"""

import argparse

import numpy as np
import SimpleITK as sitk
import torch

from regnet.inference import load_network
from regnet.lungs import segment_lungs
from regnet.registration.regnet import Stage, register_stages
from regnet.synthesis import deform, deform_mask, random_dvf
from regnet.transforms import transform_points
from regnet.volumes import IDENTITY, Grid, read_ct, resample_ct, resample_mask
from regnet.weights import find_weights

SEQUENCES = ((2,), (2, 2), (4, 2), (4, 2, 2), (4, 2, 1))
"""Spacings of the networks that are applied one after the other, in mm."""

MARGIN = 10
"""Voxels of 1 mm that the right half reaches beyond the middle of the volume."""


def synthetic_pair(path: str) -> tuple[sitk.Image, sitk.Image, sitk.Image, np.ndarray, np.ndarray]:
    """Fixed and moving image and fixed lungs at 1 mm, points in the lungs (mm), and the true displacements there (mm)."""
    image = read_ct(path)
    grid = Grid.of(image).isotropic(1.0)
    moving, lungs = resample_ct(image, grid), resample_mask(segment_lungs(image, path), grid)
    half = (grid.size[0] // 2 + MARGIN, *grid.size[1:])
    moving, lungs = (sitk.RegionOfInterest(one, half, (0, 0, 0)) for one in (moving, lungs))
    rng = np.random.default_rng(5)
    dvf = random_dvf(Grid.of(moving), sigma=40, points=100, theta=16, border=33, rng=rng)
    fixed, mask = deform(moving, dvf, noise_sd=5, rng=rng), deform_mask(lungs, dvf)
    index = np.argwhere(sitk.GetArrayViewFromImage(mask) != 0)[::211, ::-1]
    return fixed, moving, mask, Grid.of(fixed).points(index), dvf.at(index)


def stage(spacing: int, fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image) -> Stage:
    """The released network for a spacing, and the pair at that spacing."""
    network, facts = load_network(find_weights(f"regnet_{spacing}mm"))
    grid = Grid.of(fixed).isotropic(float(spacing))
    return Stage(
        network, tuple(facts["window"]), resample_ct(fixed, grid), resample_ct(moving, grid), resample_mask(mask, grid)
    )


def main() -> None:
    """Print the mean and the median error of each sequence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volume", help="chest CT in HU that the released networks were not trained on")
    volume = parser.parse_args().volume
    if volume is None:
        print("stages: left out, no --volume\n")
        return
    fixed, moving, mask, points, true = synthetic_pair(volume)
    stages = {spacing: stage(spacing, fixed, moving, mask) for spacing in (4, 2, 1)}
    lengths = np.linalg.norm(true, axis=1)
    print(f"no registration: mean {lengths.mean():.2f} mm, median {np.median(lengths):.2f} mm, largest {lengths.max():.1f} mm")
    for sequence in SEQUENCES:
        chosen = [stages[spacing] for spacing in sequence]
        transform = register_stages(chosen, IDENTITY, passes=1, device=torch.device("cpu"))
        errors = np.linalg.norm(transform_points(transform, points) - points - true, axis=1)
        print(f"{sequence}: mean {errors.mean():.2f} mm, median {np.median(errors):.2f} mm", flush=True)


if __name__ == "__main__":
    main()
