"""The optimizers of a training stage."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from regnet.errors import ConfigError

OPTIMIZERS = ("adam", "muon")
"""Names in the config: the chapter's, and one that leaves the first plateau along all three axes at the same time."""


@dataclass(frozen=True)
class Optimization:
    """How an optimizer treats a network: each network has one as its attribute ``optimization``.

    Attributes
    ----------
    momentum
        Of Muon; short trainings do better with a little less than its usual 0.95.
    adam_rate
        Learning rate of the weights that Adam moves beside Muon, relative to that of the inner kernels.
    largest_gradient
        Norm to which the gradient of the weights that Adam moves is clipped; None for no limit.
    """

    momentum: float = 0.8
    adam_rate: float = 1.0
    largest_gradient: float | None = None


class StageOptimizer:
    """Adam for all weights of a network, or Muon for the kernels of its inner convolutions and Adam for the rest.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon; `torch.optim.Muon`) makes the singular values of each
    update equal. A kernel is taken as the matrix (outputs, inputs x 27). Its updates are scaled to the size of Adam's (Liu et
    al., 2025, arXiv:2502.16982), so that one learning rate serves both.

    Parameters
    ----------
    network
        On its device, in its memory format. Muon changes its ``inner_kernels()``, as its ``optimization`` says.
        Its weights may change in place, but not be replaced.
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
        self.optimization: Optimization = network.optimization
        self.kernels = list(network.inner_kernels()) if name == "muon" else []
        # Muon takes only matrices: each is a view of its kernel, so that a step on the matrix changes the kernel.
        self.matrices = [nn.Parameter(_as_matrix(kernel.data)) for kernel in self.kernels]
        inner = {id(kernel) for kernel in self.kernels}
        self.others = [parameter for parameter in self.parameters if id(parameter) not in inner]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(self.others)]
        if self.kernels:
            self.optimizers.append(
                torch.optim.Muon(
                    self.matrices, weight_decay=0, momentum=self.optimization.momentum, adjust_lr_fn="match_rms_adamw"
                )
            )

    def set_learning_rate(self, rate: float) -> None:
        """Use this learning rate from the next step on."""
        adam, *muon = self.optimizers
        for optimizer, share in ((adam, self.optimization.adam_rate if muon else 1.0), *((one, 1.0) for one in muon)):
            for group in optimizer.param_groups:
                group["lr"] = rate * share

    def zero_grad(self) -> None:
        """Clear the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Update the weights from their gradients."""
        if self.optimization.largest_gradient is not None:
            nn.utils.clip_grad_norm_(self.others, self.optimization.largest_gradient)
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


def _as_matrix(kernel: torch.Tensor) -> torch.Tensor:
    """The view (outputs, inputs x 27) of a kernel in any memory format; the order of its columns is immaterial."""
    if kernel.is_contiguous():
        return kernel.view(kernel.shape[0], -1)
    return kernel.permute(0, 2, 3, 4, 1).view(kernel.shape[0], -1)
