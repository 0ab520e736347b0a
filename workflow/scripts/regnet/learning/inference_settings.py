"""How a network is applied to a pair of volumes. Imports nothing, so that the command line can show the defaults at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InferenceSettings:
    """How a network is applied to a pair. The defaults are those of the config: the chapter's one shot, at every second voxel.

    Attributes
    ----------
    passes
        How often the network is applied; the displacements are composed.
    mirrors
        Mirror images of the pair over which each field is averaged: 1 (the pair as it is), 2, 4 or 8.
    smoothing
        Standard deviation of a Gaussian that smooths each field, in mm; 0 leaves the fields as predicted.
    stride
        Distance between neighbouring displacements, in voxels: 2 takes one pass of the network, 1 takes eight.
    precision
        Number format of the convolutions: ``float32``, ``bfloat16``, or ``auto`` for bfloat16 where it is fast, correct, and
        changes next to nothing.
    max_memory_gib
        Memory that a prediction may take, in GiB: on a CPU that of the whole process, including the program, both images and
        the field; on a GPU that of the feature maps.
    """

    passes: int = 1
    mirrors: int = 1
    smoothing: float = 0.0
    stride: int = 2
    precision: str = "auto"
    max_memory_gib: float = 4.0
