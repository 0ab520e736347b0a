"""elastix: recovers known transforms, and the returned transform moves points as elastix itself does."""

from pathlib import Path

import itk
import numpy as np
import pytest
import SimpleITK as sitk

from regnet.errors import ConfigError, RegistrationError
from regnet.images.transforms import compose, read_transform, transform_points, write_transform
from regnet.images.volumes import Grid
from regnet.registration import elastix
from regnet.registration.elastix import register_with_file

pytestmark = pytest.mark.slow

PARAMETERS = Path(__file__).resolve().parents[2] / "config" / "elastix"
QUICK = {"MaximumNumberOfIterations": 150, "NumberOfResolutions": 2}


def rotation(*degrees: float) -> np.ndarray:
    """Direction cosines ``(3, 3)`` of turns around x, y and z."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians(degrees).tolist())
    return np.reshape(transform.GetMatrix(), (3, 3))


OBLIQUE = Grid((44, 40, 32), (1.5, 1.8, 2.2), (-120.0, 40.0, -1200.0), tuple(rotation(10.0, -15.0, 25.0).ravel().tolist()))
PLAIN = Grid((44, 40, 32), (1.5, 1.8, 2.2))


def texture(grid: Grid, seed: int = 0) -> sitk.Image:
    """Blobs of about 6 mm in HU, without structure at the scale of the grid."""
    noise = np.random.default_rng(seed).normal(size=grid.shape).astype(np.float32)
    smooth = sitk.SmoothingRecursiveGaussian(grid.image(noise), 4.0)
    return sitk.Cast(-600 + 200 * sitk.Normalize(smooth), sitk.sitkInt16)


def moved(image: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """The moving image that `transform` maps the fixed `image` to: ``I_M(x) = I_F(inverse(x))``."""
    return sitk.Resample(image, transform.GetInverse(), sitk.sitkBSpline, -600.0)


def inner_points(grid: Grid, count: int = 50) -> np.ndarray:
    index = np.random.default_rng(1).uniform(0.3, 0.7, (count, 3)) * (np.array(grid.size) - 1)
    return grid.points(index)


def turn(grid: Grid) -> sitk.AffineTransform:
    """A small oblique affine transform about the middle of the grid, which does not commute with a deformation."""
    transform = sitk.AffineTransform(3)
    transform.SetCenter(grid.points((np.array(grid.size) - 1) / 2).tolist())
    transform.SetMatrix((rotation(3.0, -2.0, 4.0) @ np.diag([1.04, 0.97, 1.0])).ravel().tolist())
    transform.SetTranslation((2.0, -1.0, 1.5))
    return transform


@pytest.fixture
def filters(monkeypatch):
    """The elastix filters that `register_with_file` makes, kept for comparison."""
    made, original = [], elastix.itkElastixRegistrationMethodIF3IF3

    class Recorder:
        @staticmethod
        def New():
            made.append(original.New())
            return made[-1]

    monkeypatch.setattr(elastix, "itkElastixRegistrationMethodIF3IF3", Recorder)
    return made


@pytest.mark.parametrize("grid", [PLAIN, OBLIQUE], ids=["plain", "oblique"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_affine_recovers_a_translation_of_five_voxels(grid, axis, tmp_path):
    # Along one axis of the grid: on the oblique one this is a displacement in x, y and z.
    shift = np.reshape(grid.direction, (3, 3))[:, axis] * 5 * grid.spacing[axis]
    fixed = texture(grid)
    moving = moved(fixed, sitk.TranslationTransform(3, shift.tolist()))
    transform = register_with_file(
        fixed, moving, PARAMETERS / "affine.txt", log=tmp_path / "log", overrides=QUICK, seed=1, threads=2
    )
    points = inner_points(grid)
    displacement_in_voxels = grid.indices(transform_points(transform, points)) - grid.indices(points)
    np.testing.assert_allclose(displacement_in_voxels, np.broadcast_to(5 * np.eye(3)[axis], points.shape), atol=0.2)


def test_bspline_after_an_affine_recovers_the_whole(tmp_path):
    fixed, truth = texture(OBLIQUE), turn(OBLIQUE)
    truth.SetTranslation((3.0, -2.0, 3.0))
    moving = moved(fixed, truth)
    points = inner_points(OBLIQUE)
    transform = register_with_file(
        fixed,
        moving,
        PARAMETERS / "bspline_3r.txt",
        log=tmp_path / "log",
        initial=turn(OBLIQUE),
        overrides=QUICK,
        seed=1,
        threads=2,
    )
    errors = np.linalg.norm(transform_points(transform, points) - transform_points(truth, points), axis=1)
    before = np.linalg.norm(transform_points(turn(OBLIQUE), points) - transform_points(truth, points), axis=1)
    assert before.min() > 2
    assert errors.mean() < 0.4


@pytest.mark.parametrize("name", ["affine", "bspline_1r", "bspline_3r"])
@pytest.mark.parametrize("with_initial", [False, True])
def test_points_move_as_in_elastix(name, with_initial, filters, tmp_path):
    fixed, initial = texture(OBLIQUE), turn(OBLIQUE) if with_initial else None
    moving = moved(fixed, sitk.TranslationTransform(3, (3.0, -2.0, 1.0)))
    file, overrides = PARAMETERS / f"{name}.txt", {"MaximumNumberOfIterations": 20}
    transform = register_with_file(fixed, moving, file, log=tmp_path / "log", initial=initial, overrides=overrides, threads=2)
    own = filters[0].GetCombinationTransform()
    # Corners of the image too: a B-spline ends there, and must end at the same place.
    points = np.vstack([inner_points(OBLIQUE), OBLIQUE.points(np.indices((2, 2, 2)).reshape(3, -1).T * OBLIQUE.size)])
    expected = np.array([own.TransformPoint(itk.Point[itk.D, 3](point)) for point in points.tolist()])
    assert np.linalg.norm(expected - points, axis=1).mean() > 0.2
    np.testing.assert_allclose(transform_points(transform, points), expected, rtol=0, atol=1e-6)

    write_transform(transform, tmp_path / "transform.h5")
    read = read_transform(tmp_path / "transform.h5")
    np.testing.assert_allclose(transform_points(read, points), expected, rtol=0, atol=1e-6)
    if with_initial and name != "affine":
        bspline, affine = transform.GetNthTransform(0), transform.GetNthTransform(1)
        other_order = transform_points(affine, transform_points(bspline, points))
        assert np.abs(other_order - expected).max() > 1e-3


def test_initial_transform_may_be_any_composite_of_linear_ones(filters, tmp_path):
    fixed = texture(OBLIQUE)
    initial = compose(turn(OBLIQUE), sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), turn(OBLIQUE))
    file, overrides = PARAMETERS / "affine.txt", {"MaximumNumberOfIterations": 5}
    transform = register_with_file(fixed, fixed, file, log=tmp_path / "log", initial=initial, overrides=overrides)
    own, points = filters[0].GetCombinationTransform(), inner_points(OBLIQUE)
    expected = np.array([own.TransformPoint(itk.Point[itk.D, 3](point)) for point in points.tolist()])
    np.testing.assert_allclose(transform_points(transform, points), expected, rtol=0, atol=1e-6)


def test_initial_transform_takes_the_place_of_the_automatic_one(tmp_path):
    fixed, moving = texture(PLAIN), texture(PLAIN)
    moving.SetOrigin((30.0, 0.0, 0.0))
    file, initial = PARAMETERS / "affine.txt", sitk.TranslationTransform(3, (30.0, 0.0, 0.0))
    overrides = {"MaximumNumberOfIterations": 1, "NumberOfResolutions": 1}
    for start in (None, initial):
        transform = register_with_file(fixed, moving, file, log=tmp_path / "log", initial=start, overrides=overrides)
        displacement = transform_points(transform, inner_points(PLAIN)) - inner_points(PLAIN)
        np.testing.assert_allclose(displacement.mean(axis=0), (30.0, 0.0, 0.0), atol=1)


def test_initial_transform_may_be_a_field(filters, tmp_path):
    """A refinement from a field that leaves 2.5 mm goes on from there, and elastix agrees where points end."""
    moving = texture(OBLIQUE)
    rest = sitk.TranslationTransform(3, (1.5, -2.0, 0.0))
    start = compose(turn(OBLIQUE), sitk.BSplineTransformInitializer(moving, [3, 3, 3]))
    bent = start.GetNthTransform(1)
    bent.SetParameters(np.random.default_rng(4).uniform(-3, 3, bent.GetNumberOfParameters()).tolist())
    start = compose(start.GetNthTransform(0), bent)
    fixed = sitk.Resample(moving, compose(rest, start), sitk.sitkBSpline, -600.0)
    overrides = {"MaximumNumberOfIterations": 100, "FinalGridSpacingInPhysicalUnits": 20}
    options = {"log": tmp_path / "log", "initial": start, "overrides": overrides}
    transform = register_with_file(fixed, moving, PARAMETERS / "refine.txt", **options)
    points, own = inner_points(OBLIQUE), filters[0].GetCombinationTransform()
    expected = np.array([own.TransformPoint(itk.Point[itk.D, 3](point)) for point in points.tolist()])
    # elastix sees the initial transform between the voxels as the mean of its neighbours.
    np.testing.assert_allclose(transform_points(transform, points), expected, atol=0.05)
    truth = transform_points(compose(rest, start), points)
    before, after = (np.linalg.norm(transform_points(one, points) - truth, axis=1).mean() for one in (start, transform))
    assert before == pytest.approx(2.5, abs=0.01)
    assert after < 0.3 * before


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_and_threads_give_the_same_transform(threads, tmp_path):
    fixed, moving = texture(PLAIN), moved(texture(PLAIN), sitk.TranslationTransform(3, (3.0, -2.0, 1.0)))

    def parameters(seed: int) -> tuple[float, ...]:
        transform = register_with_file(
            fixed,
            moving,
            PARAMETERS / "bspline_3r.txt",
            log=tmp_path / "log",
            overrides={"MaximumNumberOfIterations": 30},
            seed=seed,
            threads=threads,
        )
        return transform.GetNthTransform(0).GetParameters()

    first = parameters(7)
    assert parameters(7) == first
    assert parameters(8) != first


def test_mask_decides_what_is_registered(tmp_path):
    # A box whose content moves, in strong surroundings that stay, as the lungs in the ribs.
    content, surroundings = texture(PLAIN), 5 * sitk.GetArrayFromImage(texture(PLAIN, seed=1))
    box, mask = np.zeros(PLAIN.shape, bool), np.zeros(PLAIN.shape, np.uint8)
    box[5:-5, 5:-5, 5:-5] = True
    mask[8:-8, 8:-8, 8:-8] = 1
    shifted = moved(content, sitk.TranslationTransform(3, (3.0, 0.0, 0.0)))
    fixed, moving = (PLAIN.image(np.where(box, sitk.GetArrayFromImage(image), surroundings)) for image in (content, shifted))

    def displacement(fixed_mask: sitk.Image | None) -> np.ndarray:
        overrides = QUICK | {"NumberOfResolutions": 1}
        file, log = PARAMETERS / "affine.txt", tmp_path / "log"
        transform = register_with_file(
            fixed, moving, file, log=log, fixed_mask=fixed_mask, overrides=overrides, seed=1, threads=2
        )
        return np.mean(transform_points(transform, inner_points(PLAIN)) - inner_points(PLAIN), axis=0)

    np.testing.assert_allclose(displacement(PLAIN.image(mask)), (3.0, 0, 0), atol=0.2)
    assert displacement(None)[0] < 1


@pytest.mark.parametrize("resolutions", [1, 4])
def test_number_of_resolutions_can_be_changed_alone(resolutions, tmp_path):
    file, log = PARAMETERS / "bspline_3r.txt", tmp_path / "log"
    overrides = {"NumberOfResolutions": resolutions, "MaximumNumberOfIterations": 3, "FinalGridSpacingInPhysicalUnits": 12}
    transform = register_with_file(texture(PLAIN), texture(PLAIN), file, log=log, overrides=overrides)
    assert (
        sum(line.startswith("Time spent in resolution") for line in log.read_text(encoding="utf-8").splitlines()) == resolutions
    )
    # The fixed parameters of a B-spline hold size, origin, spacing and direction of its grid of control points.
    np.testing.assert_allclose(transform.GetNthTransform(0).GetFixedParameters()[6:9], 12)


@pytest.mark.parametrize("kind", ["TranslationTransform", "EulerTransform"])
def test_own_parameter_file_may_name_another_transform(kind, tmp_path):
    text = (PARAMETERS / "affine.txt").read_text(encoding="utf-8").replace('"AffineTransform"', f'"{kind}"')
    (tmp_path / "own.txt").write_text(text, encoding="utf-8")
    moving = moved(texture(PLAIN), sitk.TranslationTransform(3, (4.0, -3.0, 2.0)))
    transform = register_with_file(
        texture(PLAIN), moving, tmp_path / "own.txt", log=tmp_path / "log", overrides=QUICK, threads=2
    )
    displacement = transform_points(transform, inner_points(PLAIN)) - inner_points(PLAIN)
    np.testing.assert_allclose(displacement.mean(axis=0), (4.0, -3.0, 2.0), atol=0.2)


def test_elastix_writes_its_log_and_nothing_else(tmp_path, capfd):
    register_with_file(
        texture(PLAIN),
        texture(PLAIN),
        PARAMETERS / "bspline_1r.txt",
        log=tmp_path / "logs" / "pair.log",
        initial=turn(PLAIN),
        overrides={"MaximumNumberOfIterations": 3},
        seed=12345,
    )
    assert [path.name for path in tmp_path.rglob("*")] == ["logs", "pair.log"]
    assert "(RandomSeed 12345)" in (tmp_path / "logs" / "pair.log").read_text(encoding="utf-8")
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_images_that_do_not_overlap_are_a_registration_error(tmp_path):
    fixed, moving = texture(PLAIN), texture(PLAIN)
    moving.SetOrigin((1000.0, 0.0, 0.0))
    with pytest.raises(RegistrationError, match="Too many samples map outside moving image buffer: 0 / ") as caught:
        register_with_file(fixed, moving, PARAMETERS / "bspline_1r.txt", log=tmp_path / "log")
    message = str(caught.value)
    assert "\n" not in message
    assert "0x" not in message
    assert str(tmp_path / "log") in message
    assert "Too many samples" in (tmp_path / "log").read_text(encoding="utf-8")


def test_empty_mask_is_a_registration_error(tmp_path):
    mask = PLAIN.image(np.zeros(PLAIN.shape, np.uint8))
    with pytest.raises(RegistrationError, match="No valid voxels"):
        register_with_file(texture(PLAIN), texture(PLAIN), PARAMETERS / "affine.txt", log=tmp_path / "log", fixed_mask=mask)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"Metric": "NoSuchMetric"}, "NoSuchMetric"),
        ({"MaximumNumberOfIterations": "many"}, '"MaximumNumberOfIterations" failed'),
    ],
)
def test_override_that_elastix_refuses_is_a_registration_error(overrides, message, tmp_path):
    with pytest.raises(RegistrationError, match=message):
        register_with_file(texture(PLAIN), texture(PLAIN), PARAMETERS / "affine.txt", log=tmp_path / "log", overrides=overrides)


def test_overrides_have_to_be_named_in_the_file(tmp_path):
    with pytest.raises(ConfigError, match="MaximumNumberOfIteration,"):
        register_with_file(
            texture(PLAIN),
            texture(PLAIN),
            PARAMETERS / "affine.txt",
            log=tmp_path / "log",
            overrides={"MaximumNumberOfIteration": 3},
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ('(Transform "AffineTransform"\n', "cannot be read"),
        ('(Metric "AdvancedNormalizedCorrelation")\n', "found no Transform"),
        ('(Transform "SplineKernelTransform")\n', "found SplineKernelTransform, expected one of"),
    ],
)
def test_unusable_parameter_file_is_a_config_error(text, message, tmp_path):
    path = tmp_path / "parameters.txt"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        register_with_file(texture(PLAIN), texture(PLAIN), path, log=tmp_path / "log")
