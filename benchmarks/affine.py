"""The affine registration with fewer iterations and larger voxels: seconds, TRE, and how far it ends from the chapter's.

With ``--pair FOLDER`` (or the environment variable REGNET_PAIR), a folder as `cropping.py` takes it. Each way registers the
pair as it is, and with the moving scan turned by 15 degrees and shifted by 60 mm, with three seeds each. Skipped without it.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import SimpleITK as sitk
from cropping import ELASTIX, file
from harness import save

from regnet.images.landmarks import read_landmark_pair
from regnet.images.transforms import transform_points
from regnet.images.volumes import Grid, read_ct, read_mask, resample_ct, resample_mask
from regnet.registration.elastix import register_with_file

WAYS = ((1.0, 1000), (1.0, 250), (2.0, 1000), (2.0, 250), (2.0, 100), (2.0, 50))
"""Voxel size in mm, and iterations at each of five resolutions. The first is the chapter's."""

SEEDS = (1, 2, 3)

ANGLE, SHIFT = np.radians(15.0), np.array([40.0, -30.0, 33.0])
"""How far the moving scan is turned, about x, and shifted, in mm."""


def turned(image: sitk.Image, turn: sitk.Euler3DTransform) -> sitk.Image:
    """The image elsewhere in the room: the same voxels, its axes and origin turned and shifted."""
    result = sitk.Image(image)
    direction = np.reshape(turn.GetMatrix(), (3, 3)) @ np.reshape(image.GetDirection(), (3, 3))
    result.SetDirection(direction.ravel().tolist())
    result.SetOrigin(turn.TransformPoint(image.GetOrigin()))
    return result


def measured(pair: Path, threads: int) -> Iterator[dict[str, object]]:
    """A row for each way, seed and position of the moving scan."""
    scans = {side: read_ct(file(pair, side)) for side in ("fixed", "moving")}
    mask = read_mask(file(pair, "fixed_mask"))
    landmarks = read_landmark_pair(pair / "fixed_landmarks.txt", pair / "moving_landmarks.txt")
    lungs = Grid.of(mask).points(np.argwhere(sitk.GetArrayViewFromImage(mask) != 0)[::997, ::-1])
    moving_grid = Grid.of(scans["moving"])
    middle = moving_grid.points((np.array(moving_grid.size) - 1) / 2)
    for position, angle, shift in (("as it is", 0.0, np.zeros(3)), ("turned", ANGLE, SHIFT)):
        turn = sitk.Euler3DTransform(middle.tolist(), angle, 0.0, 0.0, shift.tolist())
        moving, places = turned(scans["moving"], turn), transform_points(turn, landmarks[1])
        chapters: dict[int, np.ndarray] = {}
        for spacing, iterations in WAYS:
            fixed_image, moving_image = (
                resample_ct(scan, Grid.of(scan).isotropic(spacing)) for scan in (scans["fixed"], moving)
            )
            lung_mask = resample_mask(mask, Grid.of(scans["fixed"]).isotropic(spacing))
            for seed in SEEDS:
                with TemporaryDirectory() as folder:
                    begun = time.perf_counter()
                    transform = register_with_file(
                        fixed_image,
                        moving_image,
                        ELASTIX / "affine.txt",
                        log=Path(folder) / "log",
                        fixed_mask=lung_mask,
                        overrides={"NumberOfResolutions": 5, "MaximumNumberOfIterations": iterations},
                        seed=seed,
                        threads=threads,
                    )
                    seconds = time.perf_counter() - begun
                ends = transform_points(transform, lungs)
                # The chapter's with this seed, or another of its seeds for the chapter's itself.
                reference = chapters.setdefault(seed, ends)
                if reference is ends and seed != SEEDS[0]:
                    reference = chapters[SEEDS[0]]
                errors = np.linalg.norm(transform_points(transform, landmarks[0]) - places, axis=1)
                row = {"moving": position, "spacing": spacing, "iterations": iterations, "seed": seed, "seconds": seconds}
                row |= {"tre_mean": errors.mean(), "tre_median": np.median(errors)}
                yield row | {"from_chapters": np.linalg.norm(ends - reference, axis=1).mean()}


def main() -> None:
    """Measure all ways and save their medians over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, default=os.environ.get("REGNET_PAIR"), help="folder of a pair of scans")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    arguments = parser.parse_args()
    if not arguments.pair:
        print("affine: left out, no --pair\n")
        return
    table = pd.DataFrame(list(measured(Path(arguments.pair), arguments.threads)))
    keys = ["moving", "spacing", "iterations"]
    save(
        "affine", table.groupby(keys, sort=False)[["seconds", "tre_mean", "tre_median", "from_chapters"]].median().reset_index()
    )


if __name__ == "__main__":
    main()
