"""Every released file: its card, its size, and how well it registers a phantom under a known displacement."""

import re

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from with_network import register_with

from regnet.datasets.phantom import make_subject
from regnet.images.transforms import transform_points
from regnet.images.volumes import Grid, resample_ct, resample_mask
from regnet.learning.released import DEFAULT, REGNET, find_weights
from regnet.learning.weight_files import load_network
from regnet.registration import pyramid
from regnet.synthesis.pairs import deform, deform_mask, random_dvf
from regnet.synthesis.samples import HU_PER_UNIT, window_size
from regnet.system.resources import shipped

RELEASED = sorted(shipped("weights").glob("*.safetensors"))

PATCH_NETWORKS = [path for path in RELEASED if path.stem != "regnet_pyramid"]

RESPONDING = 0.25
"""The part of the features of each resolution that has to respond to a phantom; measured: 0.3 at low resolution."""

LARGEST_FILE = 6e6
"""Largest size of a released file, in bytes."""

THETA = 4
"""Largest component of the displacement, in voxels of the working grid: what all networks were trained with, or more."""

SIDE = 64
"""At most this many voxels along each axis are registered, in the middle of the right lung."""

LEFT = 0.45
"""The part of the mean displacement in the lungs that a network may leave; measured: 0.31, 0.18 and 0.33 at 1, 2 and 4 mm."""

LEFT_BY_VARIANTS = {"regnet_1scale_1mm": 0.75, "regnet_early_1mm": 0.65}
"""The same for the variants, which were trained for a short time, as their cards say; measured: 0.63 and 0.54."""


@pytest.fixture(scope="module")
def subject():
    return make_subject(11, spacing=(1.0, 1.0, 1.0), scale=0.6, landmarks=1)


def part(image):
    """At most `SIDE` voxels of an image along each axis: those around the middle of the right lung."""
    size = np.minimum(image.GetSize(), SIDE)
    first = (np.array(image.GetSize()) - size) // np.array([5, 2, 2])
    return sitk.RegionOfInterest(image, size.tolist(), first.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_released_weights_register_a_phantom(path, subject):
    network, facts = load_network(path)
    spacing = facts["spacing"] or 2.0
    grid = Grid.of(subject.baseline).isotropic(spacing)
    moving, lungs = part(resample_ct(subject.baseline, grid)), part(resample_mask(subject.lungs, grid))
    rng = np.random.default_rng(3)
    theta = THETA * spacing
    dvf = random_dvf(Grid.of(moving), sigma=2.5 * theta, points=20, theta=theta, border=10, rng=rng)
    fixed, mask = deform(moving, dvf, noise_sd=5, rng=rng), deform_mask(lungs, dvf)
    if path in PATCH_NETWORKS:
        transform = register_with(network, fixed, moving, None, mask=mask, window=facts["window"])
    else:
        settings = {"weights": path, "spacings": [spacing], "threads": 1, "gpus": 0}
        transform = pyramid.register(fixed, moving, mask, None, None, settings)
    index = np.argwhere(sitk.GetArrayViewFromImage(mask) != 0)[::97, ::-1]
    points, true = Grid.of(fixed).points(index), dvf.at(index)
    error = np.linalg.norm(transform_points(transform, points) - points - true, axis=1).mean()
    zero = np.linalg.norm(true, axis=1).mean()
    assert zero > 0.2 * theta
    assert error < LEFT_BY_VARIANTS.get(path.stem, LEFT) * zero


@pytest.mark.slow
@pytest.mark.parametrize("path", PATCH_NETWORKS, ids=lambda path: path.stem)
def test_both_resolutions_of_released_weights_respond(path, subject):
    network, facts = load_network(path)
    image = part(resample_ct(subject.baseline, Grid.of(subject.baseline).isotropic(facts["spacing"])))
    lower, upper = facts["window"]
    normalized = (torch.from_numpy(sitk.GetArrayFromImage(image)).float().clamp(lower, upper) - lower) / HU_PER_UNIT
    widths = [width for side in reversed(normalized.shape) for width in (0, max(0, window_size(4) - side))]
    window = torch.nn.functional.pad(normalized[None, None], widths, mode="replicate")
    for responding, features in network.responding_features(window, window).values():
        assert responding > RESPONDING * features


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_released_weights_have_a_card_and_the_size_they_may_have(path):
    assert path.stat().st_size < LARGEST_FILE
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert card.startswith(f"# {path.stem}\n")
    for word in ("CC BY", "LIDC-IDRI", "seed", "patches", "hours", "config hash", f"{path.stem}.csv"):
        assert word in card, word
    assert path.with_suffix(".csv").is_file()
    spacing = re.search(r"_(\d+)mm", path.stem)
    assert load_network(path)[1]["spacing"] == (float(spacing.group(1)) if spacing else None)


def test_the_default_weights_are_those_of_the_pyramid():
    assert [load_network(find_weights(name))[0].variant for name in DEFAULT] == ["regnet_pyramid"]


def test_regnets_weights_are_stages_from_coarse_to_fine():
    spacings = [load_network(find_weights(name))[1]["spacing"] for name in REGNET]
    assert spacings == sorted(spacings, reverse=True)
