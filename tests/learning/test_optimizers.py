"""The optimizers of a training stage: what a step does to which weights."""

import pytest
import torch

from regnet.errors import ConfigError
from regnet.learning.networks.regnet import RegNet
from regnet.learning.optimizers import StageOptimizer

RATE = 0.003
INNER = "joint.0.0.weight"


def steps_of(name):
    """How each weight of a network changes in the first step on random gradients."""
    torch.manual_seed(0)
    network = RegNet("regnet").to(memory_format=torch.channels_last_3d)
    optimizer = StageOptimizer(network, name)
    optimizer.set_learning_rate(RATE)
    before = {key: weight.detach().clone() for key, weight in network.named_parameters()}
    for weight in network.parameters():
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    changes = {key: weight.detach() - before[key] for key, weight in network.named_parameters()}
    gradients = {key: weight.grad.clone() for key, weight in network.named_parameters()}
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in network.parameters())
    return changes, gradients


def test_adam_moves_every_weight_against_its_gradient():
    changes, gradients = steps_of("adam")
    for key, change in changes.items():
        torch.testing.assert_close(change, -RATE * gradients[key].sign(), atol=1e-5, rtol=1e-3)


def test_muon_moves_inner_kernels_by_turns_of_equal_strength_and_the_rest_as_adam():
    changes, gradients = steps_of("muon")
    matrix = changes[INNER].flatten(1)
    strengths = torch.linalg.svdvals(matrix)
    assert strengths.min() > 0.5 * strengths.max()
    assert float((matrix * gradients[INNER].flatten(1)).sum()) < 0
    assert float(matrix.square().mean().sqrt()) == pytest.approx(0.2 * RATE, rel=0.3)
    for key in ("original.streams.0.0.weight", "joint.2.weight", "joint.0.1.bias"):
        torch.testing.assert_close(changes[key], -RATE * gradients[key].sign(), atol=1e-5, rtol=1e-3)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ConfigError, match="optimizer: found 'sgd', expected one of adam, muon"):
        StageOptimizer(RegNet("regnet"), "sgd")
