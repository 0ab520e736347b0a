"""Registration with a network, for tests: spells out the settings of the module ``regnet``."""

import torch

from regnet.learning.inference_settings import InferenceSettings
from regnet.registration.regnet import register

WINDOW = (-1000, 400)


def register_with(network, fixed, moving, initial, *, mask=None, window=WINDOW, coarser=(), **inference):
    """Register a pair on the CPU; `inference` are attributes of `InferenceSettings`."""
    settings = {"network": network, "window": window, "coarser": coarser, "device": torch.device("cpu")}
    return register(fixed, moving, mask, None, initial, settings | {"inference": InferenceSettings(**inference)})
