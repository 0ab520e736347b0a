"""How much stages, passes, mirror images and smoothing improve a registration, on synthetic pairs.

With ``--volumes FILE ...``, chest CTs that the released networks were not trained on: the right half of each is deformed with
one of the chapter's fields (components of up to 8 mm), with smoother ones of up to 16 and 24 mm, and with the chapter's once
more, where both images are changed as two scans of a patient differ and the chest wall slides. It is registered with released
weights in several ways: with RegNet, and with the feature pyramid (``--pyramid`` measures that one alone, ``--weights`` names
other weights of it). This benchmark measures errors, not time.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from harness import save
from with_network import register_with

from regnet.evaluation.field_errors import pair_regularity
from regnet.images.lungs import segment_lungs
from regnet.images.transforms import transform_points
from regnet.images.volumes import IDENTITY, Grid, read_ct, resample_ct, resample_mask
from regnet.learning.released import find_weights
from regnet.learning.weight_files import load_network
from regnet.registration.pyramid import register as register_with_pyramid
from regnet.registration.regnet import Stage
from regnet.synthesis.appearance import Appearance
from regnet.synthesis.pairs import deform, deform_mask, other_scan, random_dvf, slide

WAYS = (
    ([2], 1, 1, 0),
    ([2], 2, 4, 6),
    ([4, 2], 1, 1, 0),
    ([4, 2], 2, 1, 6),
    ([4, 2], 2, 4, 0),
    ([4, 2], 2, 4, 6),
    ([4, 2, 1], 1, 1, 0),
)
"""Spacings of the networks that are applied one after the other, in mm; passes of each, mirror images, and smoothing in mm."""

PYRAMID_WAYS = (
    ([2], 1, 0),
    ([1], 1, 0),
    ([2, 1], 1, 0),
    ([2, 1], 1, 2),
    ([2, 1], 1, 4),
    ([2, 1], 1, 6),
    ([2, 1], 2, 0),
    ([2, 1, 1], 1, 0),
)
"""Spacings at which the feature pyramid is applied, one after the other, in mm; mirror images, and smoothing in mm."""

FIELDS = {
    "chapter's": {"sigma": 25, "points": 100, "theta": 8},
    "chapter's, hard": {"sigma": 25, "points": 100, "theta": 8},
    "16 mm": {"sigma": 40, "points": 100, "theta": 16},
    "24 mm": {"sigma": 60, "points": 100, "theta": 24},
}
"""Settings of the synthetic fields."""

MARGIN = 10
"""Voxels of 1 mm that the right half reaches beyond the middle of the volume."""


def synthetic_pair(path: str, settings: dict, hard: bool) -> tuple[sitk.Image, sitk.Image, sitk.Image, np.ndarray, np.ndarray]:
    """Fixed and moving image and fixed lungs at 1 mm, points in the lungs (mm), and the true displacements there (mm)."""
    image = read_ct(path)
    grid = Grid.of(image).isotropic(1.0)
    moving, lungs = resample_ct(image, grid), resample_mask(segment_lungs(image, path), grid)
    half = (grid.size[0] // 2 + MARGIN, *grid.size[1:])
    moving, lungs = (sitk.RegionOfInterest(volume, half, (0, 0, 0)) for volume in (moving, lungs))
    rng = np.random.default_rng(5)
    dvf = random_dvf(Grid.of(moving), **settings, border=33, rng=rng)
    fixed, mask = deform(moving, dvf, noise_sd=5, rng=rng), deform_mask(lungs, dvf)
    if hard:
        fixed = slide(fixed, mask, rng, border=33)
        fixed, moving = (other_scan(scan, Appearance(), rng) for scan in (fixed, moving))
    index = np.argwhere(sitk.GetArrayViewFromImage(mask) != 0)[::211, ::-1]
    return fixed, moving, mask, Grid.of(fixed).points(index), dvf.at(index)


def stage(spacing: int, fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image) -> Stage:
    """The released network for a spacing, and the pair at that spacing."""
    network, facts = load_network(find_weights(f"regnet_{spacing}mm"))
    grid = Grid.of(fixed).isotropic(float(spacing))
    return Stage(
        network, tuple(facts["window"]), resample_ct(fixed, grid), resample_ct(moving, grid), resample_mask(mask, grid)
    )


def registered(stages: list[Stage], inference: dict[str, float]) -> sitk.Transform:
    """The transform that networks find without an affine registration, coarse to fine."""
    *coarser, last = stages
    pair = last.fixed, last.moving, None
    return register_with(last.network, *pair, mask=last.mask, window=last.window, coarser=coarser, **inference)


def pyramid(
    weights: str, spacings: list[int], mirrors: int, smoothing: float, fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image
) -> sitk.Transform:
    """The transform that the feature pyramid finds without an affine registration."""
    settings = {"weights": find_weights(weights), "spacings": spacings, "mirrors": mirrors, "smoothing": smoothing}
    return register_with_pyramid(fixed, moving, mask, None, None, {**settings, "threads": 2, "gpus": 0})


def measured(path: str, only_pyramid: bool, weights: str) -> Iterator[dict[str, object]]:
    """The errors of each way on a volume, the part of the lungs that it folds, and its smallest Jacobian determinant there."""
    for field, settings in FIELDS.items():
        fixed, moving, mask, points, true = synthetic_pair(path, settings, field.endswith("hard"))
        transforms = {("none", "", 0, 0, 0): IDENTITY}
        if not only_pyramid:
            stages = {spacing: stage(spacing, fixed, moving, mask) for spacing in (4, 2, 1)}
            for spacings, passes, mirrors, smoothing in WAYS:
                inference = {"passes": passes, "mirrors": mirrors, "smoothing": smoothing}
                way = "regnet", " ".join(map(str, spacings)), *inference.values()
                transforms[way] = registered([stages[spacing] for spacing in spacings], inference)
        for spacings, mirrors, smoothing in PYRAMID_WAYS:
            way = "pyramid", " ".join(map(str, spacings)), 1, mirrors, smoothing
            transforms[way] = pyramid(weights, spacings, mirrors, smoothing, fixed, moving, mask)
        for way, transform in transforms.items():
            differences = transform_points(transform, points) - points - true
            errors = np.linalg.norm(differences, axis=1)
            regularity = pair_regularity("", {"": transform}, mask).iloc[0]
            named = dict(zip(("network", "stages", "passes", "mirrors", "smoothing"), way, strict=True))
            results = {"mean": errors.mean(), "median": np.median(errors), "mae": np.abs(differences).sum(axis=1).mean()}
            results |= {"folded_percent": 100 * regularity["folded"], "smallest_jacobian": regularity["min"]}
            row = {"volume": Path(path).name, "field": field, **named, **results}
            print(row, flush=True)
            yield row


def main() -> None:
    """Measure all ways on all volumes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volumes", nargs="+", help="chest CTs in HU that the released networks were not trained on")
    parser.add_argument("--pyramid", action="store_true", help="measure the feature pyramid alone")
    parser.add_argument("--weights", default="regnet_pyramid", help="weights of the feature pyramid (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.volumes is None:
        print("stages: left out, no --volumes\n")
        return
    save(
        "stages",
        pd.DataFrame([row for path in arguments.volumes for row in measured(path, arguments.pyramid, arguments.weights)]),
    )


if __name__ == "__main__":
    main()
