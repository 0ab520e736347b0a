"""Units, axis orders and seeds: the conventions every module keeps (docs/conventions.md).

Physical space is ITK's: mm, LPS. Arrays are ``(z, y, x)``; displacement vectors are ``(x, y, z)`` in mm, on the last axis
in numpy arrays and files, on the first in torch tensors. A displacement field lives on the fixed image's grid and maps
points from fixed to moving: ``T(x) = x + u(x)``. Intensities are HU.
"""

import hashlib

AIR_HU = -1024
"""HU of air. Lower values are raised to it: scanners mark voxels outside their field of view with them."""

WORKING_SPACINGS = (0.1, 20.0)
"""Smallest and largest voxel size in mm at which networks work. Those of CT are within; smaller ones would fill any memory."""

AXES = ("x", "y", "z")
"""Names of the components of points and displacements, in order."""


def job_seed(seed: int, *names: str) -> int:
    """Derive the seed of one job from the config's seed and the job's own name.

    The result depends on nothing else, so the order and the number of jobs do not change what a job draws.

    Parameters
    ----------
    seed
        The seed of the whole experiment.
    names
        What identifies the job, for example ``("synthesize", "case_01")``.

    Returns
    -------
    int
        In ``[0, 2**31)``, which every random generator in use accepts.
    """
    text = "\0".join([str(seed), *names])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") >> 1
