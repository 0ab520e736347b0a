"""Register two scans of a patient, from files to a folder of results, with the workflow's functions in the workflow's order."""

import functools
import json
import logging
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from dataclasses import replace as with_changes
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch

from regnet import __version__
from regnet.conventions import job_seed
from regnet.errors import ConfigError, InputError, RegistrationError
from regnet.evaluation.landmark_errors import landmark_table, transform_errors
from regnet.images.landmarks import read_landmark_pair, refuse_points_outside
from regnet.images.lung_masks import refuse_other_than_lungs
from regnet.images.lungs import segment_lungs
from regnet.images.transforms import (
    compose,
    displacement_image,
    jacobian_determinant,
    read_transform,
    warp,
    write_transform,
)
from regnet.images.volumes import IDENTITY, Grid, mask_litres, read_ct, read_mask, resample_ct, resample_mask, write_image
from regnet.learning.devices import pick_device
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.interface import Network
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.released import PYRAMID_SETTINGS, PYRAMID_SPACINGS, REGNET_SETTINGS
from regnet.learning.weight_files import load_network
from regnet.presentation.figures.overview import overview
from regnet.presentation.figures.style import save_figure
from regnet.presentation.slices import overview_slices
from regnet.registration.regnet import Stage
from regnet.registration.run import register_pair
from regnet.synthesis.samples import OUTPUT_STRIDE
from regnet.system.files import checksum, whole_file, whole_folder
from regnet.system.resources import shipped

log = logging.getLogger(__name__)

RESULTS = ("transform.h5", "dvf.nii.gz", "warped.nii.gz", "report.json", "overview.png")
"""The files written for a registered pair."""

AFFINE: dict[str, dict[str, int]] = {"fast": {"MaximumNumberOfIterations": 250}, "chapter": {}}
"""Affine registrations: parameters of elastix that replace those of the file (docs/register-reference.md#time)."""

PYRAMID_MARGIN = 20.0
"""How far around the lungs the feature pyramid sees the images, in mm: as all methods of the default config."""

MINIMUM_OVERLAP = 0.25
"""The smallest part of the fixed lungs that must lie in the moving image before RegNet starts."""


@dataclass(frozen=True)
class Scan:
    """One of the two scans.

    Attributes
    ----------
    path
        Its name in messages.
    image
        CT, int16 HU.
    mask
        Lungs, uint8, on the same grid.
    has_own_mask
        Whether the user gave the mask; otherwise it is segmented.
    """

    path: str
    image: sitk.Image
    mask: sitk.Image
    has_own_mask: bool

    @property
    def grid(self) -> Grid:
        """The grid of image and mask."""
        return Grid.of(self.image)

    @property
    def lung_litres(self) -> float:
        """Volume of the lungs, in litres."""
        return mask_litres(self.mask)


def register_scans(
    fixed: str | Path,
    moving: str | Path,
    output: str | Path,
    *,
    weights: Sequence[str | Path],
    fixed_mask: str | Path | None = None,
    moving_mask: str | Path | None = None,
    landmarks: tuple[str | Path, str | Path] | None = None,
    affine: str | None = "fast",
    initial: str | Path | None = None,
    inference: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int = 1,
    seed: int = 2017,
    replace: bool = False,
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """Register two chest CT scans with the feature pyramid, or with RegNet, and write the results to a folder.

    RegNet runs on both images resampled to the spacing at which it was trained, the feature pyramid at those of
    `regnet.learning.released.PYRAMID_SPACINGS`. Results are written on the grid of the fixed image.

    Parameters
    ----------
    fixed, moving
        CT images in HU: files that ITK reads, or folders with one DICOM series each.
    output
        The folder to make, with the files `RESULTS`. Nothing remains of it after a failure.
    weights
        Safetensors files: of the feature pyramid, or of RegNet, one per stage, from coarse to fine.
    fixed_mask, moving_mask
        Lung masks on the grids of their images; without a mask, the lungs are segmented. Affine registration and networks match
        the fixed lungs. The moving mask is only used to report how well the lungs overlap.
    landmarks
        Files of corresponding points of both images, in mm (LPS), at which the registration is measured.
    affine
        The affine registration to start with, one of `AFFINE`; None for none: the scans must then overlap.
    initial
        A file with a transform from fixed to moving to start from, in place of the affine registration.
    inference
        Fields of `InferenceSettings` that differ from the defaults for the network,
        `regnet.learning.released.PYRAMID_SETTINGS` or `regnet.learning.released.REGNET_SETTINGS`.
    device
        ``auto`` (CUDA if available), ``cpu`` or ``cuda``.
    threads
        CPU threads of elastix, torch and SimpleITK.
    seed
        The seed of the affine registration is derived from it.
    replace
        Whether to replace earlier results in `output`.

    Returns
    -------
    report : dict
        The content of ``report.json``.
    errors : pandas.DataFrame or None
        The result of `regnet.evaluation.landmark_errors.landmark_table`, if there are landmarks: before registration, after
        the affine registration or under the initial transform, and at the end.

    Raises
    ------
    InputError
        If a file cannot be used, landmarks lie outside their images, scans that are not registered affinely do not overlap,
        or `output` contains an input.
    ConfigError
        If `device` is ``cuda`` and torch finds no CUDA device, or if weights or settings do not go together.
    OutputError
        If `output` exists and may not be replaced, or cannot be written.
    RegistrationError
        If elastix fails, or the scans do not overlap after the affine registration.

    Examples
    --------
    A random texture and the same texture 6 mm further left and 4 mm lower: RegNet finds the shift.

    >>> from regnet.learning.released import find_weights
    >>> fixed, moving = (Grid((16, 16, 16), (4.0, 4.0, 4.0), origin) for origin in ((0.0, 0.0, 0.0), (6.0, 0.0, -4.0)))
    >>> noise = fixed.image(np.random.default_rng(1).normal(size=fixed.shape))
    >>> texture = sitk.GetArrayFromImage(sitk.Normalize(sitk.SmoothingRecursiveGaussian(noise, 8.0)))
    >>> lungs = np.pad(np.ones((10, 10, 10), np.uint8), 3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, grid in (("fixed", fixed), ("moving", moving)):
    ...         write_image(grid.image((150 * texture - 600).astype(np.int16)), f"{folder}/{name}.nii.gz")
    ...         write_image(grid.image(lungs), f"{folder}/{name}_lungs.nii.gz")
    ...     report, _ = register_scans(
    ...         f"{folder}/fixed.nii.gz",
    ...         f"{folder}/moving.nii.gz",
    ...         f"{folder}/out",
    ...         weights=[find_weights("regnet_4mm")],
    ...         fixed_mask=f"{folder}/fixed_lungs.nii.gz",
    ...         moving_mask=f"{folder}/moving_lungs.nii.gz",
    ...         affine=None,
    ...         inference={"passes": 1, "mirrors": 1, "precision": "float32"},
    ...         device="cpu",
    ...     )
    ...     sorted(path.name for path in Path(folder, "out").iterdir())
    ['dvf.nii.gz', 'overview.png', 'report.json', 'transform.h5', 'warped.nii.gz']
    >>> print({name: f"{dice:.1f}" for name, dice in report["lungs"]["dice"].items()})
    {'before': '0.8', 'regnet': '1.0'}
    """
    inputs = {
        "fixed": fixed,
        "moving": moving,
        "fixed_mask": fixed_mask,
        "moving_mask": moving_mask,
        "initial": initial,
        **dict(zip(("fixed_landmarks", "moving_landmarks"), landmarks or (None, None), strict=True)),
    }
    inputs |= {f"weights_{number}": path for number, path in enumerate(weights, 1)}
    _refuse_inputs_in(Path(output), inputs)
    seconds: dict[str, float] = {}
    with whole_folder(output, RESULTS, replace=replace) as folder:
        with _step("reading", seconds):
            networks = [load_network(path) for path in weights]
            applied = _inference(networks, inference or {})
            start = None if initial is None else compose(read_transform(initial))
            torch_device = _device(device)
            torch.set_num_threads(threads)
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            scans = [_read_scan(*paths) for paths in ((fixed, fixed_mask), (moving, moving_mask))]
            points = None
            if landmarks:
                points = read_landmark_pair(*landmarks, [scan.grid for scan in scans])
                for scan, array, path in zip(scans, points, landmarks, strict=True):
                    refuse_points_outside(array, scan.grid, path, scan.path)
        with _step("lungs", seconds):
            fixed_scan, moving_scan = (_with_lungs(scan) for scan in scans)
            log.info("lungs of %.2f and %.2f litres", fixed_scan.lung_litres, moving_scan.lung_litres)
        at = functools.cache(functools.partial(_at, fixed_scan, moving_scan))
        finest = _finest(networks)
        with _step("resampling", seconds):
            at(finest)
        elastix_seed = job_seed(seed, "affine")
        if start is None and affine is not None:
            with _step("affine", seconds):
                start = _register_affine(*at(finest), AFFINE[affine], threads=threads, seed=elastix_seed)
            start_name = "affine"
        else:
            affine, start_name = None, "initial"
        fixed_image, moving_image, mask = at(finest)
        _refuse_poor_overlap(fixed_scan, moving_scan, mask, start or IDENTITY, affine)
        with _step("regnet", seconds):
            settings, margin = _method(networks, weights, at, applied, torch_device)
            transform = register_pair(
                fixed_image,
                moving_image,
                settings,
                fixed_mask=mask,
                initial=start or compose(sitk.AffineTransform(3)),
                margin=margin,
                threads=threads,
                gpus=int(torch_device.type == "cuda"),
            )
        transforms = {"before": IDENTITY, **({} if start is None else {start_name: start}), "regnet": transform}
        with _step("writing", seconds):
            dvf = displacement_image(transform, fixed_scan.grid)
            write_image(dvf, folder / "dvf.nii.gz")
            write_image(warp(moving_scan.image, transform, fixed_scan.grid), folder / "warped.nii.gz")
            write_transform(transform, folder / "transform.h5")
            slices = overview_slices(
                fixed_scan.image, fixed_scan.mask, moving_scan.image, {"before": IDENTITY, "after": transform}
            )
            save_figure(overview(slices), folder / "overview.png")
        report = {
            "versions": _versions(affine is not None),
            "inputs": {name: str(path) for name, path in inputs.items() if path is not None},
            "stages": [{"sha256": checksum(path), **facts} for path, (_, facts) in zip(weights, networks, strict=True)],
            "device": torch.cuda.get_device_name() if torch_device.type == "cuda" else f"CPU ({platform.machine()})",
            "threads": threads,
            "affine": affine,
            "seeds": {"seed": seed, **({"affine": elastix_seed} if affine else {})},
            **{name: getattr(applied, name) for name in ("passes", "mirrors", "smoothing", "stride")},
            "seconds": seconds,
            "lungs": {
                "fixed_litres": round(fixed_scan.lung_litres, 4),
                "moving_litres": round(moving_scan.lung_litres, 4),
                "fixed_mask": "given" if fixed_scan.has_own_mask else "segmented",
                "moving_mask": "given" if moving_scan.has_own_mask else "segmented",
                "dice": {name: _dice(fixed_scan, moving_scan, transform) for name, transform in transforms.items()},
            },
            **_field_facts(dvf, fixed_scan),
        }
        errors = landmark_table(transform_errors(transforms, *points)) if points else None
        if errors is not None:
            report["landmarks_mm"] = json.loads(errors.to_json(orient="index"))
        with whole_file(folder / "report.json") as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report, errors


@contextmanager
def _step(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Log the start of a step, and store its duration in `seconds`."""
    log.info("%s ...", name)
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 2)


def _refuse_inputs_in(output: Path, inputs: Mapping[str, str | Path | None]) -> None:
    for path in inputs.values():
        if path is not None and Path(path).resolve().is_relative_to(output.resolve()):
            raise InputError(f"{path}: lies in {output}, where the results go, expected another folder for them")


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device: found cuda, but torch finds no CUDA device, expected auto or cpu")
    return pick_device(0 if name == "cpu" else 1)


def _read_scan(path: str | Path, mask_path: str | Path | None) -> Scan:
    """Read an image and its mask; without a mask file, the mask is empty."""
    image = read_ct(path)
    grid = Grid.of(image)
    if mask_path is None:
        return Scan(str(path), image, grid.image(np.zeros(grid.shape, np.uint8)), False)
    mask = read_mask(mask_path, grid)
    refuse_other_than_lungs(mask, image, mask_path)
    return Scan(str(path), image, mask, True)


def _with_lungs(scan: Scan) -> Scan:
    """Segment the lungs of a scan, unless the user gave a mask."""
    return scan if scan.has_own_mask else Scan(scan.path, scan.image, segment_lungs(scan.image, scan.path), False)


def _inference(networks: Sequence[tuple[Network, Mapping[str, Any]]], changes: Mapping[str, Any]) -> InferenceSettings:
    """How networks are applied: the defaults for their kind, and what the user changes of them.

    Raises
    ------
    ConfigError
        If the feature pyramid is one of several networks, or should predict at every voxel.
    """
    if not any(network.any_spacing for network, _ in networks):
        return with_changes(REGNET_SETTINGS, **changes)
    if len(networks) > 1:
        raise ConfigError(f"--weights: found {RegNetPyramid.variant} among {len(networks)}, expected it alone")
    applied = with_changes(PYRAMID_SETTINGS, **changes)
    if applied.stride != OUTPUT_STRIDE:
        raise ConfigError(f"--stride: found {applied.stride}, expected {OUTPUT_STRIDE} for {RegNetPyramid.variant}")
    return applied


def _finest(networks: Sequence[tuple[Network, Mapping[str, Any]]]) -> float:
    """The finest spacing at which a network of a registration works, in mm."""
    spacings = [
        spacing for network, facts in networks for spacing in (PYRAMID_SPACINGS if network.any_spacing else [facts["spacing"]])
    ]
    return min(spacings)


def _at(fixed: Scan, moving: Scan, spacing: float) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """Both scans, and the fixed lungs, with isotropic voxels of `spacing` mm."""
    grids = [scan.grid.isotropic(spacing) for scan in (fixed, moving)]
    fixed_image, moving_image = (resample_ct(scan.image, grid) for scan, grid in zip((fixed, moving), grids, strict=True))
    return fixed_image, moving_image, resample_mask(fixed.mask, grids[0])


def _method(
    networks: Sequence[tuple[Network, Mapping[str, Any]]],
    weights: Sequence[str | Path],
    at: Callable[[float], tuple[sitk.Image, sitk.Image, sitk.Image]],
    applied: InferenceSettings,
    device: torch.device,
) -> tuple[dict[str, Any], float | None]:
    """The settings of the method, and the margin around the lungs that it sees; `at` gives the pair at a spacing."""
    if networks[0][0].any_spacing:
        settings = {"module": "pyramid", "weights": str(weights[0]), "spacings": PYRAMID_SPACINGS}
        return settings | asdict(applied), PYRAMID_MARGIN
    *coarser, last = [Stage(network, tuple(facts["window"]), *at(facts["spacing"])) for network, facts in networks]
    settings = {"module": "regnet", "network": last.network, "window": last.window}
    return settings | {"coarser": coarser, "inference": applied, "device": device}, None


def _register_affine(
    fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, overrides: Mapping[str, int], *, threads: int, seed: int
) -> sitk.CompositeTransform:
    # Importing elastix takes seconds; only an affine registration needs it.
    from regnet.registration.elastix import register_with_file

    # In a folder that only this user may write to: elastix opens its log by its name, and would follow a link put there.
    # If the registration fails, the log remains: the message names it.
    folder = Path(tempfile.mkdtemp(prefix="regnet-elastix-"))
    transform = register_with_file(
        fixed,
        moving,
        shipped("elastix") / "affine.txt",
        log=folder / "elastix.log",
        fixed_mask=mask,
        overrides=overrides,
        seed=seed,
        threads=threads,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return transform


def _refuse_poor_overlap(fixed: Scan, moving: Scan, mask: sitk.Image, start: sitk.Transform, affine: str | None) -> None:
    """Refuse a pair if the transform to start from moves too few voxels of the fixed lungs into the moving image.

    `mask` holds the fixed lungs on the working grid.
    """
    moving_extent = moving.grid.image(np.ones(moving.grid.shape, np.uint8))
    covered = sitk.Resample(moving_extent, mask, start, sitk.sitkNearestNeighbor, 0)
    lungs = sitk.GetArrayViewFromImage(mask) != 0
    overlap = float(sitk.GetArrayViewFromImage(covered)[lungs].mean())
    if overlap < MINIMUM_OVERLAP:
        share = f"{overlap:.0%} of the lungs of {fixed.path} in the image {moving.path}"
        if affine:
            raise RegistrationError(f"after the affine registration: found {share}, expected at least {MINIMUM_OVERLAP:.0%}")
        raise InputError(f"found {share}, expected at least {MINIMUM_OVERLAP:.0%} without an affine registration")


def _dice(fixed: Scan, moving: Scan, transform: sitk.Transform) -> float:
    """Dice coefficient of the fixed lungs and the transformed moving lungs, between 0 and 1."""
    moved = sitk.GetArrayFromImage(sitk.Resample(moving.mask, fixed.mask, transform, sitk.sitkNearestNeighbor, 0)) != 0
    lungs = sitk.GetArrayViewFromImage(fixed.mask) != 0
    return round(2 * np.count_nonzero(moved & lungs) / (np.count_nonzero(moved) + np.count_nonzero(lungs)), 4)


def _field_facts(dvf: sitk.Image, fixed: Scan) -> dict[str, Any]:
    """Lengths (mm), Jacobian determinants and folding of a dense displacement field in the fixed lungs."""
    lungs = sitk.GetArrayViewFromImage(fixed.mask) != 0
    field = sitk.GetArrayViewFromImage(dvf)
    determinant = jacobian_determinant(field, fixed.grid)[lungs]
    lengths = np.linalg.norm(field[lungs], axis=-1)
    return {
        "displacement_in_lungs_mm": {"mean": round(float(lengths.mean()), 3), "max": round(float(lengths.max()), 3)},
        "jacobian_in_lungs": {
            "min": round(float(determinant.min()), 4),
            "max": round(float(determinant.max()), 4),
            "folded_fraction": float(np.mean(determinant <= 0)),
        },
    }


def _versions(affine: bool) -> dict[str, str]:
    packages = ["torch", "SimpleITK", "numpy", *(["itk-elastix"] if affine else [])]
    return {"regnet": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}
