"""What a device computes convolutions in: bfloat16 where it is fast and right, else float32. Only torch."""

import torch

WRONG_CUDNN = range(90800, 91100)
"""Versions of cuDNN (9.8 to 9.10) whose Conv3d in bfloat16 can be wrong without an error [PyTorch issue 163539]."""


def has_right_bfloat16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are right on a device, up to rounding: not on CUDA with one of `WRONG_CUDNN`."""
    return device.type != "cuda" or torch.backends.cudnn.version() not in WRONG_CUDNN


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are right and have hardware support; without it they are slower than float32."""
    if device.type == "cuda":
        return has_right_bfloat16(device) and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()
