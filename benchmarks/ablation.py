"""What each part of the feature pyramid is worth: the same short training with one part taken away at a time.

``--crops FOLDER`` has the volumes to cut crops from, as the rule ``prepare_crops`` writes them, ``--validation NAME ...`` those
of them that are not trained on. All trainings take the same steps, with the settings of ``config/config.yaml``; errors are on
crops of the validation volumes, changed as the training changes them ("hard") and with noise alone ("plain"). This benchmark
measures errors, not time.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
import matplotlib as mpl
import pandas as pd
import torch
import yaml
from matplotlib import pyplot as plt
from torch import Tensor

from regnet.learning.batches import Prefetch
from regnet.learning.crops import CropPairs, Volume
from regnet.learning.devices import pick_device, trains_in_bfloat16
from regnet.learning.networks import pyramid
from regnet.learning.networks.pyramid import CHANNELS, RegNetPyramid
from regnet.learning.pyramid_training import (
    TEXTURES,
    CropBatches,
    distance_loss,
    read_volume,
    validation_crops,
    validation_errors,
)
from regnet.learning.training import Trainer
from regnet.synthesis.appearance import Appearance

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config" / "config.yaml").read_text(encoding="utf-8"))

SETTINGS = CONFIG["pyramid"] | {"freeze_after": None, "schedule": "cosine"}

HARD = {"appearance": Appearance.of(SETTINGS["appearance"]), "sliding": SETTINGS["sliding"]}

PLAIN: dict[str, Any] = {"appearance": None, "sliding": 0.0}

VALIDATIONS = 6
"""How often each training is validated."""


class WithoutCorrelation(RegNetPyramid):
    """Gets the warped moving features as they are, beside the fixed ones."""

    def compared_maps(self, level: int) -> int:
        return CHANNELS[level]

    def compare(self, level: int, fixed: Tensor, projected: Tensor) -> Tensor:
        return projected


def with_radii(*radii: int) -> RegNetPyramid:
    """A network that compares within other radii, fine to coarse, in nodes."""

    class Network(RegNetPyramid):
        def compared_maps(self, level: int) -> int:
            return (2 * radii[level] + 1) ** 3

        def compare(self, level: int, fixed: Tensor, projected: Tensor) -> Tensor:
            units = (pyramid.unit(features) for features in (self.project(level, fixed), projected))
            return pyramid.correlate(*units, radii[level]) * self.sharpness[level]

    return Network()


WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no correlation": {"network": WithoutCorrelation},
    "radius 1 at all levels": {"network": lambda: with_radii(1, 1, 1)},
    "radius 2 at the finest level": {"network": lambda: with_radii(2, 2, 3)},
    "plain pairs": {"changes": PLAIN},
    "no textures": {"textures": (0.0, 0.0)},
    "1 mm alone": {"spacings": (1.0,)},
}
"""What each training does otherwise."""


def trained(
    way: str,
    training: Sequence[Volume],
    validation: Sequence[Volume],
    steps: int,
    *,
    network: Any = RegNetPyramid,
    changes: Mapping[str, Any] = HARD,
    textures: tuple[float, float] = TEXTURES,
    spacings: tuple[float, ...] = (1.0, 2.0),
) -> Iterator[dict[str, object]]:
    """Train in one way; the errors on plain and hard crops at each validation, in mm."""
    torch.manual_seed(0)
    window, device = tuple(CONFIG["regnet"]["window"]), pick_device(torch.cuda.device_count())
    trainer = Trainer(network().to(device), device, 1.0, trains_in_bfloat16("auto", device), objective=distance_loss)
    volumes = [volume for volume in training if volume.spacing in spacings]
    pairs = CropPairs(volumes, window, torch.Generator().manual_seed(0), **changes)
    batches = Prefetch(CropBatches(pairs, window, SETTINGS["batch"], steps, textures=textures))
    held_out = {
        (kind, spacing): validation_crops([volume for volume in validation if volume.spacing == spacing], window, changed)
        for kind, changed in (("plain", PLAIN), ("hard", HARD))
        for spacing in (1.0, 2.0)
    }
    rows: list[dict[str, object]] = []

    def validate() -> tuple[Tensor, Tensor]:
        for (kind, spacing), crops in held_out.items():
            errors = validation_errors(trainer, crops, window)
            mae, zero = (float(of_axes.sum()) for of_axes in errors)
            rows.append({"way": way, "step": trainer.blocks // SETTINGS["batch"], "pairs": kind, "spacing": spacing})
            rows[-1] |= {"mae": mae, "zero_field": zero}
            print(rows[-1], flush=True)
        return errors

    trainer.run_stage("training", batches, SETTINGS, VALIDATIONS, steps // VALIDATIONS, validate)
    seconds = trainer.rows[-1]["seconds"]
    yield from (row | {"seconds": seconds} for row in rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """The curves: errors on hard pairs against steps, at both spacings."""
    mpl.use("Agg")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, spacing in zip(axes, (1.0, 2.0), strict=True):
        hard = table[(table["pairs"] == "hard") & (table["spacing"] == spacing)]
        for way, curve in hard.groupby("way", sort=False):
            axis.plot(curve["step"], curve["mae"], marker=".", label=way)
        axis.set(title=f"{spacing:g} mm", xlabel="steps", yscale="log")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("mean absolute error (mm)")
    axes[1].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Train in all ways, or in some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=Path, help="results/EXPERIMENT/crops")
    parser.add_argument("--validation", nargs="+", default=["lung1_001", "lung1_002"], help="volumes not to train on")
    parser.add_argument("--steps", type=int, default=600, help="of each training (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="which ways (default: all)")
    arguments = parser.parse_args()
    if arguments.crops is None:
        print("ablation: left out, no --crops\n")
        return
    volumes: dict[bool, list[Volume]] = {True: [], False: []}
    for path in sorted(arguments.crops.glob("*mm/*.npz")):
        volumes[path.stem in arguments.validation].append(read_volume(path))
    rows = [row for way in arguments.ways for row in trained(way, volumes[False], volumes[True], arguments.steps, **WAYS[way])]
    table = pd.DataFrame(rows)
    harness.save("ablation", table)
    draw(table, harness.RESULTS / "ablation.png")


if __name__ == "__main__":
    main()
