"""The network's shapes, sizes and variants."""

import pytest
import torch

from regnet.errors import ConfigError
from regnet.learning.networks.interface import parameter_count
from regnet.learning.networks.regnet import VARIANTS, RegNet
from regnet.synthesis.samples import window_size


def test_regnet_has_the_number_of_parameters_of_the_authors_network():
    assert parameter_count(RegNet("regnet")) == 903_961


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_of_comparable_size(variant):
    assert parameter_count(RegNet(variant)) == pytest.approx(903_961, rel=0.02)


def test_the_chapters_patches_are_the_window_of_one_output():
    assert window_size(1) == 54


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_a_window_gives_its_outputs(variant, outputs):
    side = window_size(outputs)
    network = RegNet(variant).eval()
    with torch.inference_mode():
        field = network(torch.randn(2, 1, side, side, side), torch.randn(2, 1, side, side, side))
    assert field.shape == (2, 3, outputs, outputs, outputs)


@pytest.mark.parametrize(("variant", "reach"), [("regnet", 26), ("regnet_early", 26), ("regnet_1scale", 13)])
def test_the_receptive_field_is_the_patch_around_the_output(variant, reach):
    network = RegNet(variant).eval()
    fixed = torch.randn(1, 1, 54, 54, 54, requires_grad=True)
    network(fixed, torch.randn(1, 1, 54, 54, 54)).abs().sum().backward()
    (reached,) = torch.nonzero(fixed.grad.abs().amax(dim=(0, 1, 2, 3)), as_tuple=True)
    # The output is at 26.5. Pooling in pairs leaves out the last voxel of the 29^3 patch: -14 to +13 around voxel 27.
    assert reached.min() == 26.5 - reach - 0.5
    assert reached.max() == 26.5 + reach + 0.5


def test_an_unknown_variant_is_named():
    with pytest.raises(ConfigError, match="regnet_2scale"):
        RegNet("regnet_2scale")


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_that_never_respond_are_counted(variant):
    network = RegNet(variant).eval()
    windows = torch.rand(2, 2, 1, *[window_size(1)] * 3, generator=torch.Generator().manual_seed(0))
    counts = network.responding_features(*windows)
    assert counts["original"][1] == (60 if variant == "regnet_1scale" else 30)
    assert counts["original"][0] > 0
    assert ("low" in counts) == (variant != "regnet_1scale")
    if network.low is not None:
        network.low.merged[-2].bias.data[:12] = -100
        network.low.merged[-2].bias.data[12:] = 100
        assert network.responding_features(*windows)["low"] == (18, 30)
