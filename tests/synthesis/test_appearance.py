"""Changes of appearance against images whose changes can be measured."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from regnet.synthesis.appearance import Appearance, blurred, change, smooth_field, source_of_pair

SIDE = 41

NOTHING = {"density": 0.0, "local_changes": 0.0, "blur": 0.0, "noise": 0.0}


def changed(hu, seed, **levels):
    image = torch.full((1, 1, SIDE, SIDE, SIDE), float(hu))
    return change(image, Appearance(**{**NOTHING, **levels}), torch.Generator().manual_seed(seed)) - hu


def test_at_level_0_there_is_noise_of_4_hu_alone():
    for seed in range(5):
        difference = changed(-800, seed)
        assert float(difference.std()) == pytest.approx(4, rel=0.1)
        assert abs(float(difference.mean())) < 1


def test_noise_is_log_uniform_between_4_and_60_hu():
    deviations = np.array([float(changed(-800, seed, noise=1.0).std()) for seed in range(80)])
    assert deviations.min() > 3.6
    assert deviations.max() < 64
    assert np.log(deviations).mean() == pytest.approx((math.log(4) + math.log(60)) / 2, abs=0.25)


def test_density_changes_lung_and_neither_air_nor_tissue():
    def largest(hu):
        return max(float(blurred(changed(hu, seed, density=1.0), [3.0] * 3).abs().max()) for seed in range(8))

    assert largest(-800) > 15
    # exp(0.35) - 1 is the most that density may grow by.
    assert largest(-800) < 200 * (math.exp(0.35) - 1) + 5
    assert largest(-1000) < 8
    assert largest(50) < 8


def test_local_changes_are_in_half_of_the_images():
    largest = [float(blurred(changed(-800, seed, local_changes=1.0), [2.0] * 3).abs().max()) for seed in range(80)]
    assert 0.3 < np.mean(np.array(largest) > 10) < 0.65


def test_a_large_volume_has_local_changes_all_over():
    image = torch.full((1, 1, 70, 140, 130), -800.0)
    levels = Appearance(**{**NOTHING, "local_changes": 1.0})
    octants = np.zeros(8)
    for seed in range(12):
        difference = blurred(change(image, levels, torch.Generator().manual_seed(seed)) + 800, [2.0] * 3)[0, 0]
        parts = [part for half in difference.chunk(2) for row in half.chunk(2, dim=1) for part in row.chunk(2, dim=2)]
        octants += [float(part.abs().max()) > 10 for part in parts]
    # Four times the voxels of a crop: about five ellipsoids each.
    assert octants.min() >= 3


def test_the_input_stays_as_it_is():
    image = torch.full((1, 1, SIDE, SIDE, SIDE), -800.0)
    change(image, Appearance(), torch.Generator().manual_seed(0))
    assert (image == -800).all()


def test_levels_that_are_all_0_change_nothing_at_all():
    assert Appearance.of(NOTHING) is None
    assert Appearance.of(None) is None
    assert Appearance.of({**NOTHING, "blur": 0.5}) == Appearance(**{**NOTHING, "blur": 0.5})


def test_the_source_of_a_pair_is_moved_by_a_part_of_a_voxel_and_softer_by_a_random_share():
    """The shifts show on ramps; images resampled with them by SciPy then give the share."""
    image = torch.randn(1, 1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    soft = blurred(image, [0.8] * 3)
    shares, shifts = [], []
    for seed in range(5):
        shift = []
        for axis in (2, 3, 4):
            ramp = torch.arange(float(SIDE)).view([-1 if axis == other else 1 for other in range(5)]).expand_as(image)
            moved = source_of_pair(ramp, torch.Generator().manual_seed(seed)) - ramp
            shift.append(float(moved[0, 0, 20, 20, 20]))
            assert moved[..., 8:-8, 8:-8, 8:-8].std() < 1e-4
        source = source_of_pair(image, torch.Generator().manual_seed(seed))[0, 0].numpy()
        sharp, softer = (ndimage.shift(one[0, 0].numpy(), np.negative(shift), order=1, mode="nearest") for one in (image, soft))
        share = ((source - sharp) * (softer - sharp)).sum() / ((softer - sharp) ** 2).sum()
        np.testing.assert_allclose(source, sharp + share * (softer - sharp), atol=1e-4)
        shares.append(share)
        shifts.append(shift)
    assert 0 <= min(shares) < max(shares) <= 1
    assert 0.25 < np.abs(shifts).max() <= 0.5
    assert np.min(shifts) < 0 < np.max(shifts)


def test_a_gaussian_blurs_along_its_axis_alone():
    point = torch.zeros(1, 1, 21, 21, 21)
    point[0, 0, 10, 10, 10] = 1
    spread = blurred(point, [0.0, 2.0, 0.0])[0, 0]
    assert spread[:, :, 10].sum() == pytest.approx(1, abs=1e-5)
    along = spread[10, :, 10]
    positions = torch.arange(21) - 10.0
    assert float((along * positions**2).sum()) == pytest.approx(4, rel=0.05)
    assert float(spread[9].abs().max()) == 0


def test_smooth_fields_reach_1_and_are_smooth():
    field = smooth_field((SIDE, SIDE, 30), 20, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(field.abs().amax(dim=(0, 2, 3, 4)), torch.ones(3))
    assert field.diff(dim=-1).abs().max() < 0.2
