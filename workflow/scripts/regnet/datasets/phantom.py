"""The embedded cohort: procedural chest CT scans, a pair per subject, with a known deformation between them.

The anatomy is drawn once, on a fine isotropic grid in the space of the baseline scan, in *nominal* mm: lengths of a
standard patient, centred between the lungs, x to the left, y to the back, z to the head. A subject scales nominal
lengths by its size. The follow-up scan shows at point ``y`` the anatomy at ``S(y)``, where ``S`` is a breathing-like field;
its inverse ``T`` is the true transform of the pair. `Subject` holds a pair and its truth.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.spatial.transform import Rotation

from regnet.conventions import AIR_HU
from regnet.images.landmarks import write_landmarks
from regnet.images.transforms import field_transform, jacobian_determinant
from regnet.images.volumes import IDENTITY, Grid, resample, write_image

FINE_MM = 1.0
"""Voxel size of the rendered anatomy, in mm, at every scale of the subject."""

NODE_MM = 3.0
"""Spacing of the nodes of the deformation ``S`` and of the DVF at scale 1, in mm; proportional to the root of the scale."""

LANDMARK_DISTANCE_MM = 8.0
"""Minimum distance between landmarks of a subject, in mm."""

_BOX = np.array([[-158.0, -122.0, -142.0], [158.0, 128.0, 136.0]])
"""Corners of the box in which a thorax is drawn, in nominal mm."""

_ORGAN_MM = 2.0
"""Voxel size, in nominal mm, of everything but lungs, vessels and airways, which alone have finer details."""

_LEAVES = 1800
"""Terminal branches of each of the four vessel trees at scale 1."""

_AIR, _FAT, _BLOOD, _MUSCLE, _LUMEN = -1000.0, -95.0, 40.0, 55.0, -985.0


@dataclass(frozen=True)
class Subject:
    """Two scans of a thorax and the true deformation between them.

    Attributes
    ----------
    baseline, followup
        The fixed and the moving image, int16 HU, each on its own grid.
    baseline_landmarks, followup_landmarks
        Corresponding points at vessel branchings, shape ``(n, 3)``, x, y, z in mm (LPS); row i corresponds to row i.
    dvf
        True displacement ``T(x) - x`` from baseline to follow-up, shape ``(z, y, x, 3)``, components x, y, z in mm, float32.
        Linear interpolation between the nodes has errors of some hundredths of a mm, at most 0.15 mm; `followup_landmarks` are
        exact to 1e-4 mm.
    dvf_grid
        The grid of the DVF; it covers the baseline image.
    lungs
        The true mask of the lungs, including vessels, uint8, on the grid of the baseline.
    """

    baseline: sitk.Image
    followup: sitk.Image
    baseline_landmarks: np.ndarray
    followup_landmarks: np.ndarray
    dvf: np.ndarray
    dvf_grid: Grid
    lungs: sitk.Image


def make_subject(
    seed: int, *, spacing: tuple[float, float, float] = (0.78, 0.78, 2.5), scale: float = 1.0, landmarks: int = 100
) -> Subject:
    """Make a subject; the same arguments make the same arrays.

    Parameters
    ----------
    seed
        Determines size, shape, vessels, texture, breathing and noise.
    spacing
        Voxel size of both images along x, y, z, in mm; the third is also the slice thickness.
    scale
        Size of the thorax relative to an adult's. Breathing scales with it; texture and the finest vessels do not.
    landmarks
        Number of landmarks; there are fewer if the vessel trees have too few branchings far enough apart.
    """
    rng = np.random.default_rng(seed)
    frame = _Frame(
        centre=np.round(rng.uniform((-12, -180, -260), (12, -130, -120)), 2),
        size=scale * rng.uniform(0.93, 1.04) * rng.uniform(0.97, 1.03, 3),
    )
    thorax = _draw_thorax(frame, rng)
    trees = [tree for side in (-1, 1) for tree in _grow_vessels(thorax, side, scale, rng)]
    airways = _grow_airways(thorax, rng)
    anatomy = _draw_anatomy(thorax, trees, airways, rng)

    corners = _lung_box(thorax)
    fixed = _field_of_view(corners, scale * rng.uniform(15, 22, (2, 3)), spacing)
    motion = _draw_motion(frame, scale, rng)
    nodes = _covering(fixed, motion.grid.spacing[0], motion.grid.spacing[0])
    dvf = (motion.forward(_grid_points(nodes)) - _grid_points(nodes)).astype(np.float32)

    lung_surface = thorax.grid.points(np.argwhere(np.abs(thorax.lungs) < _ORGAN_MM)[::7, ::-1])
    moved = motion.forward(lung_surface)
    corners = np.array([moved.min(0), moved.max(0)])
    moving = _field_of_view(corners, scale * rng.uniform(12, 20, (2, 3)), spacing)

    points = _pick_landmarks(thorax, trees, landmarks, rng)
    return Subject(
        baseline=_scan(anatomy, fixed, None, rng),
        followup=_scan(anatomy, moving, motion, rng),
        baseline_landmarks=points,
        followup_landmarks=motion.forward(points),
        dvf=dvf,
        dvf_grid=nodes,
        lungs=_lung_mask(thorax, fixed),
    )


def write_subject(
    subject: Subject,
    baseline: str | Path,
    followup: str | Path,
    baseline_landmarks: str | Path,
    followup_landmarks: str | Path,
    dvf: str | Path,
) -> None:
    """Write the images, the landmarks as elastix point files, and the DVF as an image of float32 vectors in mm."""
    write_image(subject.baseline, baseline)
    write_image(subject.followup, followup)
    write_landmarks(subject.baseline_landmarks, baseline_landmarks)
    write_landmarks(subject.followup_landmarks, followup_landmarks)
    write_image(subject.dvf_grid.image(subject.dvf), dvf)


# Frames, grids and small helpers


@dataclass(frozen=True)
class _Frame:
    """Maps nominal to physical space: ``physical = centre + size * nominal``, each of shape ``(3,)``, x, y, z."""

    centre: np.ndarray
    size: np.ndarray

    def to_physical(self, nominal: ArrayLike) -> np.ndarray:
        return self.centre + self.size * np.asarray(nominal, float)

    def to_nominal(self, physical: np.ndarray) -> np.ndarray:
        return (physical - self.centre) / self.size


@dataclass(frozen=True)
class _Thorax:
    """The coarsely drawn organs: arrays ``(z, y, x)`` on `grid`, float32.

    `lungs` is the distance to the surface of the lungs in mm, positive inside; `fissures` the signed distance to the lobar
    fissures in mm; `tissue` the HU of all other organs.
    """

    frame: _Frame
    grid: Grid
    lungs: np.ndarray
    fissures: np.ndarray
    tissue: np.ndarray


def _box_grid(frame: _Frame, spacing: np.ndarray) -> Grid:
    """The grid of `spacing` mm (x, y, z) that covers the drawn box."""
    lower, upper = frame.to_physical(_BOX)
    size = np.ceil((upper - lower) / spacing).astype(int) + 1
    return Grid(tuple(size.tolist()), tuple(spacing.tolist()), tuple(lower.tolist()))


def _covering(grid: Grid, spacing: float, margin: float) -> Grid:
    """The isotropic grid of `spacing` mm whose nodes reach at least `margin` mm beyond the voxels of `grid` on every side."""
    extent = (np.array(grid.size) - 1) * grid.spacing + 2 * margin
    size = np.ceil(extent / spacing).astype(int) + 1
    return Grid(tuple(size.tolist()), (spacing,) * 3, tuple((np.array(grid.origin) - margin).tolist()))


def _field_of_view(corners: np.ndarray, margins: np.ndarray, spacing: tuple[float, float, float]) -> Grid:
    """The image grid of `spacing` around a box of `corners` ``(2, 3)`` with `margins` ``(2, 3)`` in mm."""
    lower, upper = np.round(corners[0] - margins[0], 2), corners[1] + margins[1]
    size = np.ceil((upper - lower) / spacing).astype(int)
    return Grid(tuple(size.tolist()), tuple(np.array(spacing, float).tolist()), tuple(lower.tolist()))


def _grid_points(grid: Grid) -> np.ndarray:
    """Physical points of all nodes, shape ``(z, y, x, 3)``, x, y, z in mm."""
    return grid.points(np.moveaxis(np.indices(grid.shape), 0, -1)[..., ::-1])


def _sample(array: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """Interpolate an array on `grid` linearly at physical points ``(..., 3)``; outside, the border value continues."""
    indices = np.moveaxis(grid.indices(points), -1, 0)[::-1]
    return ndimage.map_coordinates(array, indices, order=1, mode="nearest")


def _resample(image: sitk.Image, grid: Grid, transform: sitk.Transform = IDENTITY) -> np.ndarray:
    """Interpolate a transformed image linearly on another grid; outside the image, its border value continues."""
    return sitk.GetArrayFromImage(resample(image, transform, grid, sitk.sitkLinear))


def _noise(rng: np.random.Generator, grid: Grid, sigma: float, nodes: float = 3.0) -> np.ndarray:
    """White noise smoothed with a Gaussian of `sigma` mm on `grid`, mean about 0, standard deviation 1, float32.

    If `sigma` is many voxels, the noise is made on a coarser grid, with `nodes` voxels per `sigma`, and interpolated linearly.
    Three are enough for the eye.
    """
    spacing = np.maximum(grid.spacing, sigma / nodes)
    size = np.ceil((np.array(grid.size) - 1) * grid.spacing / spacing).astype(int) + 1
    coarse = Grid(tuple(size.tolist()), tuple(spacing.tolist()), grid.origin)
    noise = rng.standard_normal(coarse.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (sigma / spacing)[::-1], truncate=2.5, mode="reflect")
    noise /= noise.std()
    return noise if coarse == grid else _resample(coarse.image(noise), grid)


def _distance(level: np.ndarray, spacing: float) -> np.ndarray:
    """Turn a level function into a distance to its zero surface: exact to first order, and exact everywhere for cones."""
    slope = np.sqrt(sum(component**2 for component in np.gradient(level, spacing)))
    return level / np.maximum(slope, 1e-3 * slope.max())


def _smooth_min(first: np.ndarray, second: np.ndarray | np.float32, width: float) -> np.ndarray:
    """The minimum of two distances, rounded over `width` mm: the intersection of two bodies."""
    weight = np.clip(0.5 + 0.5 * (second - first) / width, 0, 1)
    return second + weight * (first - second) - width * weight * (1 - weight)


def _smooth_max(first: np.ndarray, second: np.ndarray | np.float32, width: float) -> np.ndarray:
    """The maximum of two distances, rounded over `width` mm: the union of two bodies."""
    return -_smooth_min(-first, -second, width)


def _ellipsoid(axes: tuple[np.ndarray, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Approximate distance to an ellipsoid, or to an elliptic cylinder if there are two axes; positive inside."""
    terms = zip(axes, centre, radii, strict=True)
    return (1 - np.sqrt(sum(((axis - middle) / radius) ** 2 for axis, middle, radius in terms))) * min(radii)


def _cover(distance: np.ndarray, voxel: float) -> np.ndarray:
    """The fraction of a voxel of `voxel` mm that lies inside a surface, by the distance to the surface, positive inside."""
    return np.clip(distance / voxel + 0.5, 0, 1)


def _paint(hu: np.ndarray, cover: np.ndarray, value: np.ndarray | float) -> None:
    """Replace HU in place by `value` where `cover` is 1; mix both where it is between 0 and 1."""
    hu += cover * (value - hu)


# Organs, drawn coarsely in nominal mm


def _draw_thorax(frame: _Frame, rng: np.random.Generator) -> _Thorax:
    grid = _box_grid(frame, _ORGAN_MM * frame.size)
    nominal = Grid(grid.size, (_ORGAN_MM,) * 3, tuple(_BOX[0].tolist()))
    # Organs are not ellipsoids: all shapes are evaluated at slightly displaced points.
    x, y, z = (axis.astype(np.float32) + 3.0 * _noise(rng, nominal, 22.0) for axis in np.moveaxis(_grid_points(nominal), -1, 0))
    cavity = _cavity(x, y, z, rng)
    heart = _heart(x, y, z, rng)
    diaphragm = _above_diaphragm(x, y, z, rng)
    mediastinum = _mediastinum(x, y, z, heart)
    lungs = _smooth_min(_smooth_min(cavity, -mediastinum, 6), diaphragm, 5)
    lungs = _distance(lungs, _ORGAN_MM)

    tissue = np.full(grid.shape, _AIR, np.float32)
    _paint_wall(tissue, cavity, x, y, z, nominal, rng)
    _paint_mediastinum(tissue, cavity, heart, nominal, rng)
    _paint_abdomen(tissue, cavity, diaphragm, x, y, z)
    _paint_ribs(tissue, cavity, x, y, z, rng)
    _paint_spine(tissue, x, y, z)
    body = tissue > -500
    tissue += body * 8.0 * _noise(rng, nominal, 2.0)
    return _Thorax(frame, grid, (lungs * frame.size.mean()).astype(np.float32), _fissures(x, y, z, rng), tissue)


def _cavity(x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance to the inner side of the chest wall: a dome on an oval cylinder, positive inside."""
    power = rng.uniform(2.2, 2.6)
    width, depth, height = rng.uniform(118, 128), rng.uniform(86, 94), rng.uniform(165, 180)
    rise = np.maximum(z + 112 - (220 - height), 0) / height
    back = 14 * rise**2
    flat = (np.abs(x) / width) ** power + (np.abs(y - back) / depth) ** power
    level = 1 - (flat + rise ** (1.45 * power)) ** (1 / power)
    return _distance(level * depth, _ORGAN_MM)


def _heart(x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Approximate distance to the surface of the heart, with the apex to the left, front and bottom; positive inside."""
    angle = np.deg2rad(rng.uniform(30, 42))
    along = np.cos(angle) * (x - 18) - np.sin(angle) * (y + 24)
    across = np.sin(angle) * (x - 18) + np.cos(angle) * (y + 24)
    down = z + 46 + 0.25 * along
    radii = tuple(rng.uniform((56, 42, 44), (64, 48, 52)).tolist())
    return _ellipsoid((along, across, down), (0, 0, 0), radii)


def _above_diaphragm(x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance to the diaphragm, positive above: two domes, the right one higher, with deep recesses at the back."""
    surface = np.full_like(x, -np.inf)
    for centre, peak in ((-60, rng.uniform(-54, -46)), (64, rng.uniform(-68, -58))):
        dome = peak - 42 * ((x - centre) / 58) ** 2 - 42 * ((y + 14) / np.where(y > -14, 66, 74)) ** 2
        surface = np.maximum(surface, dome)
    surface = _smooth_max(surface, np.float32(rng.uniform(-114, -108)), 20)
    return _distance(z - surface, _ORGAN_MM)


def _mediastinum(x: np.ndarray, y: np.ndarray, z: np.ndarray, heart: np.ndarray) -> np.ndarray:
    """Approximate distance to the organs between the lungs: heart, great vessels, fat and spine; positive inside."""
    top = 1 / (1 + np.exp(-(z - 84) / 9))
    column = 13 + 15 * np.exp(-(((y - 10) / 42) ** 2)) + 24 * top - np.abs(x)
    spine = _ellipsoid((x, y), (0, 78), (25, 27))
    aorta = _ellipsoid((x, y, z), (20, 48, -60), (15, 15, 110))
    vessels = _ellipsoid((x, y, z), (10, -2, 26), (34, 34, 32))
    right, left = (_ellipsoid((x, y, z), (side * 30, 14, 2), (20, 18, 24)) for side in (-1, 1))
    hila = _smooth_max(right, left, 4)
    union = _smooth_max(column, heart, 8)
    for part in (spine, aorta, vessels, hila):
        union = _smooth_max(union, part, 8)
    return union


def _fissures(x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Approximate distance in mm to the oblique fissures of both lungs and to the horizontal fissure of the right lung."""
    height, slope = rng.uniform(-8, 8, 2), rng.uniform(0.75, 0.95, 2)
    right, left = ((z - h - k * y) / np.sqrt(1 + k**2) for h, k in zip(height, slope, strict=True))
    horizontal = np.where(right > 0, np.abs(z + 4 - height[0] + 0.1 * y), np.inf)
    return np.where(x < 0, np.minimum(np.abs(right), horizontal), np.abs(left)).astype(np.float32)


def _paint_wall(
    hu: np.ndarray, cavity: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, grid: Grid, rng: np.random.Generator
) -> None:
    """Paint skin, fat and the muscles of the chest wall."""
    width, depth, power = rng.uniform(148, 162), rng.uniform(106, 117), 2.6
    level = 1 - ((np.abs(x) / width) ** power + (np.abs(y - 6) / depth) ** power) ** (1 / power)
    skin = _distance(level * depth, _ORGAN_MM)
    _paint(hu, _cover(skin, _ORGAN_MM), 20.0)
    _paint(hu, _cover(skin - 3, _ORGAN_MM), _FAT)
    uneven = _noise(rng, grid, 9.0)
    outside = -cavity
    # Two layers with fat between them, thicker towards the shoulders: intercostal muscles, and muscles of arm and back.
    shoulder = 10 / (1 + np.exp(-(z - 50) / 15))
    muscles = np.maximum(
        _cover(13 + uneven - outside, _ORGAN_MM),
        _cover(8 + shoulder + 3 * uneven - np.abs(outside - 20 - shoulder), _ORGAN_MM),
    )
    inner = _cover(skin - 7 - 1.5 * uneven, _ORGAN_MM)
    _paint(hu, muscles * inner, _MUSCLE)
    for side in (-1, 1):
        _paint(hu, _cover(_ellipsoid((x, y), (side * 27, 104), (23, 15)), _ORGAN_MM) * inner, _MUSCLE)


def _paint_mediastinum(hu: np.ndarray, cavity: np.ndarray, heart: np.ndarray, grid: Grid, rng: np.random.Generator) -> None:
    """Paint the inside of the cavity: fat, heart, aorta, pulmonary trunk, vena cava, oesophagus."""
    _paint(hu, _cover(cavity - 1, _ORGAN_MM), _FAT + 20)
    _paint(hu, _cover(heart - 4, _ORGAN_MM), _BLOOD + 5 + 6 * _noise(rng, grid, 8.0))
    aorta = ((2, -22, -30), (-6, -20, 20), (0, -8, 44), (12, 12, 48), (20, 34, 40), (23, 46, 20), (20, 50, -60), (10, 54, -150))
    tubes = (
        (aorta, 13),
        (((14, -28, -20), (18, -14, 10), (10, 2, 16), (-34, 8, 6)), 11),
        (((16, -8, 14), (34, 10, 8)), 11),
        (((-24, -8, -30), (-25, -10, 50), (-22, -12, 140)), 9),
        (((14, -6, 44), (18, 0, 140)), 6),
        (((-8, -6, 44), (-12, 0, 140)), 6),
        (((4, 40, 140), (6, 38, 0), (12, 36, -150)), 7),
    )
    for path, radius in tubes:
        _paint(hu, _rasterize(grid, [np.array(path, float)], [radius]), _BLOOD)


def _paint_abdomen(
    hu: np.ndarray, cavity: np.ndarray, diaphragm: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray
) -> None:
    """Paint the diaphragm and the organs below it: liver on the right, spleen and stomach on the left, fat."""
    below = _cover(_smooth_min(cavity, -diaphragm, 5), _ORGAN_MM)
    _paint(hu, below, 45.0)
    _paint(hu, _cover(_smooth_min(cavity, -diaphragm, 5) - 4, _ORGAN_MM), _FAT)
    inside = _smooth_min(cavity - 4, -diaphragm - 4, 5)
    liver = _smooth_min(inside, 34 - x - 0.3 * (z + 90) - 0.3 * (y + 20), 12)
    _paint(hu, _cover(liver, _ORGAN_MM), 62.0)
    stomach = _ellipsoid((x, y, z), (58, -18, -112), (38, 42, 46))
    spleen = _ellipsoid((x, y, z), (82, 46, -112), (36, 30, 44))
    _paint(hu, _cover(_smooth_min(inside, np.maximum(stomach, spleen), 4), _ORGAN_MM), 50.0)
    _paint(hu, _cover(_ellipsoid((x, y), (20, 50), (12, 12)), _ORGAN_MM) * below, _BLOOD)


def _paint_ribs(
    hu: np.ndarray, cavity: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, rng: np.random.Generator
) -> None:
    """Paint the sternum, and ribs that slant down from back to front and turn from bone into cartilage."""
    pitch, slope = rng.uniform(23, 27), rng.uniform(0.45, 0.6)
    along = z - slope * y + rng.uniform(0, pitch)
    phase = (along + pitch / 2) % pitch - pitch / 2
    rib = (1 - np.sqrt(((cavity + 7) / 4.2) ** 2 + (phase / 7.5) ** 2)) * 4.2
    rib = np.minimum(rib, np.abs(x) - np.where(y < 0, 14, 20))
    cartilage = 1 / (1 + np.exp((y + 62) / 3)) / (1 + np.exp((np.abs(x) - 75) / 3))
    bone = 230 + 470 * np.exp(-np.maximum(rib, 0) / 1.2)
    _paint(hu, _cover(rib, _ORGAN_MM), bone + cartilage * (100 - bone))
    sternum = _smooth_min(6 - np.abs(cavity + 9), np.minimum(17 - np.abs(x), -y), 4)
    sternum = np.minimum(sternum, 72 - np.abs(z))
    _paint(hu, _cover(sternum, _ORGAN_MM), 170 + 400 * np.exp(-np.maximum(sternum, 0) / 1.2))


def _paint_spine(hu: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    """Paint the vertebrae: bodies with discs between them, the arch around the canal, spinous and transverse processes."""
    pitch = 24.0
    phase = np.abs((z + pitch / 2) % pitch - pitch / 2)
    disc = _ellipsoid((x, y), (0, 76), (17, 14))
    _paint(hu, _cover(disc, _ORGAN_MM), 90.0)
    parts = (
        _smooth_min(disc, 9.5 - phase, 3),
        _smooth_min(4 - np.abs(np.hypot(x, y - 98) - 12), 10 - phase, 2),
        _smooth_min(np.minimum(3.5 - np.abs(x), 14 - np.abs(y - 118)), 7 - phase, 3),
        _smooth_min(np.minimum(30 - np.abs(x), 5 - np.abs(y - 98 - 0.2 * np.abs(x))), 5 - phase, 3),
    )
    for part in parts:
        _paint(hu, _cover(part, _ORGAN_MM), 190 + 400 * np.exp(-np.maximum(part, 0) / 1.5))
    _paint(hu, _cover(9 - np.hypot(x, y - 98), _ORGAN_MM), 30.0)


# Vessels and airways


@dataclass(frozen=True)
class _Tree:
    """The branches of a tree in physical mm.

    Attributes
    ----------
    paths
        Polyline of each branch, shape ``(branches, points, 3)``, x, y, z.
    radii
        Radius of each branch in mm, shape ``(branches,)``.
    forks
        Points where branches divide, shape ``(n, 3)``.
    fork_radii
        Radius of the thinner child at each fork, in mm, shape ``(n,)``.
    """

    paths: np.ndarray
    radii: np.ndarray
    forks: np.ndarray
    fork_radii: np.ndarray


def _grow(
    root: np.ndarray, heading: np.ndarray, cloud: np.ndarray, leaf_radius: float, rng: np.random.Generator, reach: float = 0.4
) -> _Tree:
    """Grow a tree into a cloud of points: each branch grows towards the centre of its points, then a plane divides them.

    A branch that supplies ``n`` points has the radius ``leaf_radius * n**(1/3)``, which satisfies Murray's law at every fork.
    Dividing points by planes follows Tawhai et al., J Appl Physiol 97 (2004) 2310.

    Parameters
    ----------
    root, heading
        Start of the tree and unit vector of its first direction, shape ``(3,)``.
    cloud
        The points to supply, shape ``(n, 3)``.
    reach
        Length of a branch, relative to the distance to the centre of its points.
    """
    steps = np.linspace(0, 1, 4)[:, None]
    paths, radii, forks, fork_radii = [], [], [], []
    waiting = [(root, heading, cloud)]
    while waiting:
        start, heading, points = waiting.pop()
        end = start + (0.8 if len(points) == 1 else reach) * (points.mean(0) - start)
        bend = start + 0.4 * np.linalg.norm(end - start) * heading
        paths.append((1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end)
        radii.append(leaf_radius * len(points) ** (1 / 3))
        if len(points) == 1:
            continue
        heading = (end - bend) / max(np.linalg.norm(end - bend), 1e-6)
        centred = points - points.mean(0)
        # The plane cuts the widest direction of the points; the direction of the branch counts less, so children fork sideways.
        sideways = centred - np.outer(centred @ heading, heading) * 0.7
        _, axes = np.linalg.eigh(sideways.T @ sideways)
        order = np.argsort(sideways @ axes[:, -1])
        cut = int(np.clip(round(len(points) * rng.uniform(0.3, 0.7)), 1, len(points) - 1))
        children = points[order[:cut]], points[order[cut:]]
        waiting.extend((end, heading, child) for child in children)
        forks.append(end)
        fork_radii.append(leaf_radius * min(map(len, children)) ** (1 / 3))
    return _Tree(np.array(paths), np.array(radii), np.array(forks), np.array(fork_radii))


def _side_points(thorax: _Thorax, side: int, count: int, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Random points ``(count, 3)`` in mm, at least `depth` mm deep in the right (`side` -1) or the left lung (`side` 1)."""
    indices = np.argwhere(thorax.lungs > depth)[:, ::-1]
    nominal = _BOX[0] + _ORGAN_MM * indices
    chosen = rng.choice(indices[side * nominal[:, 0] > 0], count)
    return thorax.grid.points(chosen + rng.uniform(-0.5, 0.5, chosen.shape))


def _grow_vessels(thorax: _Thorax, side: int, scale: float, rng: np.random.Generator) -> list[_Tree]:
    """Arteries and veins of one lung, from the hilum to the pleura."""
    count = round(_LEAVES * scale**2)
    trees = []
    for y, z in ((10, 8), (0, -12)):
        root = thorax.frame.to_physical((side * 24 + 6, y, z))
        heading = np.array([side * 0.95, 0.1, 0.3 * np.sign(z)])
        trees.append(_grow(root, heading / np.linalg.norm(heading), _side_points(thorax, side, count, 2.5, rng), 0.55, rng))
    return trees


def _grow_airways(thorax: _Thorax, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Grow trachea, main bronchi and the first generations in the lungs; return their paths and radii in mm."""
    frame, size = thorax.frame, thorax.frame.size.mean()
    carina = frame.to_physical((2, 20, 36))
    paths, radii = [np.array([frame.to_physical((0, 16, 150)), carina])], [8.5 * size]
    for side, hilum in ((-1, (-28, 22, 14)), (1, (36, 24, 8))):
        root = frame.to_physical(hilum)
        heading = (root - carina) / np.linalg.norm(root - carina)
        tree = _grow(root, heading, _side_points(thorax, side, 40, 15 * size, rng), 1.2 * size, rng)
        paths.extend([np.array([carina, root]), *tree.paths])
        radii.extend([6.5 * size, *tree.radii])
    return paths, np.array(radii)


def _rasterize(grid: Grid, paths: list[np.ndarray], radii: ArrayLike) -> np.ndarray:
    """The fraction of each voxel of an isotropic grid that lies inside round tubes, shape ``(z, y, x)``, float32 in [0, 1].

    Parameters
    ----------
    paths
        Axes of the tubes, polylines ``(points, 3)``, x, y, z in mm.
    radii
        Radius of each tube in mm.
    """
    cover = np.zeros(grid.shape, np.float32)
    starts = grid.indices(np.concatenate([path[:-1] for path in paths]))[:, ::-1]
    steps = grid.indices(np.concatenate([path[1:] for path in paths]))[:, ::-1] - starts
    radii = np.repeat(np.asarray(radii) / grid.spacing[0], [len(path) - 1 for path in paths])
    reach = radii[:, None] + 1
    lower = np.maximum(np.floor(starts + np.minimum(steps, 0) - reach), 0).astype(int)
    upper = np.minimum(np.ceil(starts + np.maximum(steps, 0) + reach) + 1, grid.shape).astype(int)
    # A straight segment touches few voxels: each is drawn in its own box.
    for start, step, radius, low, high in zip(starts, steps, radii, lower, upper, strict=True):
        if (low >= high).any():
            continue
        box = cover[tuple(slice(*ends) for ends in zip(low, high, strict=True))]
        z, y, x = (np.arange(*ends) - middle for ends, middle in zip(zip(low, high, strict=True), start, strict=True))
        z, y = z[:, None, None], y[:, None]
        share = np.clip((z * step[0] + y * step[1] + x * step[2]) / max(step @ step, 1e-9), 0, 1)
        square = (z - share * step[0]) ** 2 + (y - share * step[1]) ** 2 + (x - share * step[2]) ** 2
        np.maximum(box, np.clip(radius - np.sqrt(square) + 0.5, 0, 1), out=box)
    return cover


# The anatomy on the fine grid, and the scans of it


def _draw_anatomy(
    thorax: _Thorax, trees: list[_Tree], airways: tuple[list[np.ndarray], np.ndarray], rng: np.random.Generator
) -> sitk.Image:
    """Render the anatomy on the fine grid: an image in HU, float32."""
    grid = _box_grid(thorax.frame, np.full(3, FINE_MM))
    hu = _resample(thorax.grid.image(thorax.tissue), grid)
    lungs = _cover(_resample(thorax.grid.image(thorax.lungs), grid), FINE_MM)
    _paint(hu, lungs, _parenchyma(thorax, grid, rng))

    paths, radii = airways
    _paint(hu, _rasterize(grid, paths, radii * 1.12 + 0.6), 0.0)
    branches = [path for tree in trees for path in tree.paths]
    _paint(hu, _rasterize(grid, branches, np.concatenate([tree.radii for tree in trees])) * lungs, _BLOOD)
    _paint(hu, _rasterize(grid, paths, radii), _LUMEN)
    return grid.image(hu)


def _parenchyma(thorax: _Thorax, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """HU of the lungs between vessels: texture on three scales, denser towards the back, and the fissures."""
    density = 0.30 * _noise(rng, grid, 1.4)
    density += 0.45 * _noise(rng, grid, 2.8)
    density += 0.15 * _noise(rng, grid, 8.0)
    depth = thorax.frame.to_nominal(_grid_points(Grid((1, grid.size[1], 1), grid.spacing, grid.origin)))[:, :, :, 1]
    density += (depth / 400).astype(np.float32)
    # The exponential keeps the density of tissue and air positive, as it is later multiplied by a Jacobian.
    np.exp(density, out=density)
    density *= 1000 * rng.uniform(0.12, 0.16)
    density += 130 * np.clip(1.2 - _resample(thorax.grid.image(thorax.fissures), grid), 0, 1)
    density += _AIR
    return density


def _lung_box(thorax: _Thorax) -> np.ndarray:
    """Corners ``(2, 3)`` of the box around the lungs, in mm."""
    indices = np.argwhere(thorax.lungs > 0)[:, ::-1]
    return thorax.grid.points(np.array([indices.min(0), indices.max(0)]))


def _lung_mask(thorax: _Thorax, grid: Grid) -> sitk.Image:
    return grid.image((_resample(thorax.grid.image(thorax.lungs), grid) > 0).astype(np.uint8))


@dataclass(frozen=True)
class _Motion:
    """The deformation of the follow-up scan: ``S(y) = y + s(y)`` from follow-up to baseline, linear between nodes.

    `field` has the shape ``(z, y, x, 3)``, components x, y, z in mm, on the nodes of `grid`.
    """

    field: np.ndarray
    grid: Grid

    def forward(self, points: np.ndarray, tolerance: float = 1e-5) -> np.ndarray:
        """Move points ``(..., 3)`` from baseline to follow-up: ``T``, by iterating ``y = x - s(y)`` to `tolerance` mm."""
        points = np.asarray(points, float)
        moved = points
        for _ in range(100):
            shift = np.stack([_sample(self.field[..., axis], self.grid, moved) for axis in range(3)], -1)
            moved, previous = points - shift, moved
            if np.abs(moved - previous).max() < tolerance:
                break
        return moved


def _draw_motion(frame: _Frame, scale: float, rng: np.random.Generator) -> _Motion:
    """Draw a deformation: a deeper or shallower breath, smooth random displacements, and another position of the patient."""
    # The field extends beyond the drawn box, as points of the baseline may move outside it.
    spacing = NODE_MM * np.sqrt(scale)
    grid = _covering(_box_grid(frame, np.full(3, spacing)), spacing, 8 + 32 * scale)
    points = _grid_points(grid)
    nominal = frame.to_nominal(points)
    breath = scale * rng.choice((-1, 1)) * rng.uniform(8, 13) * _breathing(nominal)
    # Noise is drawn at all nodes: interpolated noise would have kinks between the nodes of the DVF, and make it less accurate.
    wobble = np.stack([_noise(rng, grid, rng.uniform(28, 36) * np.sqrt(scale), np.inf) for _ in range(3)], -1)
    wobble *= np.sqrt(scale) * rng.uniform(5.2, 7.0) * _looseness(nominal)[..., None]
    # Reduce the wobble while breath and wobble compress tissue more than a lung can be compressed.
    while jacobian_determinant(breath + wobble, grid).min() < 0.3:
        wobble *= 0.8
    position = _draw_position(frame, scale, rng)
    centred = points - frame.centre
    return _Motion(centred @ (position[:, :3] - np.eye(3)).T + position[:, 3] + breath + wobble, grid)


def _breathing(nominal: np.ndarray) -> np.ndarray:
    """The field of a breath ``(..., 3)`` at nominal points: about 1 at the diaphragm, small at spine and apex."""
    x, y, z = np.moveaxis(nominal, -1, 0)
    height = np.clip((110 - z) / 190, 0, 1.3) ** 2.2
    spine = np.exp(-((x / 34) ** 2 + ((y - 80) / 42) ** 2) / 2)
    down = height * (1 - 0.75 * spine) * (0.85 + 0.25 * np.tanh(y / 60))
    front = 0.3 * height * (1 - np.tanh((y + 10) / 50)) / 2
    wide = 0.15 * height * np.tanh(x / 80)
    return np.stack([-wide, front, down], -1)


def _looseness(nominal: np.ndarray) -> np.ndarray:
    """How far tissue at nominal points can be displaced at random: 1 in the lungs, less near spine and apex."""
    x, y, z = np.moveaxis(nominal, -1, 0)
    spine = np.exp(-((x / 34) ** 2 + ((y - 80) / 42) ** 2) / 2)
    apex = 1 / (1 + np.exp(-(z - 90) / 15))
    return (1 - 0.7 * spine) * (1 - 0.5 * apex)


def _draw_position(frame: _Frame, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a change of the patient's position: matrix and translation (mm) around the centre, shape ``(3, 4)``."""
    angles = np.deg2rad(rng.uniform(-2.5, 2.5, 3))
    rotation = Rotation.from_euler("xyz", angles).as_matrix()
    stretch = np.diag(1 + rng.uniform(-0.02, 0.02, 3))
    return np.column_stack([rotation @ stretch, scale * rng.uniform(-6, 6, 3)])


def _scan(anatomy: sitk.Image, grid: Grid, motion: _Motion | None, rng: np.random.Generator) -> sitk.Image:
    """Scan the anatomy on `grid`, after `motion` if given: thick slices, scanner noise, int16 HU."""
    transform = IDENTITY if motion is None else field_transform(motion.field, motion.grid)
    # Samples up to 1.5 voxels apart leave no gap between the voxels that linear interpolation reads.
    parts = int(np.ceil(grid.spacing[2] / (1.5 * FINE_MM)))
    thin = (*grid.spacing[:2], grid.spacing[2] / parts)
    first = grid.points(np.array((0, 0, (1 / parts - 1) / 2)))
    fine = Grid((*grid.size[:2], grid.size[2] * parts), thin, tuple(first.tolist()))
    hu = _resample(anatomy, fine, transform)
    hu = hu.reshape(grid.size[2], parts, *grid.shape[1:]).mean(1)
    if motion is not None:
        density = jacobian_determinant(motion.field, motion.grid)
        _compress(hu, _resample(motion.grid.image(density), grid))
    # The reconstruction kernel smooths noise within a slice; slices are independent.
    noise = ndimage.gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), (0, 0.55, 0.55), truncate=3)
    hu += rng.uniform(11, 19) / noise.std() * noise
    return grid.image(np.clip(np.round(hu), AIR_HU, 3071).astype(np.int16))


def _compress(hu: np.ndarray, density: np.ndarray) -> None:
    """Multiply the density of aerated tissue, ``HU + 1000``, by `density`, in place: its mass stays when its volume changes."""
    # Blood and soft tissue keep their density; voxels in between contain both.
    airy = np.clip((-300 - hu) / 350, 0, 1)
    hu += (hu + 1000) * airy * (density - 1)


def _pick_landmarks(thorax: _Thorax, trees: list[_Tree], count: int, rng: np.random.Generator) -> np.ndarray:
    """Pick at most `count` forks of visible vessels in the lungs, in random order; returns points ``(n, 3)`` in mm."""
    forks = np.concatenate([tree.forks for tree in trees])
    radii = np.concatenate([tree.fork_radii for tree in trees])
    forks = forks[(_sample(thorax.lungs, thorax.grid, forks) > 3) & (radii > 0.75)]
    chosen = np.empty((0, 3))
    for fork in rng.permutation(forks):
        if len(chosen) == count:
            break
        if (np.linalg.norm(chosen - fork, axis=1) >= LANDMARK_DISTANCE_MM).all():
            chosen = np.vstack([chosen, fork])
    return chosen
