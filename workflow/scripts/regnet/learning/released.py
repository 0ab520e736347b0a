"""Finds the weights of a trained network: a user's file, or one that comes with the package."""

from pathlib import Path

from regnet.errors import InputError
from regnet.learning.inference_settings import InferenceSettings
from regnet.system.resources import shipped

DEFAULT = ("regnet_pyramid",)
"""The released weights that `regnet register` uses by default."""

REGNET = ("regnet_4mm", "regnet_2mm")
"""RegNet's released weights: the stages of a registration, coarse to fine."""

REGNET_SETTINGS = InferenceSettings(passes=2, mirrors=4, smoothing=6.0)
"""How each of them is applied: best on validation volumes (docs/inference.md#passes-mirror-images-and-smoothing)."""

PYRAMID_SPACINGS = (2.0, 1.0)
"""Voxel sizes at which the feature pyramid is applied, one after the other, in mm."""

PYRAMID_SETTINGS = InferenceSettings(smoothing=4.0)
"""How the feature pyramid is applied at each: best on validation volumes (docs/pyramid.md#how-it-is-applied)."""


def find_weights(name: str | Path) -> Path:
    """The safetensors file of released weights, by their name, or of any others, by their path.

    Parameters
    ----------
    name
        A path, or the name of released weights: a file name in ``resources/weights`` without its suffix. If a file with this
        path exists, it takes precedence over a name.

    Raises
    ------
    InputError
        If there is neither such a file nor such a name.
    """
    if Path(name).is_file():
        return Path(name)
    names = sorted(path.stem for path in shipped("weights").glob("*.safetensors"))
    if str(name) in names:
        return shipped("weights") / f"{name}.safetensors"
    raise InputError(
        f"{name}: found no such weights, expected a safetensors file or a released name ({', '.join(names) or 'none exists'}); "
        "`make run` in the repository trains results/phantom/models/regnet/model.safetensors"
    )
