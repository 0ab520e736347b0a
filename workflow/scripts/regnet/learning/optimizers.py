"""The optimizers of a training stage."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from regnet.errors import ConfigError

OPTIMIZERS = ("adam", "muon")
"""Names in the config: the chapter's, and one that leaves the first plateau along all three axes at the same time."""

MOMENTUM = 0.8
"""Momentum of Muon; short trainings do better with a little less than its usual 0.95."""


class StageOptimizer:
    """Adam for all weights of a network, or Muon for the kernels of its inner convolutions and Adam for the rest.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; `torch.optim.Muon`) makes the singular values of each
    update equal. A kernel is taken as the matrix (outputs, inputs x 27). Its updates are scaled to the size of Adam's (Liu et
    al., 2025, arXiv:2502.16982), so that one learning rate serves both.

    Parameters
    ----------
    network
        On its device, in the memory format ``channels_last_3d``. Its weights may change in place, but not be replaced.
    name
        One of `OPTIMIZERS`.

    Raises
    ------
    ConfigError
        If there is no such optimizer.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        if name not in OPTIMIZERS:
            raise ConfigError(f"optimizer: found {name!r}, expected one of {', '.join(OPTIMIZERS)}")
        self.parameters = list(network.parameters())
        self.kernels = list(_inner_kernels(network)) if name == "muon" else []
        # Muon takes only matrices: each is a view of its kernel, so that a step on the matrix changes the kernel.
        self.matrices = [nn.Parameter(_as_matrix(kernel.data)) for kernel in self.kernels]
        inner = {id(kernel) for kernel in self.kernels}
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(p for p in self.parameters if id(p) not in inner)]
        if self.kernels:
            self.optimizers.append(
                torch.optim.Muon(self.matrices, weight_decay=0, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
            )

    def set_learning_rate(self, rate: float) -> None:
        """Use this learning rate from the next step on."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Update the weights from their gradients."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = _as_matrix(kernel.grad)
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The states of the optimizers, for a checkpoint."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Continue from states that `state_dict` returned for the same variant of the network and the same name."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def _inner_kernels(network: nn.Module) -> Iterator[nn.Parameter]:
    """The kernels of all convolutions between feature maps: not those on images, nor the last one, whose output is the DVF."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and module.in_channels > 2 and module.bias is None:
            yield module.weight


def _as_matrix(kernel: torch.Tensor) -> torch.Tensor:
    """The view (outputs, inputs x 27) of a kernel in ``channels_last_3d``; the order of its columns is immaterial."""
    return kernel.permute(0, 2, 3, 4, 1).view(kernel.shape[0], -1)
