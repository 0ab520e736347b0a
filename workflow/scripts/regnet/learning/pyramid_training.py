"""Training of the feature pyramid on crops that are made on the way. Only torch, numpy and safetensors."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regnet.errors import InputError
from regnet.learning.batches import Prefetch
from regnet.learning.checkpoints import Checkpoints
from regnet.learning.crops import Crop, CropPairs, Volume
from regnet.learning.devices import trains_in_bfloat16
from regnet.learning.monitoring import EventFiles
from regnet.learning.networks.interface import parameter_count
from regnet.learning.networks.pyramid import LEVELS, RegNetPyramid
from regnet.learning.processes import process_number
from regnet.learning.training import Trainer
from regnet.learning.weight_files import load_network
from regnet.synthesis.appearance import Appearance
from regnet.synthesis.samples import normalize
from regnet.system.files import NPZ_ERRORS

log = logging.getLogger(__name__)

LEVEL_WEIGHTS = (0.25, 0.5, 1.0)
"""Of the levels in the loss, coarse to fine."""

OUTSIDE_LUNGS, OUTSIDE_CROP = 0.05, 0.1
"""Weights in the loss of nodes outside the lungs, and of those whose match lies outside the crop."""

SMALLEST_DISTANCE = 1e-2
"""In voxels, added in squares to distances, whose gradient is then finite everywhere."""

TEXTURES, TEXTURES_UNTIL = (0.9, 0.1), 0.12
"""Share of textures among the pairs at first and later, and the part of the training in which it falls."""

RISE, SMALLEST_AMPLITUDE = 0.3, 0.45
"""The part of the training in which displacements and differences grow to their full size, and the factor on displacements at
first; the differences begin at nothing."""

VALIDATION_SIDE, VALIDATION_CROPS = 97, 4
"""Voxels along each axis of a validation crop, and the number of crops of each validation volume."""


def distance_loss(found: Sequence[Tensor], displacement: Tensor, lungs: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor]:
    """The mean distance between found and true displacements at the nodes of all levels, weighted.

    Parameters
    ----------
    found
        Of the network: a field for each level, coarse to fine, in voxels.
    displacement
        The truth at every voxel, ``(n, 3, z, y, x)``, in voxels.
    lungs
        1 in the lungs of the fixed image, ``(n, 1, z, y, x)``.
    spacing
        Of the voxels of each crop, in mm: ``(n, 1, 1, 1, 1)``.

    Returns
    -------
    loss : Tensor
        In voxels.
    errors : Tensor
        The mean absolute errors of the finest level in the lungs, along x, y and z, in mm.
    """
    side = displacement.shape[-1]
    middle = torch.arange(side, device=displacement.device) - (side - 1) / 2
    nodes = torch.stack(torch.meshgrid(middle, middle, middle, indexing="ij")[::-1])
    matched = ((nodes + displacement).abs().amax(dim=1, keepdim=True) <= (side - 1) / 2).float()
    weights = (OUTSIDE_LUNGS + (1 - OUTSIDE_LUNGS) * lungs) * (OUTSIDE_CROP + (1 - OUTSIDE_CROP) * matched)
    loss = displacement.new_zeros(())
    for number, (field, of_level) in enumerate(zip(found, LEVEL_WEIGHTS, strict=True)):
        step = 2 ** (LEVELS - number)
        at_nodes = (..., *(slice(None, None, step),) * 3)
        squares = (field - displacement[at_nodes]).square().sum(dim=1, keepdim=True)
        distances = (squares + SMALLEST_DISTANCE**2).sqrt()
        loss = loss + of_level * (distances * weights[at_nodes]).sum() / weights[at_nodes].sum()
    return loss, lung_errors(found[-1].detach(), displacement, lungs, spacing)


def lung_errors(field: Tensor, displacement: Tensor, lungs: Tensor, spacing: Tensor) -> Tensor:
    """Mean absolute errors of a field at every second voxel, in the lungs, along x, y and z, in mm."""
    at_nodes = (..., *(slice(None, None, 2),) * 3)
    inside = lungs[at_nodes]
    errors = (field - displacement[at_nodes]).abs() * inside * spacing
    return errors.sum(dim=(0, 2, 3, 4)) / inside.sum().clamp(min=1)


class CropBatches:
    """Batches of crops that grow harder: textures and small displacements of equal images first (`CropPairs`).

    Parameters
    ----------
    pairs
        The source of the crops.
    window
        Lowest and highest HU that the network sees.
    batch
        Crops per batch.
    steps
        Batches of the whole training.
    trained
        Whether the network has been through all that: the batches are then as hard as they get from the first one on.
    textures
        Share of textures among the pairs, at first and later.
    """

    def __init__(
        self,
        pairs: CropPairs,
        window: tuple[float, float],
        batch: int,
        steps: int,
        *,
        trained: bool = False,
        textures: tuple[float, float] = TEXTURES,
    ) -> None:
        self.pairs = pairs
        self.window = window
        self.count = batch
        self.steps = steps
        self.trained = trained
        self.textures = textures
        self.drawn = 0

    def batch(self) -> tuple[Tensor, ...]:
        """Fixed and moving crops, displacements, lungs, and spacings, as `distance_loss` takes them."""
        progress = 1.0 if self.trained else self.drawn / self.steps
        self.drawn += 1
        falling = max(0.0, 1 - progress / TEXTURES_UNTIL)
        first, later = self.textures
        self.pairs.texture_share = later + (first - later) * falling
        rising = min(1.0, progress / RISE)
        self.pairs.amplitude = SMALLEST_AMPLITUDE + (1 - SMALLEST_AMPLITUDE) * rising
        self.pairs.difficulty = rising
        return stacked([self.pairs.draw() for _ in range(self.count)], self.window)

    def state_dict(self) -> dict[str, Any]:
        """The generator, and how many batches were drawn."""
        return {"generator": self.pairs.generator.get_state(), "drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave for the same volumes."""
        self.pairs.generator.set_state(state["generator"])
        self.drawn = state["drawn"]


def stacked(crops: Sequence[Crop], window: tuple[float, float]) -> tuple[Tensor, ...]:
    """Crops as one batch: fixed and moving as the network sees them, displacements, lungs, spacings ``(n, 1, 1, 1, 1)``."""
    fixed, moving = (normalize(torch.cat([getattr(crop, side) for crop in crops]), window) for side in ("fixed", "moving"))
    spacing = torch.tensor([crop.spacing for crop in crops]).view(-1, 1, 1, 1, 1)
    return fixed, moving, torch.cat([crop.displacement for crop in crops]), torch.cat([crop.lungs for crop in crops]), spacing


def read_volume(path: str | Path) -> Volume:
    """A volume that the rule ``prepare_crops`` wrote.

    Raises
    ------
    InputError
        If the file cannot be read as such a volume.
    """
    try:
        with open(path, "rb") as file, np.load(file) as stored:
            return Volume(stored["hu"], stored["lungs"], float(stored["spacing"]))
    except NPZ_ERRORS as error:
        raise InputError(f"{path}: cannot be read as a volume to cut crops from ({error})") from error


def train_pyramid(
    training: Sequence[Volume],
    validation: Sequence[Volume],
    settings: Mapping[str, Any],
    *,
    window: tuple[float, float],
    seed: int,
    device: torch.device,
    start: str | Path | None = None,
    checkpoints: Checkpoints | None = None,
    events: str | Path | None = None,
) -> Trainer:
    """Train a feature pyramid from scratch, from the weights of an earlier training, or from a checkpoint.

    Parameters
    ----------
    training, validation
        Volumes of the training and of the validation images, at one or several spacings.
    settings
        The config's ``pyramid``, and ``precision`` of its ``training``.
    window
        Lowest and highest HU that the network sees.
    seed
        Fixes the initial weights and everything that is drawn.
    device
        Where to train.
    start
        Weights to start from; None to start from random ones.
    checkpoints
        Where the state is written after each epoch and every few minutes; None for nowhere.
    events
        Folder for TensorBoard's event files; None for none.

    Returns
    -------
    Trainer
        With the last weights in ``network`` and the best ones in ``best``. Errors are means over all validation crops, in mm.

    Raises
    ------
    InputError
        If the weights to start from cannot be read, or are of another network.
    RegNetError
        If the loss is not finite.
    """
    torch.manual_seed(seed)
    network, facts = load_network(start, variant=RegNetPyramid.variant) if start else (RegNetPyramid(), {})
    network = network.to(device)
    bfloat16 = trains_in_bfloat16(settings["precision"], device)
    log.info("%s: %d parameters, %s", network.variant, parameter_count(network), "bfloat16" if bfloat16 else "float32")
    trainer = Trainer(network, device, 1.0, bfloat16, checkpoints, objective=distance_loss)
    trainer.blocks, trainer.patches = facts.get("blocks_seen", 0), facts.get("patches_seen", 0)
    state = checkpoints.load() if checkpoints else None
    if state:
        trainer.load_state_dict(state)
    if events and process_number() == 0:
        trainer.events = EventFiles(events, trainer.patches)
    appearance = Appearance.of(settings["appearance"])
    changes = {"appearance": appearance, "sliding": settings["sliding"]}
    pairs = CropPairs(training, window, torch.Generator().manual_seed(seed), **changes)
    steps = settings["epochs"] * settings["steps_per_epoch"]
    # The processor makes the next crops while the network learns from these.
    batches = Prefetch(CropBatches(pairs, window, settings["batch"], steps, trained=start is not None))
    held_out = validation_crops(validation, window, changes)

    def validate() -> tuple[Tensor, Tensor]:
        return validation_errors(trainer, held_out, window)

    schedule = {"freeze_after": None, "schedule": "cosine", **settings}
    trainer.run_stage("training", batches, schedule, settings["epochs"], settings["steps_per_epoch"], validate)
    if trainer.events:
        trainer.events.close()
    return trainer


def validation_crops(volumes: Sequence[Volume], window: tuple[float, float], changes: Mapping[str, Any]) -> list[Crop]:
    """The same crops for every validation: `VALIDATION_CROPS` of each volume, at full amplitude and difficulty."""
    pairs = CropPairs(volumes, window, torch.Generator().manual_seed(0), side=VALIDATION_SIDE, **changes)
    return [pairs.draw(number) for number in range(len(volumes)) for _ in range(VALIDATION_CROPS)]


def validation_errors(trainer: Trainer, crops: Sequence[Crop], window: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Mean errors along x, y and z in the lungs of crops, in mm: those of the network, and those of no displacement."""
    trainer.network.eval()
    errors = torch.zeros(2, 3)
    with torch.inference_mode():
        for crop in crops:
            fixed, moving, *truth = (tensor.to(trainer.device) for tensor in stacked([crop], window))
            field = trainer.predict(fixed, moving)[-1]
            errors += torch.stack([lung_errors(one, *truth) for one in (field, torch.zeros_like(field))]).cpu()
    of_network, of_zero_field = errors / len(crops)
    return of_network, of_zero_field
