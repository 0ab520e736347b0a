"""Weights on disk, and the network applied to a whole volume. Only torch and numpy (and safetensors)."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import functional

from regnet.errors import InputError
from regnet.feeding import Feed
from regnet.files import whole_file
from regnet.network import OUTPUT_STRIDE, VARIANTS, RegNet, window_size
from regnet.patches import WINDOW_BEFORE, SamplePool, normalize

TILE = 32
"""Outputs per axis and tile: windows of 116^3 voxels, about 0.5 GiB of feature maps in float32."""

METADATA = "regnet"
"""Entry of a weights file's metadata that holds all we say of the weights, as JSON."""


def save_network(network: RegNet, path: str | Path, *, spacing: float, window: tuple[float, float], **facts: object) -> None:
    """Write a network's weights, and what is needed to use them, as a safetensors file.

    Parameters
    ----------
    network
        The network.
    path
        Ends in ``.safetensors``.
    spacing
        Working spacing of the network, in mm.
    window
        Lowest and highest HU that the network sees.
    facts
        Anything else worth knowing, kept as JSON.
    """
    metadata = {"variant": network.variant, "spacing": spacing, "window": list(window), **facts}
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with whole_file(path) as partial:
        # One entry: the order of several would differ from process to process, and with it the bytes of the file.
        save_file(weights, str(partial), {METADATA: json.dumps(metadata)})


def load_network(path: str | Path) -> tuple[RegNet, dict]:
    """Read a network that `save_network` wrote, ready for inference, and its metadata.

    Raises
    ------
    InputError
        If the file is not such a file, or its weights do not fit the variant it names.
    """
    try:
        with safe_open(str(path), framework="pt") as stored:
            metadata = json.loads((stored.metadata() or {}).get(METADATA, "{}"))
            weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as weights of RegNet in safetensors ({error})") from error
    if metadata.get("variant") not in VARIANTS or not {"spacing", "window"} <= metadata.keys():
        raise InputError(f"{path}: names the variant {metadata.get('variant')!r}, expected one of {', '.join(VARIANTS)}")
    network = RegNet(metadata["variant"])
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the weights do not fit the variant {metadata['variant']} ({reason[:200]})") from error
    return network.eval(), metadata


def output_lattice(shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], float]:
    """Where the outputs of `predict_volume` are: their number along z, y, x, and the voxel index of the first on each axis.

    Neighbouring outputs are two voxels apart.
    """
    return tuple(-(-side // OUTPUT_STRIDE) for side in shape), 0.5


def predict_volume(
    network: RegNet,
    fixed: np.ndarray,
    moving: np.ndarray,
    *,
    window: tuple[float, float],
    device: torch.device | str = "cpu",
    tile: int = TILE,
) -> np.ndarray:
    """Apply the network at every second voxel per axis of a pair of volumes: exactly the patch network at those points.

    Parameters
    ----------
    network
        In evaluation mode.
    fixed, moving
        HU, the same shape ``(z, y, x)``, at the network's working spacing. Outside, their border values continue.
    window
        Lowest and highest HU that the network sees.
    device
        Where to compute.
    tile
        Outputs per axis that are computed at once; changes memory and speed, not the result.

    Returns
    -------
    numpy.ndarray
        Displacements in voxels, components along the axes x, y, z of the voxel grid, shape ``(3, *counts)`` on the points of
        `output_lattice`, float32.
    """
    if fixed.shape != moving.shape:
        raise ValueError(f"moving: shape {moving.shape}, expected that of fixed, {fixed.shape}")
    counts, _ = output_lattice(fixed.shape)
    before = WINDOW_BEFORE
    behind = [window_size(count) - before - side for count, side in zip(counts, fixed.shape, strict=True)]
    padding = [width for side in reversed(behind) for width in (before, side)]
    volumes = []
    for volume in (fixed, moving):
        tensor = torch.from_numpy(normalize(volume.astype(np.float32), window))[None, None].to(device)
        volumes.append(functional.pad(tensor, padding, mode="replicate"))
    network = network.to(device, memory_format=torch.channels_last_3d)
    field = torch.empty(3, *counts)
    with torch.inference_mode():
        for z in range(0, counts[0], tile):
            for y in range(0, counts[1], tile):
                for x in range(0, counts[2], tile):
                    stops = [min(start + tile, count) for start, count in zip((z, y, x), counts, strict=True)]
                    voxels = tuple(
                        slice(OUTPUT_STRIDE * start, OUTPUT_STRIDE * start + window_size(stop - start))
                        for start, stop in zip((z, y, x), stops, strict=True)
                    )
                    windows = [volume[(..., *voxels)].contiguous(memory_format=torch.channels_last_3d) for volume in volumes]
                    outputs = tuple(slice(start, stop) for start, stop in zip((z, y, x), stops, strict=True))
                    field[(slice(None), *outputs)] = network(*windows)[0].float().cpu()
    return field.numpy()


def predict_samples(network: RegNet, pool: SamplePool, *, device: torch.device | str = "cpu", batch: int = 16) -> np.ndarray:
    """Apply the network to the windows of all samples of a pool.

    Returns
    -------
    numpy.ndarray
        Displacements in voxels along the axes x, y, z of the voxel grid, shape ``(n, k, k, k, 3)`` as in `Samples`, float32.
    """
    network = network.to(device, memory_format=torch.channels_last_3d)
    predicted = np.empty(pool.displacements.shape, np.float32)
    feed = Feed(pool, device)
    with torch.inference_mode():
        for chosen in np.array_split(np.arange(len(pool)), -(-len(pool) // batch)):
            windows = [window.to(memory_format=torch.channels_last_3d) for window in feed.cut(chosen)[:2]]
            predicted[chosen] = network(*windows).float().permute(0, 2, 3, 4, 1).cpu().numpy()
    return predicted
