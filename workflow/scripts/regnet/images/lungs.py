"""Lung masks for CT images that come without one: classical segmentation, no training.

Lungs are the large dark regions inside the body that are not gas. All steps work on a smoothed copy of `WORKING_SPACING` mm
in axial orientation; only the final mask is resampled to the image's own grid. The steps:

1. air is everything below `AIR_BELOW_HU`;
2. trachea and main bronchi are small holes in many successive axial slices: they are removed first, because they connect the
   lungs with each other and, in scans that reach the mouth, with the room;
3. air outside the body lies flat on the lateral faces of the image. A lung may touch these faces too, and the first or last
   axial slice may cut it, so contact alone does not count. Padding is beyond the image: a round field of view cuts a lung as
   a face does;
4. of the remaining regions, all but the smallest are lung, unless they are gas (stomach, bowel: dark and without vessels) or
   hollows near the outside (table, mattress);
5. closing fills vessels and hilum; hole filling adds what the lungs enclose (tumours, large vessels).
"""

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from regnet.errors import InputError
from regnet.images.volumes import IDENTITY, Grid, mask_litres, resample, resample_mask

WORKING_SPACING = 2.0
"""Spacing of the copy that is segmented, in mm."""

AIR_BELOW_HU = -400
"""Air and lung are below, soft tissue, bone and most diseased lung (tumours, collapse, effusion) above; in HU."""

GAS_BELOW_HU = -900
"""A region whose interior has a lower median may be gas (-1000 to -940 HU), or a lung with emphysema (down to -960)."""

GAS_SPREAD_HU = 100.0
"""Gas has less than this from its 10th to its 90th percentile (30 to 50 HU); vessels give every lung more (at least 130)."""

AIRWAY_AREA_MM2 = 700.0
"""Largest section of the trachea or a main bronchus in an axial slice (a trachea 25 mm wide has 500 mm2, the carina more)."""

AIRWAY_LENGTH_MM = 30.0
"""Shortest run of such sections along the body that counts as an airway; the tips of the lungs widen sooner."""

AIRWAY_ROUNDNESS = 0.25
"""Least area of such a section over its squared width: a disc has 0.79, the carina 0.35, a recess beside the diaphragm 0.1."""

AIRWAY_BELOW_HU = -700
"""Lumen of an airway: low enough that the thin wall between it and a lung, blurred on the coarse copy, keeps them apart."""

AIRWAY_MEDIAN_HU = -900
"""Highest median of an airway's lumen; a strip of lung as narrow as an airway is brighter."""

NEAR_OUTSIDE_MM = 6.0
"""A wall thinner than this around `NEAR_OUTSIDE_FRACTION` of a region is no chest wall: the region is a hollow of a table."""

NEAR_OUTSIDE_FRACTION = 0.3
"""A region is left out if a larger share of its surface is near the outside."""

SMALLEST_REGION_LITRES = 0.02
"""Regions smaller than this are left out: bowel gas, fragments. A lobe cut off by disease may have twice this."""

CLOSING_MM = 8.0
"""Radius of the closing that fills vessels and the hilum, in mm; the aorta and the heart are wider."""

MIN_VOLUME_LITRES = 0.3
"""An adult has more, even in a single diseased lung at full expiration."""

MAX_VOLUME_LITRES = 12.0
"""Two lungs have less, even those of a tall patient with emphysema at full inspiration."""

AIR_AT_MOST_HU = -1000
"""Padding that looks like air is not above this; other padding looks like tissue."""

CUT_DEPTH = 0.3
"""A region of lung that padding cuts is left out below this depth, relative to that of a field of view that is all air."""

LUNG_MEDIAN_HU = -950
"""Air around the patient has a lower median, lung in nearly all patients a higher one."""

PADDING_MARGIN = 2
"""Voxels of the copy around padding that are mixtures of it and what it borders on; they look like air, or like lung."""

LARGE_PART = 0.15
"""A connected part with a larger share of the whole volume counts as a lung; a lobe that disease has cut off has less."""


def segment_lungs(
    image: sitk.Image,
    name: str,
    *,
    min_volume_litres: float = MIN_VOLUME_LITRES,
    max_volume_litres: float = MAX_VOLUME_LITRES,
) -> sitk.Image:
    """Segment the lungs of a chest CT, vessels included, trachea and main bronchi left out.

    The image may be cropped: to one lung, to the body, or so that a lung is cut by a border, which may be that of a round field
    of view with padding around it. A small part of a second lung at a lateral border is left out, unless it touches the first
    one.

    Parameters
    ----------
    image
        CT in int16 HU, not below -1024 (as `regnet.images.volumes.read_ct` returns it), in any orientation.
    name
        What error messages call the image: its path, or its name in the cohort.
    min_volume_litres, max_volume_litres
        Plausible volume of all lungs in the image together.

    Returns
    -------
    sitk.Image
        uint8, 1 inside the lungs, on the grid of `image`.

    Raises
    ------
    InputError
        If no lungs are found, their volume is not plausible, or there are more than two.
    """
    expected = f"expected lungs of {min_volume_litres:g} to {max_volume_litres:g} litres in a chest CT in HU"
    copy = _axial_copy(image)
    grid = Grid.of(copy)
    ct = sitk.GetArrayFromImage(copy)

    air = ct < AIR_BELOW_HU
    if not air.any():
        raise InputError(f"{name}: found no air or lung (nothing below {AIR_BELOW_HU} HU, lowest {ct.min():.0f}); {expected}")
    padding = _padding(ct)
    field = ~ndimage.binary_dilation(padding, iterations=PADDING_MARGIN)
    airways = _airways(ct, grid.spacing, field) & air
    regions, outside = _enclosed_regions(air & ~airways & field, field, ct)
    lungs = _lungs(regions, outside, ~field, ct, grid.spacing)

    is_lung = np.isin(regions, lungs)
    nearest = None
    if (is_lung & ndimage.binary_dilation(~field)).any():
        # A lung continues where the field of view cuts it, as at the borders of the image.
        nearest = tuple(ndimage.distance_transform_edt(~field, return_distances=False, return_indices=True))
    inside = np.zeros_like(air)
    for label in lungs:
        region = regions == label
        inside |= _closed(region if nearest is None else region[nearest], grid.spacing)
    # Closing must not add air that was left out before: airways, gas and the room.
    inside &= ~air | is_lung
    if nearest is not None:
        inside = inside[nearest]
    inside &= ~padding
    inside = _without_small_parts(ndimage.binary_fill_holes(inside) & ~padding, grid.spacing)

    mask = resample_mask(grid.image(inside.astype(np.uint8)), Grid.of(image))
    if nearest is not None:
        # Interpolation moves the edge of the field of view by up to a voxel.
        at_padding = resample_mask(grid.image((~field).astype(np.uint8)), Grid.of(image))
        mask = sitk.And(mask, sitk.Not(sitk.And(at_padding, image <= float(ct.min()))))
    litres = mask_litres(mask)
    if not min_volume_litres <= litres <= max_volume_litres:
        found = f"lungs of {litres:.2f} litres" if lungs else "no lungs"
        dark = f"{air.mean():.0%} of the image is air or lung, below {AIR_BELOW_HU} HU"
        raise InputError(f"{name}: found {found} ({dark}); {expected}")
    parts, _ = ndimage.label(inside)
    sizes = np.bincount(parts.ravel())[1:]
    large = np.count_nonzero(sizes > LARGE_PART * sizes.sum())
    if large > 2:
        raise InputError(f"{name}: found {large} large separate regions of air or lung, expected one or two lungs")
    return mask


def _axial_copy(image: sitk.Image) -> sitk.Image:
    """A smoothed float32 copy of `WORKING_SPACING` mm, its axes in the order and direction closest to x, y, z (LPS)."""
    oriented = sitk.DICOMOrient(image, "LPS")
    factors = np.clip((WORKING_SPACING / np.array(oriented.GetSpacing())).astype(int), 1, oriented.GetSize())
    # Averaging whole voxels is fast and removes noise; linear interpolation does the rest.
    smooth = sitk.BinShrink(sitk.Cast(oriented, sitk.sitkFloat32), factors.tolist())
    grid = Grid.of(oriented).isotropic(WORKING_SPACING)
    return resample(smooth, IDENTITY, grid, sitk.sitkLinear)


def _padding(ct: np.ndarray) -> np.ndarray:
    """Mask of the padding around a round or turned field of view: constant, at the lowest HU, and at a lateral face.

    Noise keeps air from being constant. Where air is, as in a scan whose background was erased, it may as well be padding.
    """
    lowest = ct.min()
    if lowest > AIR_AT_MOST_HU:
        return np.zeros(ct.shape, bool)
    # An average of voxels, or a value between them, is exactly as low as the lowest only if all of them are.
    constant = ndimage.binary_dilation(ndimage.binary_erosion(ct < lowest + 0.01, border_value=1))
    parts, count = ndimage.label(constant)
    at_face = np.zeros(count + 1, bool)
    for face in (parts[:, 0], parts[:, -1], parts[:, :, 0], parts[:, :, -1]):
        at_face[face] = True
    at_face[0] = False
    return at_face[parts]


def _airways(ct: np.ndarray, spacing: tuple[float, float, float], field: np.ndarray) -> np.ndarray:
    """Mask of trachea and main bronchi: air in `field` with small axial sections over a long distance, and the blurred voxels
    at its wall.

    A mistake is cheap: it takes less than `AIRWAY_AREA_MM2` from each slice.
    """
    in_plane = np.zeros((3, 3, 3), bool)
    in_plane[1] = True
    sections, _ = ndimage.label((ct < AIRWAY_BELOW_HU) & field, in_plane)
    areas = np.bincount(sections.ravel()) * spacing[0] * spacing[1]
    boxes = ndimage.find_objects(sections)
    widths = [max((x.stop - x.start) * spacing[0], (y.stop - y.start) * spacing[1]) for _, y, x in boxes]
    small = areas <= AIRWAY_AREA_MM2
    small[1:] &= areas[1:] >= AIRWAY_ROUNDNESS * np.square(widths)
    small[0] = False
    tubes, count = ndimage.label(small[sections])
    airway = np.zeros(count + 1, bool)
    for label, box in enumerate(ndimage.find_objects(tubes), start=1):
        if (box[0].stop - box[0].start) * spacing[2] >= AIRWAY_LENGTH_MM:
            airway[label] = np.median(ct[box][tubes[box] == label]) < AIRWAY_MEDIAN_HU
    return ndimage.binary_dilation(airway[tubes])


def _enclosed_regions(air: np.ndarray, field: np.ndarray, ct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label the regions of air inside the body, and mask the air outside.

    Air outside lies flat on the lateral faces of the field of view, those of the image or where its padding begins: its depth,
    the volume over the area of contact, is at most that of a field that is all air. A lung that touches a face, or is cut by it
    a little, is many times as deep. A round field of view may cut more than a little of it: at padding, what is brighter than
    air is outside only if it is a flat slice.

    Returns
    -------
    regions, outside
        Labels from 1, 0 elsewhere; and a mask. Both ``(z, y, x)``.
    """
    regions, count = ndimage.label(air)
    voxels = np.bincount(regions.ravel(), minlength=count + 1)
    faces = [regions[:, 0], regions[:, -1], regions[:, :, 0], regions[:, :, -1]]
    at_faces = np.bincount(np.concatenate([face.ravel() for face in faces]), minlength=count + 1)
    contact, surface = at_faces.copy(), sum(np.count_nonzero(np.take(field, end, axis)) for axis in (1, 2) for end in (0, -1))
    for axis in (1, 2):
        along, labels = np.moveaxis(field, axis, 0), np.moveaxis(regions, axis, 0)
        for inner, outer in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
            last = along[inner] & ~along[outer]
            contact += np.bincount(labels[inner][last], minlength=count + 1)
            surface += np.count_nonzero(last)
    depth = voxels / np.maximum(contact, 1)
    deepest = np.count_nonzero(field) / max(surface, 1)
    is_outside = (contact > 0) & (depth <= 1.05 * deepest)
    for label in np.flatnonzero(is_outside & (contact > 2 * at_faces) & (depth > CUT_DEPTH * deepest)):
        is_outside[label] = np.median(ct[regions == label]) < LUNG_MEDIAN_HU
    is_outside[0] = False
    outside = is_outside[regions]
    return np.where(outside, 0, regions), outside


def _lungs(
    regions: np.ndarray, outside: np.ndarray, padding: np.ndarray, ct: np.ndarray, spacing: tuple[float, float, float]
) -> list[int]:
    """The labels of the lungs among the regions of air inside the body, largest first."""
    voxels = np.bincount(regions.ravel())
    voxels[0] = 0
    near_outside = ndimage.binary_dilation(outside | padding, iterations=round(NEAR_OUTSIDE_MM / min(spacing)))
    # Where padding cuts a region there is no wall between them.
    near_outside &= ~ndimage.binary_dilation(padding)
    lungs: list[int] = []
    for label in np.argsort(-voxels, kind="stable"):
        if voxels[label] * np.prod(spacing) < SMALLEST_REGION_LITRES * 1e6:
            break
        region = regions == label
        core = ndimage.binary_erosion(region, iterations=2)
        low, median, high = np.percentile(ct[core if core.any() else region], [10, 50, 90])
        gas = median < GAS_BELOW_HU and high - low < GAS_SPREAD_HU
        surface = region & ~ndimage.binary_erosion(region, border_value=1)
        hollow = np.mean(near_outside[surface]) > NEAR_OUTSIDE_FRACTION
        if not gas and not hollow:
            lungs.append(int(label))
    return lungs


def _without_small_parts(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """A mask without its connected parts of less than `SMALLEST_REGION_LITRES`."""
    parts, _ = ndimage.label(mask)
    keep = np.bincount(parts.ravel()) * np.prod(spacing) >= SMALLEST_REGION_LITRES * 1e6
    keep[0] = False
    return keep[parts]


def _closed(region: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Morphological closing by a ball of `CLOSING_MM`, as if a region that the image's border cuts continued beyond it."""
    margin = int(np.ceil(CLOSING_MM / min(spacing))) + 1
    (sides,) = ndimage.find_objects(region.astype(np.uint8))
    box = tuple(slice(max(0, side.start - margin), side.stop + margin) for side in sides)
    padded = np.pad(region[box], margin, mode="edge")
    dilated = ndimage.distance_transform_edt(~padded, sampling=spacing[::-1]) <= CLOSING_MM
    closed = ndimage.distance_transform_edt(dilated, sampling=spacing[::-1]) > CLOSING_MM
    result = region.copy()
    result[box] |= closed[(slice(margin, -margin),) * 3]
    return result
