import numpy as np
import pytest
import SimpleITK as sitk

from regnet.datasets.phantom import LANDMARK_DISTANCE_MM, Subject, make_subject, write_subject
from regnet.images.landmarks import read_landmark_pair
from regnet.images.transforms import field_transform, jacobian_determinant, transform_points, warp
from regnet.images.volumes import Grid, read_ct

SMALL = {"spacing": (1.2, 1.2, 2.5), "scale": 0.5, "landmarks": 40}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return make_subject(3, **SMALL)


@pytest.fixture(scope="module")
def truth(subject: Subject) -> sitk.Transform:
    return field_transform(subject.dvf, subject.dvf_grid)


def values(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).astype(float)


def lung_points(subject: Subject) -> np.ndarray:
    inside = np.argwhere(sitk.GetArrayViewFromImage(subject.lungs) > 0)[::97, ::-1]
    return Grid.of(subject.lungs).points(inside)


@pytest.mark.slow
def test_the_seed_determines_the_subject(subject):
    again, other = make_subject(3, **SMALL), make_subject(4, **SMALL)
    for name in ("baseline", "followup", "lungs"):
        first, second, third = (getattr(each, name) for each in (subject, again, other))
        assert Grid.of(first) == Grid.of(second)
        np.testing.assert_array_equal(values(first), values(second))
        assert Grid.of(first) != Grid.of(third)
    for name in ("baseline_landmarks", "followup_landmarks", "dvf"):
        first, second, third = (getattr(each, name) for each in (subject, again, other))
        np.testing.assert_array_equal(first, second)
        assert first.shape != third.shape or np.abs(first - third).mean() > 1


def test_images_are_anisotropic_int16_with_different_fields_of_view(subject):
    for image in (subject.baseline, subject.followup):
        assert image.GetPixelID() == sitk.sitkInt16
        assert image.GetSpacing() == SMALL["spacing"]
    assert subject.lungs.GetPixelID() == sitk.sitkUInt8
    assert Grid.of(subject.lungs) == Grid.of(subject.baseline)
    assert np.abs(np.subtract(subject.baseline.GetOrigin(), subject.followup.GetOrigin())).max() > 0.1


def test_landmarks_lie_in_the_lungs_apart_from_each_other_and_in_both_images(subject):
    points = subject.baseline_landmarks
    assert 20 <= len(points) <= SMALL["landmarks"]
    assert subject.followup_landmarks.shape == points.shape
    for image, landmarks in ((subject.baseline, points), (subject.followup, subject.followup_landmarks)):
        indices = Grid.of(image).indices(landmarks)
        assert (indices > 0).all()
        assert (indices < np.array(image.GetSize()) - 1).all()
    assert all(subject.lungs[subject.lungs.TransformPhysicalPointToIndex(point)] for point in points.tolist())
    distances = np.linalg.norm(points[:, None] - points, axis=2)[np.triu_indices(len(points), 1)]
    assert distances.min() >= LANDMARK_DISTANCE_MM


def test_dvf_moves_baseline_landmarks_to_followup_landmarks(subject, truth):
    assert subject.dvf.dtype == np.float32
    np.testing.assert_allclose(
        transform_points(truth, subject.baseline_landmarks), subject.followup_landmarks, rtol=0, atol=0.1
    )


def test_landmarks_are_vessels_in_both_images(subject):
    for image, points in (
        (subject.baseline, subject.baseline_landmarks),
        (subject.followup, subject.followup_landmarks),
    ):
        hu = [image[image.TransformPhysicalPointToIndex(point)] for point in points.tolist()]
        assert np.median(hu) > -600


def test_dvf_covers_the_baseline_image(subject):
    size = np.array(subject.baseline.GetSize())
    corners = Grid.of(subject.baseline).points(np.array([(0, 0, 0), size - 1]))
    indices = subject.dvf_grid.indices(corners)
    assert (indices >= 0).all()
    assert (indices <= np.array(subject.dvf_grid.size) - 1).all()


def test_deformation_does_not_fold(subject):
    determinant = jacobian_determinant(subject.dvf, subject.dvf_grid)
    assert determinant.min() > 0.2
    assert determinant.max() < 5


def test_displacements_are_those_of_a_small_thorax_and_not_affine(subject, truth):
    points = lung_points(subject)
    moved = transform_points(truth, points)
    length = np.linalg.norm(moved - points, axis=1)
    assert 2 < length.mean() < 12
    assert length.max() < 25
    homogeneous = np.column_stack([points, np.ones(len(points))])
    affine, *_ = np.linalg.lstsq(homogeneous, moved, rcond=None)
    rest = np.linalg.norm(moved - homogeneous @ affine, axis=1)
    assert 0.8 < rest.mean() < 4


def test_only_the_true_deformation_aligns_the_lungs(subject, truth):
    lungs = values(subject.lungs) > 0
    fixed = values(subject.baseline)[lungs]

    def correlation(transform: sitk.Transform) -> float:
        warped = values(warp(subject.followup, transform, Grid.of(subject.baseline)))[lungs]
        return float(np.corrcoef(fixed, warped)[0, 1])

    aligned = correlation(truth)
    assert aligned > 0.85
    assert correlation(sitk.Transform(3, sitk.sitkIdentity)) < aligned - 0.3
    assert correlation(field_transform(-subject.dvf, subject.dvf_grid)) < aligned - 0.3


def test_lungs_get_lighter_where_they_expand(subject, truth):
    lungs = sitk.BinaryErode(subject.lungs, (3, 3, 2))
    fixed, moving = (values(image) for image in (subject.baseline, warp(subject.followup, truth, Grid.of(subject.baseline))))
    expansion = subject.dvf_grid.image(jacobian_determinant(subject.dvf, subject.dvf_grid))
    expansion = values(sitk.Resample(expansion, subject.baseline))
    parenchyma = (values(lungs) > 0) & (fixed < -700) & (moving < -600)
    kept = (moving[parenchyma] + 1000) * expansion[parenchyma]
    lost = moving[parenchyma] + 1000
    original = fixed[parenchyma] + 1000
    assert kept.mean() == pytest.approx(original.mean(), rel=0.1)
    assert np.abs(kept - original).mean() < np.abs(lost - original).mean()


def test_tissues_have_realistic_hu(subject):
    hu = values(subject.baseline)
    lungs = values(subject.lungs) > 0
    assert -900 < np.median(hu[lungs]) < -780
    assert (hu[lungs] > -200).mean() > 0.01
    assert hu.min() >= -1024
    outside = hu[~lungs]
    for lower, upper in ((-1024, -950), (-140, -50), (0, 100), (250, 900)):
        assert ((outside > lower) & (outside < upper)).mean() > 0.02
    assert np.percentile(hu, 99.9) < 1000


def test_written_files_read_back(subject, tmp_path):
    paths = [tmp_path / name for name in ("baseline.nii.gz", "followup.nii.gz", "baseline.txt", "followup.txt", "dvf.nii.gz")]
    write_subject(subject, *paths)
    for path, image in zip(paths, (subject.baseline, subject.followup), strict=False):
        np.testing.assert_array_equal(values(read_ct(path)), values(image))
    fixed, moving = read_landmark_pair(paths[2], paths[3])
    np.testing.assert_allclose(fixed, subject.baseline_landmarks, rtol=0, atol=1e-3)
    np.testing.assert_allclose(moving, subject.followup_landmarks, rtol=0, atol=1e-3)
    dvf = sitk.ReadImage(str(paths[4]))
    assert dvf.GetPixelID() == sitk.sitkVectorFloat32
    np.testing.assert_array_equal(sitk.GetArrayFromImage(dvf), subject.dvf)
    np.testing.assert_allclose(dvf.GetOrigin(), subject.dvf_grid.origin, atol=1e-3)
