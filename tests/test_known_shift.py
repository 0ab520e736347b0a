"""A known shift of 5 mm through every link that a displacement passes, on an anisotropic, oblique grid away from the origin.

Then one of 5 voxels through every registration method, on images in every orientation: each returns a transform that moves the
points of the fixed image by it, within 0.2 voxel, and none does with an axis swapped, a sign flipped or voxels taken for mm.

The image is an analytic texture, sampled wherever it is needed, so the right answer does not come from the code under test.
Each check also shows that a wrong sign, a wrong axis order or a wrong order of composition fails.
"""

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from with_network import register_with

from regnet.images.transforms import compose, field_transform, read_transform, transform_points, warp, write_transform
from regnet.images.volumes import Grid, read_image, resample_ct, write_image
from regnet.learning.weight_files import load_network
from regnet.registration.methods import PACKAGES
from regnet.registration.run import register_pair

SHIFT = 5.0
TOLERANCE = 0.01
AXES = [0, 1, 2]


def rotation(*degrees: float) -> np.ndarray:
    """Direction cosines ``(3, 3)`` of turns around x, y and z."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*np.radians(degrees).tolist())
    return np.reshape(transform.GetMatrix(), (3, 3))


GRID = Grid((46, 40, 30), (1.2, 1.7, 2.4), (-130.0, 45.5, -1210.25), tuple(rotation(12.0, -20.0, 31.0).ravel().tolist()))


def centre() -> np.ndarray:
    return GRID.points((np.array(GRID.size) - 1) / 2)


def nodes(grid: Grid) -> np.ndarray:
    """Physical points of all nodes, shape ``(z, y, x, 3)``."""
    index = np.stack(np.meshgrid(*[np.arange(size) for size in grid.shape], indexing="ij")[::-1], axis=-1)
    return grid.points(index)


def texture(points: np.ndarray) -> np.ndarray:
    """HU of an analytic texture, different along each physical axis, at points ``(..., 3)`` in mm."""
    x, y, z = np.moveaxis(points - centre(), -1, 0)
    waves = np.sin(x / 6.0 + 0.4) + np.sin(y / 7.5 + z / 20) + np.sin(z / 9.0 - x / 15 + 1.0)
    return -600 + 120 * waves + 2 * x - 1.5 * y + z


def shift(axis: int) -> np.ndarray:
    """The displacement under test: 5 mm along one physical axis."""
    return SHIFT * np.eye(3)[axis]


def constant_field(displacement: np.ndarray) -> np.ndarray:
    return np.broadcast_to(displacement, (*GRID.shape, 3)).copy()


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    """Fixed landmarks well inside the grid, between its nodes."""
    index = np.random.default_rng(0).uniform(0.25, 0.75, (20, 3)) * (np.array(GRID.size) - 1)
    return GRID.points(index)


@pytest.fixture(scope="module")
def affine() -> sitk.AffineTransform:
    """A turn, a shear and a translation, which do not commute with a shift."""
    transform = sitk.AffineTransform(3)
    transform.SetCenter(centre().tolist())
    transform.SetMatrix((rotation(14, -10, 25) @ [[1.1, 0.1, 0], [0, 0.95, 0], [0, 0.05, 1]]).ravel().tolist())
    transform.SetTranslation((3.0, -7.0, 11.0))
    return transform


def target_registration_error(transform: sitk.Transform, fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """||T(x_F) - x_M||, the definition."""
    return np.linalg.norm(transform_points(transform, fixed) - moving, axis=1)


@pytest.mark.parametrize("axis", AXES)
def test_field_moves_points_along_the_physical_axis(axis, landmarks):
    moving = landmarks + shift(axis)
    assert target_registration_error(field_transform(constant_field(shift(axis)), GRID), landmarks, moving).max() < TOLERANCE

    wrong = {
        "no displacement": np.zeros(3),
        "sign": -shift(axis),
        "another axis": np.roll(shift(axis), 1),
        "along the axes of the grid": rotation(12.0, -20.0, 31.0) @ shift(axis),
        "in voxels": shift(axis) / GRID.spacing,
    }
    for mistake, displacement in wrong.items():
        error = target_registration_error(field_transform(constant_field(displacement), GRID), landmarks, moving)
        assert error.min() > 0.5, mistake


@pytest.mark.parametrize("axis", AXES)
def test_field_that_varies_keeps_its_axis_order(axis, landmarks):
    # Varies along one axis of the grid, so that an array read in another order gives other points.
    ramp = GRID.indices(nodes(GRID))[..., axis] / GRID.size[axis]
    field = ramp[..., None] * shift(2)
    expected = landmarks + (GRID.indices(landmarks)[:, axis] / GRID.size[axis])[:, None] * shift(2)
    assert target_registration_error(field_transform(field, GRID), landmarks, expected).max() < TOLERANCE
    backwards = np.flip(field, 2 - axis).copy()
    assert target_registration_error(field_transform(backwards, GRID), landmarks, expected).max() > 0.5


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_field_file_keeps_vectors_and_grid(axis, suffix, landmarks, tmp_path):
    path = tmp_path / f"field{suffix}"
    write_image(GRID.image(constant_field(shift(axis)).astype(np.float32)), path)
    image = sitk.ReadImage(str(path))
    grid = Grid.of(image)
    np.testing.assert_allclose(grid.points(np.eye(3) * 30), GRID.points(np.eye(3) * 30), atol=TOLERANCE)
    transform = field_transform(sitk.GetArrayFromImage(image), grid)
    assert target_registration_error(transform, landmarks, landmarks + shift(axis)).max() < TOLERANCE
    assert target_registration_error(transform, landmarks, landmarks - shift(axis)).min() > 9


@pytest.mark.parametrize("axis", AXES)
def test_transform_file_moves_points_identically(axis, landmarks, affine, tmp_path):
    transform = compose(affine, field_transform(constant_field(shift(axis)), GRID))
    write_transform(transform, tmp_path / "transform.h5")
    moved = transform_points(read_transform(tmp_path / "transform.h5"), landmarks)
    np.testing.assert_allclose(moved, transform_points(transform, landmarks), atol=1e-9)


@pytest.mark.parametrize("axis", AXES)
def test_composition_applies_the_field_first(axis, landmarks, affine):
    field = field_transform(constant_field(shift(axis)), GRID)
    matrix, middle = np.reshape(affine.GetMatrix(), (3, 3)), np.array(affine.GetCenter())
    moving = (landmarks + shift(axis) - middle) @ matrix.T + middle + affine.GetTranslation()
    assert target_registration_error(compose(affine, field), landmarks, moving).max() < TOLERANCE
    # The other order shifts after the turn; for a constant field, adding the two displacements comes to the same.
    reverse = compose(sitk.TranslationTransform(3, shift(axis).tolist()), affine)
    assert target_registration_error(reverse, landmarks, moving).min() > 1


@pytest.mark.parametrize("axis", AXES)
def test_warp_looks_up_the_moving_image_at_the_moved_points(axis):
    # The moving image shows at x + u what the fixed image shows at x. Its grid is fine: linear interpolation does not matter.
    points = nodes(GRID)
    fixed = texture(points)
    size, spacing = np.multiply(3, GRID.size).tolist(), np.divide(GRID.spacing, 3).tolist()
    fine = Grid(tuple(size), tuple(spacing), GRID.origin, GRID.direction)
    moving = fine.image(texture(nodes(fine) - shift(axis)).astype(np.float32))
    inside = (slice(6, -6),) * 3
    gradient = np.stack([texture(points + step) - texture(points - step) for step in 0.5 * np.eye(3)], axis=-1)[inside]

    def remaining_shift(displacement: np.ndarray) -> float:
        """By how many mm the warped image is still off, from its grey values and their gradient, by least squares."""
        warped = sitk.GetArrayFromImage(warp(moving, field_transform(constant_field(displacement), GRID), GRID))
        shift_left, *_ = np.linalg.lstsq(gradient.reshape(-1, 3), (warped - fixed)[inside].ravel(), rcond=None)
        return float(np.linalg.norm(shift_left))

    assert remaining_shift(shift(axis)) < TOLERANCE
    for wrong in (np.zeros(3), -shift(axis), np.roll(shift(axis), 1)):
        assert remaining_shift(wrong) > 1


@pytest.mark.parametrize("axis", AXES)
def test_image_file_keeps_its_place(axis, tmp_path):
    write_image(GRID.image(texture(nodes(GRID)).astype(np.float32)), tmp_path / "image.nii.gz")
    grid = Grid.of(read_image(tmp_path / "image.nii.gz"))
    corner = np.eye(3)[axis] * (GRID.size[axis] - 1)
    np.testing.assert_allclose(grid.points(corner), GRID.points(corner), atol=TOLERANCE)
    np.testing.assert_allclose(grid.indices(GRID.points(corner)), corner, atol=TOLERANCE)


ROOT = Path(__file__).resolve().parents[1]

ORIENTATIONS = {
    "RAS": np.diag([-1.0, -1.0, 1.0]),
    "LAS": np.diag([1.0, -1.0, 1.0]),
    "LPS": np.eye(3),
    "oblique": rotation(12.0, -20.0, 31.0),
}
"""Direction cosines of images whose axes run to the right, to the left, ...; ITK's own space is LPS."""

VOXELS = np.array([1.5, -4.0, 2.6])
"""The shift, 5 voxels long, with a different component along each axis of the grid."""

VOXEL_TOLERANCE = 0.2

SETTINGS = {
    "affine": {"module": "elastix", "parameters": "affine.txt", "resolutions": 2, "iterations": 100},
    "bspline_1r": {"module": "elastix", "parameters": "bspline_1r.txt", "iterations": 200},
    "bspline_3r": {"module": "elastix", "parameters": "bspline_3r.txt", "iterations": 80},
    "bspline_best": {"module": "elastix", "parameters": "bspline_best.txt", "iterations": 40},
    "regnet": {"module": "regnet", "passes": 3},
    "demons": {"module": "demons", "shrink": [4, 2, 1], "iterations": [60, 40, 20], "smoothing": 1.0},
    "syn": {"module": "syn", "iterations": [40, 8, 0]},
    "greedy": {"module": "greedy", "iterations": [60, 40, 20], "update_smoothing": 1.5, "smoothing": 0.5},
    "convexadam": {"module": "convexadam", "grid": 4, "search": 3, "adam_grid": 2, "iterations": 40, "smoothness": 1.25},
}
"""The methods of config.yaml and peers.yaml, with as many iterations as small images need."""


def _waves() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    waves = rng.normal(size=(40, 3))
    lengths = rng.uniform(10, 30, (40, 1))
    return 2 * np.pi / lengths * waves / np.linalg.norm(waves, axis=1, keepdims=True), rng.uniform(0, 2 * np.pi, 40)


WAVES, PHASES = _waves()


def shifted_pair(orientation: str, method: str) -> tuple[sitk.Image, sitk.Image, Grid]:
    """A fixed image of many waves in all directions, the moving image that shows them shifted by `VOXELS`, and their grid."""
    # A window of RegNet is 54 voxels of 2 mm wide.
    size = (72, 66, 62) if method == "regnet" else (48, 44, 40)
    grid = Grid(size, (1.4, 1.7, 2.2), (-130.0, 45.5, -1210.25), tuple(ORIENTATIONS[orientation].ravel().tolist()))

    def image(displacement: np.ndarray) -> sitk.Image:
        phases = (nodes(grid) - centre() - displacement) @ WAVES.T + PHASES
        return grid.image(np.round(-550 + 36 * np.sin(phases).sum(axis=-1)).astype(np.int16))

    return image(np.zeros(3)), image(grid.to_physical(VOXELS * grid.spacing)), grid


def found_shift(method: str, orientation: str, folder: Path) -> np.ndarray:
    """The mean displacement that a method finds in the middle of the image, in voxels along the grid's axes."""
    settings = dict(SETTINGS[method])
    package, _ = PACKAGES.get(settings["module"], (None, None))
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make peers")
    if settings["module"] == "elastix":
        settings["parameters"] = str(ROOT / "config" / "elastix" / settings["parameters"])
    fixed, moving, grid = shifted_pair(orientation, method)
    # The affine registration starts from nothing, the others from a plausible result of it.
    initial = None if method == "affine" else sitk.TranslationTransform(3, grid.to_physical([0.4, -0.8, 0.7]).tolist())
    if method == "regnet":
        transform = register_with_regnet(fixed, moving, initial, settings["passes"])
    else:
        transform = register_pair(fixed, moving, settings, tool_log=folder / "tool.log", initial=initial, seed=1)
    start = np.array(grid.size) * (0.3 if method == "regnet" else 0.25)
    index = np.random.default_rng(0).uniform(start, np.array(grid.size) - 1 - start, (400, 3))
    return np.mean(grid.indices(transform_points(transform, grid.points(index))) - index, axis=0)


def register_with_regnet(fixed: sitk.Image, moving: sitk.Image, initial: sitk.Transform, passes: int) -> sitk.Transform:
    """With the released weights, on isotropic grids as the workflow makes them, in the middle of the image."""
    network, facts = load_network(ROOT / "resources" / "weights" / "regnet_2mm.safetensors")
    pair = [resample_ct(image, Grid.of(image).isotropic(facts["spacing"])) for image in (fixed, moving)]
    grid = Grid.of(pair[0])
    mask = np.zeros(grid.shape, np.uint8)
    mask[tuple(slice(side // 5, side - side // 5) for side in grid.shape)] = 1
    options = {"window": facts["window"], "passes": passes, "precision": "float32"}
    return register_with(network, *pair, initial, mask=grid.image(mask), **options)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("method", SETTINGS)
def test_every_method_recovers_five_voxels(method, orientation, tmp_path):
    np.testing.assert_allclose(found_shift(method, orientation, tmp_path), VOXELS, atol=VOXEL_TOLERANCE)


def swapped(displacements: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    return displacements[..., [1, 0, 2]]


def flipped(displacements: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    return displacements * [1.0, -1.0, 1.0]


def in_voxels(displacements: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    return displacements / spacing


def break_adapter(monkeypatch: pytest.MonkeyPatch, module: str, mistake) -> None:
    """Put a mistake into the function of a method's module that turns the output of its program into a transform."""
    adapter = importlib.import_module(f"regnet.registration.{module}")
    spacing = np.array((2.0,) * 3 if module == "regnet" else (1.4, 1.7, 2.2))
    if module == "elastix":
        right = adapter._sitk_transform

        def wrong(transform, settings):
            converted = right(transform, settings)
            if isinstance(converted, sitk.AffineTransform):
                converted.SetTranslation(mistake(np.array(converted.GetTranslation()), spacing).tolist())
            else:
                # All displacements along x, then all along y, then all along z.
                parameters = np.reshape(converted.GetParameters(), (3, -1)).T
                converted.SetParameters(mistake(parameters, spacing).T.ravel().tolist())
            return converted

        monkeypatch.setattr(adapter, "_sitk_transform", wrong)
    elif module == "regnet":
        right = adapter.predict_field

        def wrong(*arguments):
            field, lattice = right(*arguments)
            return mistake(field, spacing), lattice

        monkeypatch.setattr(adapter, "predict_field", wrong)
    else:
        right = adapter._to_field
        monkeypatch.setattr(adapter, "_to_field", lambda *arguments: mistake(right(*arguments), spacing))


@pytest.fixture(scope="module")
def program_outputs():
    """The output of the peers' programs for the pair, by module: it is computed once, as mistakes are made after it."""
    return {}


PROGRAMS = {"demons": "_demons", "syn": "_syn", "greedy": "_greedy", "convexadam": "_convexadam"}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", [swapped, flipped, in_voxels], ids=lambda mistake: mistake.__name__)
@pytest.mark.parametrize(
    "method", [method for method in SETTINGS if not method.startswith("bspline") or method == "bspline_3r"]
)
def test_every_method_fails_with_a_mistake_in_its_adapter(method, mistake, program_outputs, monkeypatch, tmp_path):
    module = SETTINGS[method]["module"]
    if module in PROGRAMS:
        adapter = importlib.import_module(f"regnet.registration.{module}")
        program = getattr(adapter, PROGRAMS[module])

        def once(*arguments):
            if module not in program_outputs:
                program_outputs[module] = program(*arguments)
            return program_outputs[module]

        monkeypatch.setattr(adapter, PROGRAMS[module], once)
        # Without the mistake it passes, so that nothing else makes it fail.
        np.testing.assert_allclose(found_shift(method, "LPS", tmp_path), VOXELS, atol=VOXEL_TOLERANCE)
    elif module == "regnet":
        monkeypatch.setitem(SETTINGS["regnet"], "passes", 1)
    break_adapter(monkeypatch, module, mistake)
    assert np.abs(found_shift(method, "LPS", tmp_path) - VOXELS).max() > 2 * VOXEL_TOLERANCE
