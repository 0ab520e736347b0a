"""RegNet: a network that predicts the displacement field between two CT images, its training data, baselines and evaluation.

From Python, `register` registers two scans in memory and returns a `Registration` (docs/python.md).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

__all__ = ["Grid", "Inverse", "RegNetError", "Registration", "invert", "read_ct", "read_transform", "register"]

if TYPE_CHECKING:
    from regnet.api import Registration, register
    from regnet.errors import RegNetError
    from regnet.images.inverse import Inverse, invert
    from regnet.images.transforms import read_transform
    from regnet.images.volumes import Grid, read_ct

_MODULES = {
    "api": ("Registration", "register"),
    "errors": ("RegNetError",),
    "images.inverse": ("Inverse", "invert"),
    "images.transforms": ("read_transform",),
    "images.volumes": ("Grid", "read_ct"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: torch, ITK and matplotlib take seconds."""
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"regnet.{module}"), name)
    raise AttributeError(f"module 'regnet' has no attribute {name!r}")
