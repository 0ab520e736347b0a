"""Register two chest CTs in memory, and use the result. ``import regnet`` gives the same names."""

import functools
import json
import logging
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from dataclasses import replace as with_changes
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from regnet import __version__
from regnet.conventions import job_seed
from regnet.errors import ConfigError, InputError, RegistrationError
from regnet.images.inverse import Inverse, invert
from regnet.images.lung_masks import refuse_other_than_lungs
from regnet.images.lungs import segment_lungs
from regnet.images.transforms import (
    compose,
    displacement_image,
    jacobian_determinant,
    transform_points,
    warp,
    warp_image,
    write_transform,
)
from regnet.images.volumes import (
    IDENTITY,
    Grid,
    as_ct,
    as_mask,
    mask_litres,
    refuse_implausible,
    refuse_other_grid,
    resample_ct,
    resample_mask,
    write_image,
)
from regnet.learning.devices import pick_device
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.interface import Network
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.released import DEFAULT, PYRAMID_SETTINGS, PYRAMID_SPACINGS, REGNET_SETTINGS, find_weights
from regnet.learning.weight_files import load_network
from regnet.presentation.figures.overview import overview
from regnet.presentation.figures.style import save_figure
from regnet.presentation.slices import overview_slices
from regnet.registration.regnet import Stage
from regnet.registration.run import register_pair
from regnet.synthesis.samples import OUTPUT_STRIDE
from regnet.system.files import checksum, whole_file, whole_folder
from regnet.system.machine import usable_cores
from regnet.system.resources import shipped

log = logging.getLogger(__name__)

RESULTS = ("transform.h5", "dvf.nii.gz", "warped.nii.gz", "report.json", "overview.png", "inverse.h5")
"""The files written for a registered pair; the last one on demand."""

AFFINE: dict[str, dict[str, int]] = {"fast": {"MaximumNumberOfIterations": 250}, "chapter": {}}
"""Affine registrations: parameters of elastix that replace those of the file (docs/register-reference.md#time)."""

PYRAMID_MARGIN = 20.0
"""How far around the lungs the feature pyramid sees the images, in mm: as all methods of the default config."""

MINIMUM_OVERLAP = 0.25
"""The smallest part of the fixed lungs that must lie in the moving image before RegNet starts."""

DEVICES = ("auto", "cpu", "cuda")
"""Where networks run; ``auto`` is CUDA if torch finds it."""

Image = sitk.Image | tuple[np.ndarray, Grid]
"""An image: SimpleITK's, or an array ``(z, y, x)`` and its grid."""


@dataclass(frozen=True)
class Scan:
    """One of the two scans of a registration.

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

    @classmethod
    def without_mask(cls, path: str, image: sitk.Image) -> "Scan":
        """A scan whose lungs are still to be segmented: its mask is empty."""
        grid = Grid.of(image)
        return cls(path, image, grid.image(np.zeros(grid.shape, np.uint8)), False)


@dataclass(frozen=True)
class Registration:
    """A registered pair.

    Attributes
    ----------
    fixed, moving
        The scans, with their lungs.
    transform
        Maps points of the fixed image to the moving one, mm (LPS): the affine registration, and the fields of the networks.
    transforms
        The steps, each from the fixed image to the moving one: ``before`` (nothing), ``affine`` or ``initial``, ``regnet``.
    facts
        What ``report.json`` says of versions, weights, settings and seconds.
    """

    fixed: Scan
    moving: Scan
    transform: sitk.CompositeTransform
    transforms: dict[str, sitk.Transform]
    facts: dict[str, Any]

    @property
    def affine(self) -> sitk.Transform | None:
        """The affine registration, or the transform that was given; None if there was none."""
        return self.transforms.get("affine", self.transforms.get("initial"))

    @property
    def lungs(self) -> sitk.Image:
        """Lungs of the fixed image: uint8, 1 inside."""
        return self.fixed.mask

    @functools.cached_property
    def field(self) -> sitk.Image:
        """``T(x) - x`` at every voxel of the fixed image: float32 vectors x, y, z in mm (LPS), affine part included."""
        return displacement_image(self.transform, self.fixed.grid)

    def warp(self, image: sitk.Image | None = None, *, labels: bool = False) -> sitk.Image:
        """An image of the moving scan on the grid of the fixed one, as `regnet.images.transforms.warp_image` makes it.

        Parameters
        ----------
        image
            In the space of the moving scan; the moving scan itself if None.
        labels
            Whether it holds labels, as a segmentation.
        """
        if image is None:
            return warp(self.moving.image, self.transform, self.fixed.grid)
        return warp_image(image, self.transform, self.fixed.grid, labels=labels)

    def points(self, points: np.ndarray) -> np.ndarray:
        """The points of the moving image, ``(n, 3)``, that correspond to points of the fixed one; x, y, z in mm (LPS)."""
        return transform_points(self.transform, points)

    def inverse(self) -> Inverse:
        """The inverse, for points of the moving image, with its residual in the fixed lungs."""
        return invert(self.transform, self.fixed.grid, self.fixed.mask)

    def save(self, folder: str | Path, *, replace: bool = False, inverse: bool = False) -> dict[str, Any]:
        """Write the files `RESULTS` into a new folder; nothing remains of it after a failure.

        Parameters
        ----------
        folder
            The folder to make.
        replace
            Whether to replace earlier results in it.
        inverse
            Whether to write the inverse, too.

        Returns
        -------
        dict
            The content of ``report.json``.

        Raises
        ------
        OutputError
            If the folder exists and may not be replaced, or cannot be written.
        """
        with whole_folder(folder, RESULTS, replace=replace) as partial:
            return self.write(partial, inverse=inverse)

    def write(self, folder: Path, *, inverse: bool = False, further: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write the files `RESULTS` into an existing folder, with `further` facts in the report, which is returned."""
        seconds = dict(self.facts["seconds"])
        facts: dict[str, Any] = {}
        with step("writing", seconds):
            write_image(self.field, folder / "dvf.nii.gz")
            write_image(self.warp(), folder / "warped.nii.gz")
            write_transform(self.transform, folder / "transform.h5")
            slices = overview_slices(
                self.fixed.image, self.fixed.mask, self.moving.image, {"before": IDENTITY, "after": self.transform}
            )
            save_figure(overview(slices), folder / "overview.png")
        if inverse:
            with step("inverse", seconds):
                found = self.inverse()
                write_transform(found.transform, folder / "inverse.h5")
            facts["inverse"] = {
                "mean_residual_mm": round(found.mean_residual, 4),
                "largest_residual_mm": round(found.largest_residual, 4),
                "folded_fraction": found.folded_fraction,
            }
        report = {
            **self.facts,
            "seconds": seconds,
            "lungs": {
                "fixed_litres": round(self.fixed.lung_litres, 4),
                "moving_litres": round(self.moving.lung_litres, 4),
                "fixed_mask": "given" if self.fixed.has_own_mask else "segmented",
                "moving_mask": "given" if self.moving.has_own_mask else "segmented",
                "dice": {name: _dice(self.fixed, self.moving, transform) for name, transform in self.transforms.items()},
            },
            **_field_facts(self.field, self.fixed),
            **facts,
            **(further or {}),
        }
        with whole_file(folder / "report.json") as partial:
            partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return report


def register(
    fixed: Image,
    moving: Image,
    *,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    weights: str | Path | Sequence[str | Path] | None = None,
    affine: str | None = "fast",
    initial: sitk.Transform | None = None,
    inference: Mapping[str, Any] | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 2017,
) -> Registration:
    """Register two chest CTs with the feature pyramid, or with RegNet.

    RegNet runs on both images resampled to the spacing at which it was trained, the feature pyramid at those of
    `regnet.learning.released.PYRAMID_SPACINGS`.

    Parameters
    ----------
    fixed, moving
        CT images in HU; 3D.
    fixed_mask, moving_mask
        Lung masks on the grids of their images, not 0 inside; without a mask, the lungs are segmented. Affine registration and
        networks match the fixed lungs. The moving mask is only used to report how well the lungs overlap.
    weights
        Safetensors files, or names of released weights: of the feature pyramid, or of RegNet, one per stage, from coarse to
        fine. None for the released weights of the feature pyramid.
    affine
        The affine registration to start with, one of `AFFINE`; None for none: the scans must then overlap.
    initial
        A transform from fixed to moving to start from, in place of the affine registration.
    inference
        Fields of `InferenceSettings` that differ from the defaults for the network,
        `regnet.learning.released.PYRAMID_SETTINGS` or `regnet.learning.released.REGNET_SETTINGS`.
    device
        ``auto`` (CUDA if available), ``cpu`` or ``cuda``.
    threads
        CPU threads of elastix, torch and SimpleITK; None for all that this process may use.
    seed
        The seed of the affine registration is derived from it.

    Raises
    ------
    InputError
        If an image or a mask cannot be used, weights are not found or cannot be read, or scans that are not registered affinely
        do not overlap.
    ConfigError
        If an option is none of the possible ones, if `device` is ``cuda`` and torch finds no CUDA device, or if weights and
        settings do not go together.
    RegistrationError
        If elastix fails, or the scans do not overlap after the affine registration.

    Examples
    --------
    A random texture and the same texture 6 mm further left and 4 mm lower: RegNet finds the shift.

    >>> fixed, moving = (Grid((16, 16, 16), (4.0, 4.0, 4.0), origin) for origin in ((0.0, 0.0, 0.0), (6.0, 0.0, -4.0)))
    >>> noise = fixed.image(np.random.default_rng(1).normal(size=fixed.shape))
    >>> texture = sitk.GetArrayFromImage(sitk.Normalize(sitk.SmoothingRecursiveGaussian(noise, 8.0)))
    >>> lungs = np.pad(np.ones((10, 10, 10), np.uint8), 3)
    >>> registration = register(
    ...     (150 * texture - 600, fixed),
    ...     (150 * texture - 600, moving),
    ...     fixed_mask=(lungs, fixed),
    ...     moving_mask=(lungs, moving),
    ...     weights="regnet_4mm",
    ...     affine=None,
    ...     inference={"passes": 1, "mirrors": 1, "precision": "float32"},
    ...     device="cpu",
    ... )
    >>> (moved,) = registration.points([[30.0, 30.0, 30.0]])
    >>> bool(np.abs(moved - [36.0, 30.0, 26.0]).max() < 1.5)
    True
    """
    seconds: dict[str, float] = {}
    with step("reading", seconds):
        names = DEFAULT if weights is None else [weights] if isinstance(weights, str | Path) else weights
        networks = Networks.read(names)
        pair = _scan("fixed", fixed, fixed_mask), _scan("moving", moving, moving_mask)
    return register_read(
        pair,
        networks,
        affine=affine,
        initial=None if initial is None else compose(initial),
        inference=inference or {},
        device=device,
        threads=usable_cores() if threads is None else threads,
        seed=seed,
        seconds=seconds,
    )


@dataclass(frozen=True)
class Networks:
    """The networks of a registration, coarse to fine, with the facts of their weights, and the files they come from."""

    files: list[Path]
    loaded: list[tuple[Network, dict[str, Any]]]

    @classmethod
    def read(cls, weights: Sequence[str | Path]) -> "Networks":
        """Read weights, by file or released name; raises as `find_weights` and `load_network` do."""
        files = [find_weights(name) for name in weights]
        return cls(files, [load_network(path) for path in files])


def register_read(
    pair: tuple[Scan, Scan],
    networks: Networks,
    *,
    affine: str | None,
    initial: sitk.CompositeTransform | None,
    inference: Mapping[str, Any],
    device: str,
    threads: int,
    seed: int,
    seconds: dict[str, float],
) -> Registration:
    """Register a fixed and a moving scan, as `register` does; `seconds` has the steps before, and gets these."""
    if affine not in (None, *AFFINE):
        raise ConfigError(f"affine: found {affine!r}, expected one of {', '.join(AFFINE)}, or None")
    if device not in DEVICES:
        raise ConfigError(f"device: found {device!r}, expected one of {', '.join(DEVICES)}")
    unknown = sorted(set(inference) - {field.name for field in fields(InferenceSettings)})
    if unknown:
        raise ConfigError(f"inference: found {unknown[0]!r}, expected fields of InferenceSettings")
    applied = _inference(networks.loaded, inference)
    torch_device = _device(device)
    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    with step("lungs", seconds):
        fixed, moving = map(_with_lungs, pair)
        log.info("lungs of %.2f and %.2f litres", fixed.lung_litres, moving.lung_litres)
    at = functools.cache(functools.partial(_at, fixed, moving))
    finest = _finest(networks.loaded)
    with step("resampling", seconds):
        fixed_image, moving_image, mask = at(finest)
    elastix_seed = job_seed(seed, "affine")
    start = initial
    if start is None and affine is not None:
        with step("affine", seconds):
            start = _register_affine(fixed_image, moving_image, mask, AFFINE[affine], threads=threads, seed=elastix_seed)
        start_name = "affine"
    else:
        affine, start_name = None, "initial"
    _refuse_poor_overlap(fixed, moving, mask, start or IDENTITY, affine)
    with step("regnet", seconds):
        settings, margin = _method(networks, at, applied, torch_device)
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
    facts = {
        "versions": _versions(affine is not None),
        "stages": [{"sha256": checksum(path), **of} for path, (_, of) in zip(networks.files, networks.loaded, strict=True)],
        "device": torch.cuda.get_device_name() if torch_device.type == "cuda" else f"CPU ({platform.machine()})",
        "threads": threads,
        "affine": affine,
        "seeds": {"seed": seed, **({"affine": elastix_seed} if affine else {})},
        **{name: getattr(applied, name) for name in ("passes", "mirrors", "smoothing", "stride")},
        "seconds": seconds,
    }
    transforms = {"before": IDENTITY, **({} if start is None else {start_name: start}), "regnet": transform}
    return Registration(fixed, moving, transform, transforms, facts)


def _scan(name: str, image: Image, mask: Image | None) -> Scan:
    """A scan from an image in memory and its mask; without one, the mask is empty."""
    ct = as_ct(_image(image), name)
    refuse_implausible(name, Grid.of(ct))
    if mask is None:
        return Scan.without_mask(name, ct)
    lungs = as_mask(_image(mask), f"{name}_mask")
    refuse_other_grid(f"{name}_mask", Grid.of(lungs), Grid.of(ct))
    refuse_other_than_lungs(lungs, ct, f"{name}_mask")
    return Scan(name, ct, lungs, True)


def _image(image: Image) -> sitk.Image:
    return image if isinstance(image, sitk.Image) else image[1].image(np.asarray(image[0]))


@contextmanager
def step(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Log the start of a step, and store its duration in `seconds`."""
    log.info("%s ...", name)
    started = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - started, 2)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: found cuda, but torch finds no CUDA device, expected auto or cpu")
    return pick_device(0 if name == "cpu" else 1)


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
        raise ConfigError(f"weights: found {RegNetPyramid.variant} among {len(networks)}, expected it alone")
    applied = with_changes(PYRAMID_SETTINGS, **changes)
    if applied.stride != OUTPUT_STRIDE:
        raise ConfigError(f"stride: found {applied.stride}, expected {OUTPUT_STRIDE} for {RegNetPyramid.variant}")
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
    networks: Networks,
    at: Callable[[float], tuple[sitk.Image, sitk.Image, sitk.Image]],
    applied: InferenceSettings,
    device: torch.device,
) -> tuple[dict[str, Any], float | None]:
    """The settings of the method, and the margin around the lungs that it sees; `at` gives the pair at a spacing."""
    if networks.loaded[0][0].any_spacing:
        settings = {"module": "pyramid", "weights": str(networks.files[0]), "spacings": PYRAMID_SPACINGS}
        return settings | asdict(applied), PYRAMID_MARGIN
    *coarser, last = [Stage(network, tuple(facts["window"]), *at(facts["spacing"])) for network, facts in networks.loaded]
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
