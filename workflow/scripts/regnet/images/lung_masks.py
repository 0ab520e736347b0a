"""Tell masks that cannot be lungs: by their volume, and by the HU inside them and at their edge."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from regnet.errors import InputError
from regnet.images.volumes import LUNG_BELOW_HU, Grid, mask_litres

MIN_MASK_LITRES = 0.02
"""Smallest volume of a mask, in litres: the lungs of a preterm child, or one lobe of a child."""

MAX_MASK_LITRES = 12.0
"""Two lungs have less, even those of a tall patient with emphysema at full inspiration."""

ROOM_AIR_HU = -990
"""Lung, emphysema included, is mostly above, air outside the body mostly below."""

TISSUE_ABOVE_HU = -300
"""Lung is below, apart from vessels and disease; fat, muscle and blood are above."""

MIN_LUNG_SHARE = 0.2
"""Least share of a mask between `ROOM_AIR_HU` and `LUNG_BELOW_HU`: lungs have about 0.9, what surrounds them at most 0.16."""

SUSPICIOUS_LUNG_SHARE = 0.75
"""With a lower share in the first slices that are read, the whole mask is; central slices of lungs have 0.72 to 0.95."""

MAX_TISSUE_SHARE = 0.5
"""Largest share of tissue in a mask whose edge does not follow the lungs; a margin of 10 mm around lungs makes 0.4."""

MISPLACED_TISSUE_SHARE = 0.2
"""Share of tissue above which a mask whose edge runs through lung and tissue alike is misplaced; lungs have 0.03 to 0.05."""

MISPLACED_EDGE_HU = -150
"""Mean HU of the edge of a mask below which lung has a part in it; around lungs with a margin it is tissue."""

MIN_CONTRAST_HU = 90
"""Least step of the mean HU from the edge of a mask to what surrounds it, as the chest wall is brighter: lungs have 390 to 630,
with half of them consolidated at least 98."""

SAMPLING_MM = 2.0
"""Distance of the voxels that are looked at, unless the image has larger ones, in mm."""


def refuse_other_than_lungs(mask: sitk.Image, image: sitk.Image, path: str | Path) -> None:
    """Raise an error if a mask cannot be that of the lungs of its image, a lung, or a part of one.

    Diseased lungs pass: their edge is darker than the chest wall, even where half of them is consolidated. Lungs with a margin
    of up to 10 mm pass as well.

    Parameters
    ----------
    mask
        uint8, nonzero inside, not empty.
    image
        CT in int16 HU, on the grid of `mask`.
    path
        What the message calls the mask.

    Raises
    ------
    InputError
        If the volume of the mask is not within `MIN_MASK_LITRES` and `MAX_MASK_LITRES`; if too little of it has HU of lung, as
        in an inverted mask or one of another organ; or if its edge does not follow the lungs, as in a mask that covers the
        image or lies beside the lungs.
    """
    litres = mask_litres(mask)
    if not MIN_MASK_LITRES <= litres <= MAX_MASK_LITRES:
        expected = f"expected the lungs, of {MIN_MASK_LITRES:g} to {MAX_MASK_LITRES:g} litres"
        raise InputError(f"{path}: found a mask of {litres:.3g} litres, {expected}")
    steps = tuple(slice(None, None, max(1, int(SAMPLING_MM / side))) for side in Grid.of(mask).spacing[::-1])
    inside = sitk.GetArrayViewFromImage(mask)[steps] != 0
    hu = sitk.GetArrayViewFromImage(image)[steps].astype(np.float32)
    if not inside.any():
        return
    share = lung_share(hu, inside)
    if share < MIN_LUNG_SHARE:
        median = f"its median {np.median(hu[inside]):.0f}"
        found = f"a mask of which {share:.0%} is between {ROOM_AIR_HU} and {LUNG_BELOW_HU} HU, {median}"
        raise InputError(f"{path}: found {found}, expected a mask of the lungs (about 90%)")
    tissue = float(np.mean(hu[inside] > TISSUE_ABOVE_HU))
    if tissue <= MISPLACED_TISSUE_SHARE:
        return
    edge = inside & ~ndimage.binary_erosion(inside, border_value=1)
    # Padding, and a background that was set to air, say nothing about where lungs end.
    around = ndimage.binary_dilation(inside) & ~inside & (hu > ROOM_AIR_HU)
    at_edge, beyond = (float(hu[where].mean()) if where.any() else None for where in (edge, around))
    if at_edge is None or beyond is None:
        surroundings, follows = "nothing but air around", tissue <= MAX_TISSUE_SHARE
    else:
        surroundings = f"{at_edge:.0f} HU at its edge and {beyond:.0f} HU around"
        with_margin = tissue <= MAX_TISSUE_SHARE and at_edge >= MISPLACED_EDGE_HU
        follows = beyond - at_edge >= MIN_CONTRAST_HU or with_margin
    if not follows:
        found = f"a mask with {tissue:.0%} tissue (above {TISSUE_ABOVE_HU} HU), {surroundings}"
        raise InputError(f"{path}: found {found}, expected a mask of the lungs (darker than what surrounds them)")


def lung_share(hu: np.ndarray, inside: np.ndarray) -> float:
    """The share of the voxels `inside` (bool) that have HU of lung; 0 if there are none. Both arrays have the same shape."""
    values = hu[inside]
    return float(np.mean((values > ROOM_AIR_HU) & (values < LUNG_BELOW_HU))) if values.size else 0.0
