"""The training step on a CPU: forward, backward and update on single patches, in a plain loop and as our training does it.

Both learn from the same texture batches with Adam at the same rate. The plain loop is in float32 and contiguous; ours is
`Trainer`, with its memory format and precision. Beside the speed, it compares their losses, and those of the plain loop from
other initial weights, which differ by chance.
"""

import itertools
from collections.abc import Callable

import harness
import pandas as pd
import torch

from regnet.learning.batches import Batch
from regnet.learning.devices import has_fast_bfloat16
from regnet.learning.networks.regnet import RegNet
from regnet.learning.textures import TexturePairs
from regnet.learning.training import Trainer, mean_absolute_errors

PATCHES = 16
"""Patches per step."""

TIMED_STEPS = 5
COMPARED_STEPS = 40
COMPARED_AT_THE_END = 10

RATE = 0.001

TEXTURES = {
    **{"batch": PATCHES, "block": 1, "size": 96, "volumes": 4, "renew_every": 10_000},
    **{"texture_sigma": 1.5, "field_sigma": [20, 40], "maximum": 2},
}
STAGE = {"optimizer": "adam", "learning_rate": RATE, "schedule": "decay", "decay": 1.0, "rise": 0, "freeze_after": None}


class Replayed:
    """Batches drawn in advance, repeated in a cycle."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = itertools.cycle(batches)

    def batch(self) -> Batch:
        return next(self._batches)


def draw(count: int) -> list[Batch]:
    textures = TexturePairs(TEXTURES, torch.Generator().manual_seed(1))
    return [textures.batch() for _ in range(count)]


def plain_loop(batches: list[Batch], seed: int = 0) -> Callable[[int], list[float]]:
    """A function that trains for some steps and returns their losses, as in a tutorial."""
    torch.manual_seed(seed)
    network, source = RegNet(), Replayed(batches)
    optimizer = torch.optim.Adam(network.parameters(), RATE)

    def run(steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            fixed, moving, target = source.batch()
            loss = (network(fixed, moving) - target).abs().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    return run


def our_loop(batches: list[Batch], seed: int = 0) -> Callable[[int], list[float]]:
    """The same with `Trainer`."""
    torch.manual_seed(seed)
    device = torch.device("cpu")
    network = RegNet().to(memory_format=torch.channels_last_3d)
    trainer, source = Trainer(network, device, 1.0, has_fast_bfloat16(device)), Replayed(batches)

    def run(steps: int) -> list[float]:
        trainer.run_stage("measured", source, STAGE, steps, 1, None)
        return [row["loss"] for row in trainer.rows[-steps:]]

    return run


def plainly() -> float:
    return seconds_of(plain_loop)


def ours() -> float:
    return seconds_of(our_loop)


def seconds_of(loop: Callable[[list[Batch]], Callable[[int], list[float]]]) -> float:
    run = loop(draw(TIMED_STEPS))
    run(1)
    return harness.timed(lambda: run(TIMED_STEPS))


def losses() -> pd.DataFrame:
    """Compare the losses of both, step by step on the same batches."""
    batches = draw(COMPARED_STEPS)
    loops = {"plainly": plain_loop(batches), "ours": our_loop(batches), "plainly, other weights": plain_loop(batches, seed=1)}
    curves = pd.DataFrame({name: run(COMPARED_STEPS) for name, run in loops.items()})
    last = curves.tail(COMPARED_AT_THE_END)
    table = pd.DataFrame({"loss_at_the_start": curves.iloc[0], "loss_at_the_end": last.mean()})
    table["difference_from_plainly"] = curves.sub(curves["plainly"], axis=0).abs().mean()
    zero_field = torch.stack([mean_absolute_errors(torch.zeros(()), target).sum() for _, _, target in batches])
    return table.assign(zero_field=float(zero_field.mean())).rename_axis("way").reset_index()


if __name__ == "__main__":
    speed = harness.compare({"plainly": plainly, "ours": ours}, repeats=3)
    speed.insert(1, "patches_per_second", PATCHES * TIMED_STEPS / speed["seconds"])
    harness.save("training_step", speed)
    harness.save("training_step_losses", losses())
