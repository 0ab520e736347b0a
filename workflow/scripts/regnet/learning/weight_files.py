"""Weights of networks on disk, with what is needed to use them."""

import json
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from regnet.conventions import WORKING_SPACINGS
from regnet.errors import InputError, OutputError
from regnet.learning.networks.interface import Network
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.networks.regnet import VARIANTS, RegNet
from regnet.system.files import whole_file

NETWORKS = (*VARIANTS, RegNetPyramid.variant)
"""Names of all networks whose weights can be stored."""

METADATA = "regnet"
"""Entry of a weights file's metadata that holds all facts about the weights, as JSON."""

HU_RANGE = (-32768, 32767)
"""Lowest and highest HU of a window: those of an image."""


def save_network(
    network: Network, path: str | Path, *, spacing: float | None, window: tuple[float, float], **facts: object
) -> None:
    """Write a network's weights, and what is needed to use them, as a safetensors file.

    Parameters
    ----------
    network
        The network.
    path
        The file to write, ending in ``.safetensors``.
    spacing
        Working spacing of the network, in mm; None for one that works at any.
    window
        Lowest and highest HU that the network sees.
    facts
        Anything else worth knowing, kept as JSON.

    Raises
    ------
    OutputError
        If the file cannot be written, for example because the disk is full.
    """
    metadata = {"variant": network.variant, "spacing": spacing, "window": list(window), **facts}
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with whole_file(path) as partial:
        # One entry: the order of several would differ from process to process, and with it the bytes of the file.
        try:
            save_file(weights, str(partial), {METADATA: json.dumps(metadata)})
        except SafetensorError as error:
            raise OutputError(f"{path}: cannot be written ({error})") from error


def build(variant: str) -> Network:
    """Make a new network, one of `NETWORKS`."""
    return RegNetPyramid() if variant == RegNetPyramid.variant else RegNet(variant)


def load_network(
    path: str | Path, *, variant: str | None = None, spacing: float | None = None
) -> tuple[Network, dict[str, Any]]:
    """Read a network that `save_network` wrote, ready for inference, and its metadata.

    Parameters
    ----------
    path
        The file.
    variant, spacing
        The expected variant, and the expected working spacing in mm; None accepts any.

    Returns
    -------
    network : RegNet
        In evaluation mode, on the CPU.
    metadata : dict
        ``variant``, ``spacing``, ``window``, and the facts that were stored with the weights.

    Raises
    ------
    InputError
        If the file cannot be read as such weights, if they do not fit the variant that it names, if its spacing is not within
        `WORKING_SPACINGS` or its window not within `HU_RANGE`, if a weight is not finite, or if the network is not the
        expected one.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "model.safetensors"
    ...     save_network(RegNet("regnet_early"), path, spacing=2.0, window=(-1000, 400), patches_seen=8000)
    ...     network, metadata = load_network(path, spacing=2.0)
    >>> network.variant
    'regnet_early'
    >>> metadata
    {'variant': 'regnet_early', 'spacing': 2.0, 'window': [-1000, 400], 'patches_seen': 8000}
    """
    try:
        with safe_open(str(path), framework="pt") as stored:
            metadata = json.loads((stored.metadata() or {}).get(METADATA, "{}"))
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as weights of RegNet in safetensors ({error})") from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path}: found {type(metadata).__name__} as metadata, expected the facts of a network by name")
    if str(metadata.get("variant")) not in NETWORKS or not {"spacing", "window"} <= metadata.keys():
        raise InputError(f"{path}: found the variant {metadata.get('variant')!r}, expected one of {', '.join(NETWORKS)}")
    _refuse_unusable(path, **{name: metadata[name] for name in ("variant", "spacing", "window")})
    for name, expected in (("variant", variant), ("spacing", spacing)):
        if expected is not None and metadata[name] != expected:
            raise InputError(f"{path}: found weights of the {name} {metadata[name]}, expected {expected}")
    network = build(metadata["variant"])
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the weights do not fit the variant {metadata['variant']} ({reason[:200]})") from error
    for name, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise InputError(f"{path}: {name}: found numbers that are not finite, expected finite weights")
        if name.endswith("running_var") and (value < 0).any():
            raise InputError(f"{path}: {name}: found variances below 0, expected at least 0")
    return network.eval(), metadata


def _refuse_unusable(path: str | Path, variant: str, spacing: object, window: Any) -> None:
    """Raise `InputError` if a network cannot work at the spacing or in the window that a file states."""
    low, high = WORKING_SPACINGS
    if variant == RegNetPyramid.variant:
        if spacing is not None:
            raise InputError(f"{path}: spacing: found {str(spacing)[:80]!r}, expected none: {variant} works at any")
    elif not _is_number(spacing) or not low <= spacing <= high:
        raise InputError(f"{path}: spacing: found {str(spacing)[:80]!r}, expected a number from {low} to {high:g} (mm)")
    is_pair = isinstance(window, list) and len(window) == 2 and all(map(_is_number, window))
    lower, upper = window if is_pair else (0.0, 0.0)
    if not HU_RANGE[0] <= lower < upper <= HU_RANGE[1]:
        expected = f"the lowest HU, then the highest, from {HU_RANGE[0]} to {HU_RANGE[1]}"
        raise InputError(f"{path}: window: found {str(window)[:80]!r}, expected {expected}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
