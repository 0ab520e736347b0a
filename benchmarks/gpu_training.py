"""The training step on a GPU: patches per second in float32 and in bfloat16, and how well their displacement fields agree."""

import harness
import pandas as pd
import torch
from training_step import STAGE, TEXTURES, Replayed

from regnet.learning.batches import Batch
from regnet.learning.networks.regnet import RegNet
from regnet.learning.textures import TexturePairs, random_field, random_texture, warp_texture
from regnet.learning.training import Trainer, mean_absolute_errors

PATCHES = 256
"""Patches per step."""

TIMED_STEPS = 50
TRAINED_STEPS = 500


def trainer_of(bfloat16: bool) -> Trainer:
    torch.manual_seed(0)
    device = torch.device("cuda", 0)
    network = RegNet().to(device, memory_format=torch.channels_last_3d)
    return Trainer(network, device, 1.0, bfloat16)


def batches(count: int) -> list[Batch]:
    """Texture batches in the GPU's memory: feeding is measured elsewhere."""
    textures = TexturePairs({**TEXTURES, "batch": PATCHES}, torch.Generator().manual_seed(1))
    return [tuple(tensor.cuda() for tensor in textures.batch()) for _ in range(count)]


def seconds_of(bfloat16: bool) -> float:
    trainer, source = trainer_of(bfloat16), Replayed(batches(8))
    trainer.run_stage("before", source, STAGE, 1, 10, None)
    torch.cuda.synchronize()

    def run() -> None:
        trainer.run_stage("measured", source, STAGE, 1, TIMED_STEPS, None)
        torch.cuda.synchronize()

    return harness.timed(run)


def float32() -> float:
    return seconds_of(False)


def bfloat16() -> float:
    return seconds_of(True)


def agreement() -> pd.DataFrame:
    """A network trained in bfloat16, applied to an unseen texture pair in both precisions; lengths in voxels."""
    trainer = trainer_of(True)
    trainer.run_stage("training", Replayed(batches(50)), STAGE, 1, TRAINED_STEPS, None)
    generator = torch.Generator().manual_seed(2)
    moving, field = random_texture(116, 1.5, generator), random_field(116, 30, 2.0, generator)
    fixed, target = warp_texture(moving, field), torch.nn.functional.avg_pool3d(field[:, :, 26:90, 26:90, 26:90], 2)
    trainer.network.eval()
    fields = {}
    with torch.inference_mode():
        for name in ("float32", "bfloat16"):
            trainer.bfloat16 = name == "bfloat16"
            fields[name] = trainer.predict(fixed, moving).float().cpu()
    difference = (fields["bfloat16"] - fields["float32"]).abs()
    rows = {name: float(mean_absolute_errors(predicted, target).sum()) for name, predicted in fields.items()}
    table = pd.DataFrame({"precision": list(rows), "mae_voxels": list(rows.values())})
    return table.assign(
        zero_field_voxels=float(mean_absolute_errors(torch.zeros(()), target).sum()),
        mean_difference_voxels=float(difference.mean()),
        largest_difference_voxels=float(difference.max()),
    )


if __name__ == "__main__":
    if torch.cuda.is_available():
        speed = harness.compare({"float32": float32, "bfloat16": bfloat16})
        speed.insert(1, "patches_per_second", PATCHES * TIMED_STEPS / speed["seconds"])
        harness.save("gpu_training", speed)
        harness.save("gpu_training_agreement", agreement())
    else:
        print("gpu_training: skipped, no CUDA device\n")
