"""Two scans of a patient, registered from files to a folder of results: the workflow's functions in the workflow's order."""

import json
import logging
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from regnet.images.lungs import segment_lungs
from regnet.images.transforms import compose, displacement_image, jacobian_determinant, warp, write_transform
from regnet.images.volumes import IDENTITY, Grid, mask_litres, read_ct, read_mask, resample_ct, resample_mask, write_image
from regnet.learning.devices import pick_device
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.network import RegNet
from regnet.learning.weight_files import load_network
from regnet.presentation.figures.overview import overview
from regnet.presentation.figures.style import save_figure
from regnet.presentation.slices import overview_slices
from regnet.registration.regnet import Stage
from regnet.registration.run import register_pair
from regnet.system.files import checksum, whole_file, whole_folder
from regnet.system.resources import shipped

log = logging.getLogger(__name__)

RESULTS = ("transform.h5", "dvf.nii.gz", "warped.nii.gz", "report.json", "overview.png")
"""The files of a registered pair."""

MINIMUM_OVERLAP = 0.25
"""The smallest part of the fixed lungs that has to lie in the moving image when RegNet begins."""


@dataclass(frozen=True)
class Scan:
    """One of the two scans.

    Attributes
    ----------
    path
        What messages call it.
    image
        CT, int16 HU.
    mask
        Its lungs, uint8, on the same grid.
    has_own_mask
        Whether the mask was given, and not segmented.
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
    affine: bool = True,
    inference: InferenceSettings,
    device: str = "auto",
    threads: int = 1,
    seed: int = 2017,
    replace: bool = False,
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """Register two chest CT scans with RegNet and write everything a user may want of it into a folder.

    Both images are resampled to the working spacing of each network, where it runs; the affine registration runs at the finest.
    What is written lies on the grid of the fixed image.

    Parameters
    ----------
    fixed, moving
        CT images in HU, in any format of ITK, or folders of one DICOM series each.
    output
        The folder to make; it holds the files `RESULTS`. A failure leaves nothing of it.
    weights
        Safetensors files of RegNet, one for each stage of a coarse-to-fine registration, in their order; or one alone.
    fixed_mask, moving_mask
        Lung masks on the grids of their images; lungs are segmented where there is none. Affine registration and RegNet match
        the fixed lungs, outside the field continues smoothly; the moving mask only says how well the lungs then match.
    landmarks
        Corresponding points of both images in mm (LPS), to be measured.
    affine
        Whether an affine registration comes first. Without it the scans have to lie on each other.
    inference
        How each network is applied.
    device
        ``auto`` (CUDA where it is there), ``cpu`` or ``cuda``.
    threads
        CPU threads of elastix and torch.
    seed
        From which the seed of the affine registration is derived.
    replace
        Whether earlier results in `output` may be replaced.

    Returns
    -------
    report : dict
        The content of ``report.json``.
    errors : pandas.DataFrame or None
        Of `regnet.evaluation.landmark_errors.landmark_table`, if there are landmarks: before registration, after affine,
        after RegNet.

    Raises
    ------
    InputError
        If a file is not what it has to be, landmarks lie outside their images, or the scans do not overlap.
    ConfigError
        If `device` is not there.
    OutputError
        If `output` is there and may not be replaced, would replace an input, or cannot be written.
    RegistrationError
        If elastix gives up.
    """
    inputs = {
        "fixed": fixed,
        "moving": moving,
        "fixed_mask": fixed_mask,
        "moving_mask": moving_mask,
        **dict(zip(("fixed_landmarks", "moving_landmarks"), landmarks or (None, None), strict=True)),
    }
    inputs |= {f"weights_{number}": path for number, path in enumerate(weights, 1)}
    _refuse_inputs_in(Path(output), inputs)
    seconds: dict[str, float] = {}
    with whole_folder(output, RESULTS, replace=replace) as folder:
        with _step("reading", seconds):
            networks = [load_network(path) for path in weights]
            where = _device(device)
            torch.set_num_threads(threads)
            scans = [_read_scan(*paths) for paths in ((fixed, fixed_mask), (moving, moving_mask))]
            points = None
            if landmarks:
                points = read_landmark_pair(*landmarks, [scan.grid for scan in scans])
                for scan, array, path in zip(scans, points, landmarks, strict=True):
                    refuse_points_outside(array, scan.grid, path, scan.path)
        with _step("lungs", seconds):
            fixed_scan, moving_scan = (_with_lungs(scan) for scan in scans)
            log.info("lungs of %.2f and %.2f litres", fixed_scan.lung_litres, moving_scan.lung_litres)
        with _step("resampling", seconds):
            stages = [_stage(network, facts, fixed_scan, moving_scan) for network, facts in networks]
            finest = min(stages, key=lambda stage: stage.fixed.GetSpacing()[0])
            assert finest.mask is not None
        elastix_seed = job_seed(seed, "affine")
        initial = compose(sitk.AffineTransform(3))
        if affine:
            with _step("affine", seconds):
                initial = _register_affine(finest.fixed, finest.moving, finest.mask, threads=threads, seed=elastix_seed)
        _refuse_little_overlap(fixed_scan, moving_scan, finest.mask, initial, affine)
        with _step("regnet", seconds):
            *coarser, last = stages
            settings: dict[str, Any] = {"module": "regnet", "network": last.network, "window": last.window}
            settings |= {"coarser": coarser, "inference": inference, "device": where}
            transform = register_pair(last.fixed, last.moving, settings, fixed_mask=last.mask, initial=initial, threads=threads)
        transforms = {"before": IDENTITY, **({"affine": initial} if affine else {}), "regnet": transform}
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
            "versions": _versions(affine),
            "inputs": {name: str(path) for name, path in inputs.items() if path is not None},
            "stages": [{"sha256": checksum(path), **facts} for path, (_, facts) in zip(weights, networks, strict=True)],
            "device": torch.cuda.get_device_name() if where.type == "cuda" else f"CPU ({platform.machine()})",
            "threads": threads,
            "seeds": {"seed": seed, **({"affine": elastix_seed} if affine else {})},
            **{name: getattr(inference, name) for name in ("passes", "mirrors", "smoothing", "stride")},
            "seconds": seconds,
            "lungs": {
                "fixed_litres": round(fixed_scan.lung_litres, 4),
                "moving_litres": round(moving_scan.lung_litres, 4),
                "fixed_mask": "given" if fixed_scan.has_own_mask else "segmented",
                "moving_mask": "given" if moving_scan.has_own_mask else "segmented",
                "dice": {name: _dice(fixed_scan, moving_scan, one) for name, one in transforms.items()},
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
    """Say in the log that a step begins, and keep how long it took."""
    log.info("%s ...", name)
    begun = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - begun, 2)


def _refuse_inputs_in(output: Path, inputs: Mapping[str, str | Path | None]) -> None:
    for path in inputs.values():
        if path is not None and Path(path).resolve().is_relative_to(output.resolve()):
            raise InputError(f"{path}: lies in {output}, where the results go, expected another folder for them")


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device: found cuda, but torch finds no CUDA device, expected auto or cpu")
    return pick_device(0 if name == "cpu" else 1)


def _read_scan(path: str | Path, mask_path: str | Path | None) -> Scan:
    """Read an image, and its mask if there is one; else the mask is empty so far."""
    image = read_ct(path)
    grid = Grid.of(image)
    mask = read_mask(mask_path, grid) if mask_path else grid.image(np.zeros(grid.shape, np.uint8))
    return Scan(str(path), image, mask, mask_path is not None)


def _with_lungs(scan: Scan) -> Scan:
    """The scan with its lungs segmented, unless it has a mask of its own."""
    return scan if scan.has_own_mask else Scan(scan.path, scan.image, segment_lungs(scan.image, scan.path), False)


def _stage(network: RegNet, facts: Mapping[str, Any], fixed: Scan, moving: Scan) -> Stage:
    """Both scans at the working spacing of a network."""
    grids = [scan.grid.isotropic(facts["spacing"]) for scan in (fixed, moving)]
    fixed_image, moving_image = (resample_ct(scan.image, grid) for scan, grid in zip((fixed, moving), grids, strict=True))
    return Stage(network, tuple(facts["window"]), fixed_image, moving_image, resample_mask(fixed.mask, grids[0]))


def _register_affine(
    fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, *, threads: int, seed: int
) -> sitk.CompositeTransform:
    # elastix takes seconds to import, which nobody should wait for without an affine registration.
    from regnet.registration.elastix import register_with_file

    # The log of a registration that failed stays: the message names it.
    with tempfile.NamedTemporaryFile(prefix="regnet-elastix-", suffix=".log", delete=False) as file:
        elastix_log = Path(file.name)
    transform = register_with_file(
        fixed,
        moving,
        shipped("elastix") / "affine.txt",
        log=elastix_log,
        fixed_mask=mask,
        seed=seed,
        threads=threads,
    )
    elastix_log.unlink()
    return transform


def _refuse_little_overlap(fixed: Scan, moving: Scan, mask: sitk.Image, initial: sitk.Transform, affine: bool) -> None:
    """Refuse a pair whose fixed lungs, on the working grid, are hardly in the moving image once they are moved there."""
    inside = moving.grid.image(np.ones(moving.grid.shape, np.uint8))
    seen = sitk.Resample(inside, mask, initial, sitk.sitkNearestNeighbor, 0)
    lungs = sitk.GetArrayViewFromImage(mask) != 0
    overlap = float(sitk.GetArrayViewFromImage(seen)[lungs].mean())
    if overlap < MINIMUM_OVERLAP:
        found = f"{overlap:.0%} of the lungs of {fixed.path} in the image {moving.path}"
        if affine:
            raise RegistrationError(f"after the affine registration: found {found}, expected at least {MINIMUM_OVERLAP:.0%}")
        raise InputError(f"found {found}, expected at least {MINIMUM_OVERLAP:.0%} where no affine registration comes first")


def _dice(fixed: Scan, moving: Scan, transform: sitk.Transform) -> float:
    """Dice coefficient of the fixed lungs and the moving ones under a transform; 1 if they are the same."""
    moved = sitk.GetArrayFromImage(sitk.Resample(moving.mask, fixed.mask, transform, sitk.sitkNearestNeighbor, 0)) != 0
    lungs = sitk.GetArrayViewFromImage(fixed.mask) != 0
    return round(2 * np.count_nonzero(moved & lungs) / (np.count_nonzero(moved) + np.count_nonzero(lungs)), 4)


def _field_facts(dvf: sitk.Image, fixed: Scan) -> dict[str, Any]:
    """What to know about a dense displacement field: its size and whether it folds, in the lungs."""
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
