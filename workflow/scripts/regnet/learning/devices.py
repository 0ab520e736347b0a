"""The device that a job computes on, and whether its convolutions in bfloat16 are fast and correct."""

import logging

import torch

from regnet.errors import ConfigError
from regnet.learning.processes import process_count

log = logging.getLogger(__name__)

WRONG_CUDNN = range(90800, 91100)
"""Versions of cuDNN (9.8 to 9.10) whose Conv3d in bfloat16 can be silently wrong [PyTorch issue 163539]."""


def has_correct_bfloat16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are correct up to rounding on a device: not on CUDA with one of `WRONG_CUDNN`."""
    return device.type != "cuda" or torch.backends.cudnn.version() not in WRONG_CUDNN


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are correct and have hardware support; without it they are slower than float32."""
    if device.type == "cuda":
        return has_correct_bfloat16(device) and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def require_correct_bfloat16(precision: str, device: torch.device) -> None:
    """Refuse a precision of the config that a device computes wrongly.

    Raises
    ------
    ConfigError
        If it is ``bfloat16``, and cuDNN is one of `WRONG_CUDNN`.
    """
    if precision == "bfloat16" and not has_correct_bfloat16(device):
        raise ConfigError(
            f"regnet.precision: found bfloat16, which cuDNN {torch.backends.cudnn.version()} computes wrongly; "
            "expected auto or float32"
        )


def trains_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a training with a precision of the config runs its convolutions in bfloat16 on a device."""
    return precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(device))


def pick_device(granted_gpus: int) -> torch.device:
    """CUDA if the job was granted a GPU and torch finds one, else the CPU; the log says which."""
    if granted_gpus > 0 and torch.cuda.is_available():
        # All windows of a stage have the same size, so that cuDNN's search for its fastest algorithms pays off.
        torch.backends.cudnn.benchmark = True
        processes = f", {process_count()} GPUs" if process_count() > 1 else ""
        log.info("device: %s%s (torch %s)", torch.cuda.get_device_name(), processes, torch.__version__)
        return torch.device("cuda", torch.cuda.current_device())
    reason = "no GPU was granted" if granted_gpus == 0 else "torch finds no CUDA device"
    log.info("device: CPU with %d threads, as %s (torch %s)", torch.get_num_threads(), reason, torch.__version__)
    return torch.device("cpu")


def device_name(granted_gpus: int, threads: int) -> str:
    """A readable name of the device that `pick_device` picks; for a CPU with the threads, on which rounding depends."""
    if granted_gpus > 0 and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
