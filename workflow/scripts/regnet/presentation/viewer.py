"""The viewer of a pair's registrations: one offline HTML file with images, fields, landmarks and NiiVue inside.

This module prepares the data; the page itself is in ``workflow/viewer``. All volumes are 8-bit. Images have steps of `HU_STEP`
from air up, which are finer than the noise of a CT and halve the file. Fields are smooth, so their maps have voxels twice as
large.
"""

import base64
import gzip
import html
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import SimpleITK as sitk

from regnet.conventions import AIR_HU
from regnet.evaluation.landmark_errors import landmark_errors
from regnet.evaluation.long_tables import components, method_name
from regnet.images.boxes import bounding_box
from regnet.images.transforms import displacement_image, jacobian_determinant, warp
from regnet.images.volumes import IDENTITY, Grid, resample_ct, resample_mask
from regnet.system.files import whole_file
from regnet.system.resources import shipped

log = logging.getLogger(__name__)

SPACING = 2.0
"""Voxel size of the images of a page, in mm, unless its file would exceed `LARGEST_PAGE`."""

MARGIN = 15.0
"""How far the images of a page reach beyond the lungs and the landmarks, in mm."""

LARGEST_PAGE = 14_500_000
"""The largest size of a page, in bytes; if voxels of `SPACING` exceed it, the page gets larger voxels."""

HU_STEP = 6
"""Step between grey values, in HU; 255 steps reach from air to 506 HU."""

DETERMINANT_STEP = 0.01
"""Step between values of the Jacobian determinant; 255 steps reach to 2.55, and the code 0 means folded."""


@dataclass(frozen=True)
class _Coded:
    """An 8-bit volume ``(z, y, x)`` whose values are ``intercept + slope * code``.

    Its voxels are `scale` times as large as those of the images.
    """

    codes: np.ndarray
    slope: float
    intercept: float = 0.0
    scale: int = 1


def write_viewer(
    path: str | Path,
    pair: str,
    fixed: sitk.Image,
    mask: sitk.Image,
    moving: sitk.Image,
    transforms: Mapping[str, sitk.Transform],
    landmarks: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    experiment: str = "",
) -> None:
    """Write the page of a pair; never leaves a partial file.

    Parameters
    ----------
    path
        The HTML file to make, of at most `LARGEST_PAGE` bytes.
    pair, experiment
        Names for the title of the page.
    fixed, moving
        CT images, HU, on any grids.
    mask
        Lung mask on the grid of the fixed image.
    transforms
        Transform of each method, fixed to moving, in the order of the page. If they include ``affine``, the page also shows
        what the other methods add to it.
    landmarks
        Corresponding points of both images, ``(n, 3)`` each, x, y, z in mm (LPS).
    """
    spacing = SPACING
    while True:
        page, volumes = _page(pair, experiment, spacing, fixed, mask, moving, transforms, landmarks)
        if len(page) <= LARGEST_PAGE:
            break
        # Only the volumes shrink with larger voxels.
        spacing *= 1.02 * (volumes / (volumes + LARGEST_PAGE - len(page))) ** (1 / 3)
    log.info("%.1f MB with voxels of %.2f mm", len(page) / 1e6, spacing)
    with whole_file(path) as partial:
        partial.write_bytes(page)


def _page(
    pair: str,
    experiment: str,
    spacing: float,
    fixed: sitk.Image,
    mask: sitk.Image,
    moving: sitk.Image,
    transforms: Mapping[str, sitk.Transform],
    landmarks: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[bytes, int]:
    """The page with voxels of `spacing` mm, and the number of its bytes that are volumes."""
    image, lungs = _cropped(fixed, mask, spacing, landmarks[0] if landmarks else np.empty((0, 3)))
    grid = Grid.of(image)
    volumes = {"fixed": _coded_ct(image), "moving": _coded_ct(warp(moving, IDENTITY, grid))}
    fields = {method: sitk.GetArrayFromImage(displacement_image(transform, grid)) for method, transform in transforms.items()}
    inside = sitk.GetArrayViewFromImage(lungs) != 0
    volumes |= _coded_lengths("displacement", fields)
    if "affine" in fields:
        others = {method: field - fields["affine"] for method, field in fields.items() if method != "affine"}
        volumes |= _coded_lengths("nonrigid", others)
    methods: list[dict[str, Any]] = [{"id": "moving", "name": "Moving", "errors": _errors(IDENTITY, landmarks, grid)}]
    for method, transform in transforms.items():
        volumes[method] = _coded_ct(warp(moving, transform, grid))
        determinant = jacobian_determinant(fields[method], grid)
        volumes[f"{method}/jacobian"] = _coded_determinant(determinant)
        facts = {
            "id": method,
            "name": method_name(method),
            "errors": _errors(transform, landmarks, grid),
            "folded": float(np.mean(determinant[inside] <= 0)),
            "jacobian": [float(value) for value in np.percentile(determinant[inside], [1, 99])],
        }
        methods.append(facts)
    data = {
        "pair": pair,
        "experiment": experiment,
        "grid": {
            "size": grid.size,
            "spacing": grid.spacing,
            "origin": grid.origin,
            "direction": grid.direction,
        },
        "start": _start(inside).tolist(),
        "methods": methods,
        "landmarks": grid.indices(landmarks[0]).tolist() if landmarks else [],
        "volumes": {
            name: {"slope": volume.slope, "intercept": volume.intercept, "scale": volume.scale}
            for name, volume in volumes.items()
        },
    }
    folder = shipped("viewer")
    parts = {name: (folder / name).read_text(encoding="utf-8") for name in ("viewer.css", "niivue.umd.js", "viewer.js")}
    packed = "\n".join(_element(name, volume) for name, volume in volumes.items())
    page = Template((folder / "viewer.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{pair} - {experiment}" if experiment else pair),
        licence=(folder / "LICENSE.niivue").read_text(encoding="utf-8"),
        style=parts["viewer.css"],
        niivue=parts["niivue.umd.js"],
        script=parts["viewer.js"],
        # Without "<" in the data, no name can end the element that holds them.
        data=json.dumps(data).replace("<", "\\u003c"),
        volumes=packed,
    )
    return page.encode(), len(packed)


def _cropped(fixed: sitk.Image, mask: sitk.Image, spacing: float, points: np.ndarray) -> tuple[sitk.Image, sitk.Image]:
    """Fixed image and lung mask around the lungs and some points, with voxels of `spacing` mm and axes towards R, A, S.

    Sizes are even, so that maps can have voxels of twice the size.
    """
    fixed, mask = sitk.DICOMOrient(fixed, "RAS"), sitk.DICOMOrient(mask, "RAS")
    grid = Grid.of(fixed).isotropic(spacing)
    lungs = resample_mask(mask, grid)
    sides = reversed(bounding_box(sitk.GetArrayViewFromImage(lungs)))
    corners = np.concatenate([np.transpose([(side.start, side.stop - 1) for side in sides]), grid.indices(points)])
    margin = MARGIN / spacing
    first = np.maximum(np.floor(corners.min(axis=0) - margin), 0).astype(int)
    last = np.minimum(np.ceil(corners.max(axis=0) + margin), np.array(grid.size) - 1).astype(int)
    size = np.maximum((last + 1 - first) // 2 * 2, 2)
    box = tuple(slice(low, low + count) for low, count in zip(first.tolist(), size.tolist(), strict=True))
    lungs = lungs[box]
    return resample_ct(fixed, Grid.of(lungs)), lungs


def _start(lungs: np.ndarray) -> np.ndarray:
    """The voxel ``(x, y, z)`` to show first: the middle of the lung on the patient's left."""
    voxels = np.argwhere(lungs)[:, ::-1]
    return voxels[voxels[:, 0] <= voxels[:, 0].mean()].mean(axis=0)


def _coded_ct(image: sitk.Image) -> _Coded:
    codes = (sitk.GetArrayViewFromImage(image).astype(np.float32) - AIR_HU) / HU_STEP
    return _Coded(np.clip(np.rint(codes), 0, 255).astype(np.uint8), HU_STEP, AIR_HU)


def _coded_lengths(kind: str, fields: Mapping[str, np.ndarray]) -> dict[str, _Coded]:
    """Lengths in mm of the vectors of each method's field, with the same steps for all methods, so that they are comparable."""
    lengths = {method: _blocks(np.linalg.norm(field, axis=-1)).mean(axis=0) for method, field in fields.items()}
    step = max(1.0, *(float(length.max()) for length in lengths.values())) / 255 if lengths else 1.0
    return {
        f"{method}/{kind}": _Coded(np.rint(length / step).astype(np.uint8), step, scale=2) for method, length in lengths.items()
    }


def _coded_determinant(determinant: np.ndarray) -> _Coded:
    """Jacobian determinants; only blocks with a folded voxel have the code 0."""
    blocks = _blocks(determinant)
    codes = np.clip(np.rint(blocks.mean(axis=0) / DETERMINANT_STEP), 1, 255)
    return _Coded(np.where(blocks.min(axis=0) > 0, codes, 0).astype(np.uint8), DETERMINANT_STEP, scale=2)


def _blocks(array: np.ndarray) -> np.ndarray:
    """The voxels of each 2 x 2 x 2 block of an array of even shape, on a new first axis: ``(8, z / 2, y / 2, x / 2)``."""
    return np.stack([array[z::2, y::2, x::2] for z in (0, 1) for y in (0, 1) for x in (0, 1)])


def _errors(
    transform: sitk.Transform, landmarks: tuple[np.ndarray, np.ndarray] | None, grid: Grid
) -> dict[str, list[Any]] | None:
    """The remaining error at each landmark, ``x_M - T(x_F)``: its length in mm, and the vector in voxels of the grid."""
    if landmarks is None:
        return None
    table = landmark_errors("", "", transform, *landmarks)
    moving, mapped = (table[components(name)].to_numpy() for name in ("moving", "mapped"))
    return {"length": table["error"].tolist(), "vector": grid.to_voxels(moving - mapped).tolist()}


def _element(name: str, volume: _Coded) -> str:
    """The element that holds the codes of a volume, as differences along x (modulo 256), which compress better."""
    differences = np.diff(volume.codes, axis=2, prepend=np.uint8(0))
    packed = base64.b64encode(gzip.compress(differences.tobytes(), 6, mtime=0)).decode()
    return f'<script type="text/plain" data-volume="{html.escape(name)}">{packed}</script>'
