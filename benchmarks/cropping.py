"""elastix on whole images and on images cropped to the lungs: seconds and TRE of every method of config.yaml and bspline_best.

With ``--pair FOLDER`` (or the environment variable REGNET_PAIR), a folder with fixed, moving, fixed_mask and moving_mask in a
format that ITK reads, fixed_landmarks.txt and moving_landmarks.txt: at 1 mm, with one thread and one seed. Skipped without it.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from harness import compare, save, timed

from regnet.images.landmarks import read_landmark_pair
from regnet.images.transforms import read_transform, transform_points, write_transform
from regnet.images.volumes import Grid, read_ct, read_mask, resample_ct, resample_mask, write_image
from regnet.registration.run import register_pair

ELASTIX = Path(__file__).parents[1] / "config" / "elastix"
METHODS = ("affine", "bspline_1r", "bspline_3r", "bspline_best")
MARGINS = {"whole": None, "cropped": 20.0}
SPACING = 1.0
PREPARED = "REGNET_BENCHMARK_PREPARED"
"""Environment variable with the folder of the prepared files, for the processes that are measured."""


def file(folder: Path, name: str) -> Path:
    return next(path for path in sorted(folder.iterdir()) if path.name.partition(".")[0] == name)


def prepare(pair: Path, folder: Path) -> None:
    for side in ("fixed", "moving"):
        image = read_ct(file(pair, side))
        grid = Grid.of(image).isotropic(SPACING)
        write_image(resample_ct(image, grid), folder / f"{side}.nii.gz")
        write_image(resample_mask(read_mask(file(pair, f"{side}_mask")), grid), folder / f"{side}_mask.nii.gz")


def register(method: str, way: str) -> float:
    """Seconds of a registration from images in memory; writes the transform to the folder."""
    folder = Path(os.environ[PREPARED])
    fixed, moving = (read_ct(folder / f"{side}.nii.gz") for side in ("fixed", "moving"))
    masks = {f"{side}_mask": read_mask(folder / f"{side}_mask.nii.gz") for side in ("fixed", "moving")}
    initial = None if method == "affine" else read_transform(folder / "affine_whole.h5")
    settings = {"module": "elastix", "parameters": str(ELASTIX / f"{method}.txt")}
    log = folder / f"{method}_{way}.log"

    def register_and_write() -> None:
        transform = register_pair(fixed, moving, settings, **masks, initial=initial, margin=MARGINS[way], tool_log=log)
        write_transform(transform, folder / f"{method}_{way}.h5")

    return timed(register_and_write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, default=os.environ.get("REGNET_PAIR"), help="folder of a pair of scans")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default: 3)")
    arguments = parser.parse_args()
    if not arguments.pair:
        print("cropping: left out, no --pair\n")
        return
    with TemporaryDirectory() as name:
        folder, pair = Path(name), Path(arguments.pair)
        prepare(pair, folder)
        os.environ[PREPARED] = name
        fixed, moving = read_landmark_pair(pair / "fixed_landmarks.txt", pair / "moving_landmarks.txt")
        tables = []
        for method in METHODS:
            table = compare({way: partial(register, method, way) for way in MARGINS}, repeats=arguments.repeats)
            for row, way in enumerate(MARGINS):
                moved = transform_points(read_transform(folder / f"{method}_{way}.h5"), fixed)
                errors = np.linalg.norm(moved - moving, axis=1)
                table.loc[row, ["tre_mean", "tre_median"]] = errors.mean(), np.median(errors)
            tables.append(table.assign(method=method))
        save("cropping", pd.concat(tables, ignore_index=True).assign(landmarks=len(fixed), spacing=SPACING, unit="mm"))


if __name__ == "__main__":
    main()
