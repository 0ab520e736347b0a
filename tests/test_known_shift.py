"""A known shift of 5 mm through every link that a displacement passes, on an anisotropic, oblique grid away from the origin.

The image is an analytic texture, sampled wherever it is needed, so the right answer does not come from the code under test.
Each check also shows that a wrong sign, a wrong axis order or a wrong order of composition fails.
"""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.transforms import compose, field_transform, read_transform, transform_points, warp, write_transform
from regnet.volumes import Grid, read_image, write_image

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
    for what, displacement in wrong.items():
        error = target_registration_error(field_transform(constant_field(displacement), GRID), landmarks, moving)
        assert error.min() > 0.5, what


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
