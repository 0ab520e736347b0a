"""Register two scans of a patient, from files to a folder of results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from regnet.api import RESULTS, Networks, Scan, register_read, step
from regnet.errors import InputError
from regnet.evaluation.landmark_errors import landmark_table, transform_errors
from regnet.images.landmarks import read_landmark_pair, refuse_points_outside
from regnet.images.lung_masks import refuse_other_than_lungs
from regnet.images.transforms import compose, read_transform
from regnet.images.volumes import Grid, read_ct, read_mask
from regnet.system.files import whole_folder


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
    inverse: bool = False,
    replace: bool = False,
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """Register two chest CT scans with the feature pyramid, or with RegNet, and write the results to a folder.

    The registration is that of `regnet.api.register`. Results are written on the grid of the fixed image.

    Parameters
    ----------
    fixed, moving
        CT images in HU: files that ITK reads, or folders with one DICOM series each.
    output
        The folder to make, with the files `regnet.api.RESULTS`. Nothing remains of it after a failure.
    weights
        Safetensors files: of the feature pyramid, or of RegNet, one per stage, from coarse to fine.
    fixed_mask, moving_mask
        Lung masks on the grids of their images; without a mask, the lungs are segmented. Affine registration and networks match
        the fixed lungs. The moving mask is only used to report how well the lungs overlap.
    landmarks
        Files of corresponding points of both images, in mm (LPS), at which the registration is measured.
    affine
        The affine registration to start with, one of `regnet.api.AFFINE`; None for none: the scans must then overlap.
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
    inverse
        Whether to write ``inverse.h5``, from the moving image to the fixed one, too.
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
        with step("reading", seconds):
            networks = Networks.read(weights)
            start = None if initial is None else compose(read_transform(initial))
            pair = _read_scan(fixed, fixed_mask), _read_scan(moving, moving_mask)
            points = None
            if landmarks:
                points = read_landmark_pair(*landmarks, [scan.grid for scan in pair])
                for scan, array, path in zip(pair, points, landmarks, strict=True):
                    refuse_points_outside(array, scan.grid, path, scan.path)
        registration = register_read(
            pair,
            networks,
            affine=affine,
            initial=start,
            inference=inference or {},
            device=device,
            threads=threads,
            seed=seed,
            seconds=seconds,
        )
        errors = landmark_table(transform_errors(registration.transforms, *points)) if points else None
        further = {"inputs": {name: str(path) for name, path in inputs.items() if path is not None}}
        if errors is not None:
            further["landmarks_mm"] = json.loads(errors.to_json(orient="index"))
        report = registration.write(folder, inverse=inverse, further=further)
    return report, errors


def _refuse_inputs_in(output: Path, inputs: Mapping[str, str | Path | None]) -> None:
    for path in inputs.values():
        if path is not None and Path(path).resolve().is_relative_to(output.resolve()):
            raise InputError(f"{path}: lies in {output}, where the results go, expected another folder for them")


def _read_scan(path: str | Path, mask_path: str | Path | None) -> Scan:
    """Read an image and its mask; without a mask file, the mask is empty."""
    image = read_ct(path)
    if mask_path is None:
        return Scan.without_mask(str(path), image)
    mask = read_mask(mask_path, Grid.of(image))
    refuse_other_than_lungs(mask, image, mask_path)
    return Scan(str(path), image, mask, True)
