"""Affine and B-spline registration by elastix [Klein 2010], run in this process through itk-elastix."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import itk
import numpy as np
import SimpleITK as sitk

# Not itk.ElastixRegistrationMethod: that attribute loads every module of ITK first (10 s instead of 2 s).
from itk.elxParameterObjectPython import elastixParameterObject
from itk.itkAffineTransformPython import itkAffineTransformD3
from itk.itkDisplacementFieldTransformPython import itkDisplacementFieldTransformD3
from itk.itkElastixRegistrationMethodPython import itkElastixRegistrationMethodIF3IF3
from itk.itkOptimizerParametersPython import itkOptimizerParametersD

from regnet.errors import ConfigError, OutputError, RegistrationError
from regnet.images.transforms import compose, transform_points
from regnet.images.volumes import Grid
from regnet.system.files import refuse_undecodable, remove_leftovers, temporary_prefix

Parameter = str | bool | int | float
"""A value of an elastix parameter; a parameter has one, or a sequence of them (mostly one per resolution)."""

QUIET = {
    "WriteResultImage": "false",
    "WriteFinalTransformParameters": "false",
    "WriteIterationInfo": "false",
}
"""Overrides in every parameter file: the transform is passed in memory, and elastix writes only its log."""

TRANSFORMS: dict[str, Callable[[Mapping[str, Sequence[str]]], sitk.Transform]] = {
    "TranslationTransform": lambda settings: sitk.TranslationTransform(3),
    "EulerTransform": lambda settings: sitk.Euler3DTransform(),
    "AffineTransform": lambda settings: sitk.AffineTransform(3),
    "BSplineTransform": lambda settings: sitk.BSplineTransform(3, int(settings["BSplineTransformSplineOrder"][0])),
}
"""The transforms that a parameter file may name, and functions that make the SimpleITK transform, given all parameters."""

OVERRIDES = {
    "resolutions": "NumberOfResolutions",
    "iterations": "MaximumNumberOfIterations",
    "grid_spacing": "FinalGridSpacingInPhysicalUnits",
}
"""Keys of the config that override a parameter file, and the elastix parameters they set."""


def register(
    fixed: sitk.Image,
    moving: sitk.Image,
    fixed_mask: sitk.Image | None,
    moving_mask: sitk.Image | None,
    initial: sitk.Transform | None,
    settings: Mapping[str, Any],
) -> sitk.CompositeTransform:
    """Register a pair as the config says (docs/adding-a-method.md): `register_with_file`, with its settings by name.

    `moving_mask` is not used: elastix draws its samples in the fixed mask, and maps them to wherever the images match.
    """
    return register_with_file(
        fixed,
        moving,
        settings["parameters"],
        log=settings["log"],
        fixed_mask=fixed_mask,
        initial=initial,
        overrides={OVERRIDES[key]: value for key, value in settings.items() if key in OVERRIDES},
        seed=settings["seed"],
        threads=settings["threads"],
    )


def register_with_file(
    fixed: sitk.Image,
    moving: sitk.Image,
    parameters: str | Path,
    *,
    log: str | Path,
    fixed_mask: sitk.Image | None = None,
    initial: sitk.Transform | None = None,
    overrides: Mapping[str, Parameter | Sequence[Parameter]] | None = None,
    seed: int = 0,
    threads: int = 1,
) -> sitk.CompositeTransform:
    """Register two images with one elastix parameter file.

    Two calls with the same arguments give the same transform, to the last bit. Another number of threads adds up the metric in
    another order, which changes the last digits.

    Parameters
    ----------
    fixed, moving
        The images, HU, on any grids, oblique ones included.
    parameters
        An elastix parameter file.
    log
        Where elastix writes its log, the only file that this function leaves; an existing file is replaced.
    fixed_mask
        Samples are drawn where it is not 0. On any grid.
    initial
        A transform, fixed to moving, that is applied first: the registration starts from ``I_M(initial(x))``, and the moving
        image is interpolated once. With it, elastix skips ``AutomaticTransformInitialization``. elastix sees one that is not
        linear as a field on the grid of `fixed`.
    overrides
        Parameters that replace those of the file, for example ``{"NumberOfResolutions": 3}``. The file has to name them.
    seed
        Seed of the sampler, ``[0, 2**31)``.
    threads
        Number of threads.

    Returns
    -------
    SimpleITK.CompositeTransform
        From fixed to moving, mm, `initial` included: ``x -> T(initial(x))`` with the transform ``T`` that elastix finds.

    Raises
    ------
    ConfigError
        If the parameter file cannot be read, names another transform than those of `TRANSFORMS`, or does not name one of
        `overrides`.
    RegistrationError
        If elastix fails, with its reason; more is in `log`.

    References
    ----------
    S. Klein et al., elastix: a toolbox for intensity-based medical image registration, IEEE Trans. Med. Imaging 29, 2010.
    """
    log = Path(log).absolute()
    refuse_undecodable(log, OutputError)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    remove_leftovers(log.parent, "elastix", log.name)
    settings = _read_parameters(parameters, overrides or {})
    settings |= {name: (value,) for name, value in QUIET.items()} | {"RandomSeed": (str(seed),)}

    method = itkElastixRegistrationMethodIF3IF3.New()
    method.SetFixedImage(_itk_image(fixed, sitk.sitkFloat32))
    method.SetMovingImage(_itk_image(moving, sitk.sitkFloat32))
    if fixed_mask is not None:
        method.SetFixedMask(_itk_image(fixed_mask != 0, sitk.sitkUInt8))
    if initial is not None:
        if initial.IsLinear():
            method.SetInitialTransform(_itk_affine(initial))
        else:
            method.SetExternalInitialTransform(_itk_field(initial, Grid.of(fixed)))
    parameter_object = elastixParameterObject.New()
    parameter_object.AddParameterMap(settings)
    method.SetParameterObject(parameter_object)
    method.SetNumberOfThreads(threads)
    method.SetLogToConsole(False)
    method.SetLogToFile(True)
    # elastix joins the log's name to its output directory. It also writes files with fixed names there, such as a copy of the
    # initial transform, which must not collide with those of another job.
    with TemporaryDirectory(prefix=temporary_prefix("elastix"), suffix=f"-{log.name}", dir=log.parent) as directory:
        method.SetOutputDirectory(directory)
        method.SetLogFileName(f"../{log.name}")
        try:
            method.Update()
        except RuntimeError as error:
            raise RegistrationError(f"elastix with {parameters}: {_reason(log, error)} (more in {log})") from error

    # Only the transform that elastix found is converted; `initial` stays the same object. Unlike RegNet, elastix applies the
    # deformation after the initial transform: T(initial(x)).
    own = method.ConvertToItkTransform(method.GetNthTransform(0))
    transform = _sitk_transform(own, settings)
    return compose(transform) if initial is None else compose(transform, initial)


def _read_parameters(path: str | Path, overrides: Mapping[str, Parameter | Sequence[Parameter]]) -> dict[str, tuple[str, ...]]:
    """The parameters of a file, after `overrides`, as elastix expects them: all values are strings."""
    parameter_object = elastixParameterObject.New()
    try:
        parameter_object.AddParameterFile(str(path))
    except RuntimeError as error:
        raise ConfigError(f"{path}: cannot be read as an elastix parameter file ({_last_line(str(error))})") from error
    settings = dict(parameter_object.GetParameterMap(0))
    # elastix ignores names that it does not know: a misspelt parameter would silently keep its default.
    unknown = sorted(set(overrides) - set(settings))
    if unknown:
        raise ConfigError(f"{path}: the config sets {unknown[0]}, expected a parameter that this file names")
    for name, value in overrides.items():
        values = [value] if isinstance(value, Parameter) else value
        settings[name] = tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in values)
    transform = settings.get("Transform", ("no Transform",))[0]
    if transform not in TRANSFORMS:
        raise ConfigError(f"{path}: found {transform}, expected one of {', '.join(TRANSFORMS)} as Transform")
    settings.setdefault("BSplineTransformSplineOrder", ("3",))
    return settings


def _itk_image(image: sitk.Image, pixel_type: int) -> itk.Image:
    """The same image as an ITK object, on the same grid."""
    result = itk.image_from_array(sitk.GetArrayFromImage(sitk.Cast(image, pixel_type)))
    result.SetSpacing(image.GetSpacing())
    result.SetOrigin(image.GetOrigin())
    result.SetDirection(np.reshape(image.GetDirection(), (3, 3)))
    return result


def _itk_affine(transform: sitk.Transform) -> itkAffineTransformD3:
    """A linear transform, which may be a composition of several, as one ITK affine transform."""
    # Points far away, so that the rounding of large coordinates does not show in the matrix.
    reach = 1000.0
    offset, *columns = transform_points(transform, reach * np.vstack([np.zeros(3), np.eye(3)]))
    matrix = (np.array(columns) - offset).T / reach
    result = itkAffineTransformD3.New()
    result.SetParameters(itkOptimizerParametersD([*matrix.ravel().tolist(), *offset.tolist()]))
    return result


def _itk_field(transform: sitk.Transform, grid: Grid) -> itkDisplacementFieldTransformD3:
    """Any transform as an ITK displacement field on a grid."""
    geometry = grid.size, grid.origin, grid.spacing, grid.direction
    field = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, *geometry)
    result = itkDisplacementFieldTransformD3.New()
    result.SetFixedParameters(itkOptimizerParametersD([float(value) for values in geometry for value in values]))
    itk.array_view_from_image(result.GetDisplacementField())[:] = sitk.GetArrayViewFromImage(field)
    return result


def _sitk_transform(transform: itk.Transform, settings: Mapping[str, Sequence[str]]) -> sitk.Transform:
    """The same transform as a SimpleITK object; exact, since its parameters stay doubles in memory."""
    result = TRANSFORMS[settings["Transform"][0]](settings)
    result.SetFixedParameters(list(transform.GetFixedParameters()))
    result.SetParameters(list(transform.GetParameters()))
    return result


def _reason(log: Path, error: RuntimeError) -> str:
    """The first error in the log of elastix, or else the exception, without the name of the C++ object."""
    lines = log.read_text(errors="replace", encoding="utf-8").splitlines() if log.exists() else []
    errors = [line for line in lines if "ITK ERROR:" in line or line.startswith("std: ")] or [_last_line(str(error))]
    return re.sub(r"^(std: |.*ERROR: )(\w+\(0x\w+\): )?", "", errors[0]).strip()


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]
