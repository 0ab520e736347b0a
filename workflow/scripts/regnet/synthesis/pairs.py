"""Random displacement fields and the deformed images made with them: the training data (section 2.2.2 of the chapter)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from regnet.conventions import AIR_HU
from regnet.errors import InputError
from regnet.images.boxes import Box, bounding_box
from regnet.images.volumes import Grid
from regnet.synthesis.appearance import Appearance, change, source_of_pair
from regnet.synthesis.random_fields import (
    RandomField,
    displacement_in_voxels,
    draw_field,
    slabs,
    spline_coefficients,
    voxel_axes,
)
from regnet.synthesis.samples import WINDOW_MARGIN, Samples, output_points, sample_centres
from regnet.system.files import NPZ_ERRORS, whole_file

SOFT_TISSUE_HU = (-50.0, 50.0)

SLAB_PLANES = 24
"""Thickness, in voxels along z, of the parts in which a fixed image is deformed."""


@dataclass(frozen=True)
class SyntheticDVF:
    """A random displacement field on the grid of its images.

    It holds only the few kilobytes that define the field, which is evaluated where it is needed.

    Attributes
    ----------
    field
        The field, on the CPU, in mm along the axes x, y, z of `grid` from its first voxel, not in physical space.
    grid
        The grid of both images. The field maps points of the fixed image to the moving image.
    """

    field: RandomField
    grid: Grid

    @property
    def reach(self) -> int:
        """A number of voxels that no component of the field exceeds."""
        return int(np.ceil(float(self.field.vectors.abs().max()) / min(self.grid.spacing))) + 1

    def on_grid(self) -> np.ndarray:
        """The displacements on every voxel of `grid`: shape ``(z, y, x, 3)``, physical components x, y, z in mm, float32."""
        along_axes = self.field.on_lattice(*voxel_axes(self.grid.size, self.grid.spacing)).numpy()
        return self.grid.to_physical(np.moveaxis(along_axes, 0, -1)).astype(np.float32)

    def at(self, index: np.ndarray) -> np.ndarray:
        """The displacements at continuous voxel indices ``(..., 3)``, x, y, z: physical components x, y, z in mm."""
        positions = np.asarray(index, float) * self.grid.spacing
        along_axes = self.field.at(torch.from_numpy(positions).flatten(0, -2)).numpy().reshape(positions.shape)
        return self.grid.to_physical(along_axes)

    def in_voxels(self, box: Box) -> Iterator[tuple[Box, torch.Tensor]]:
        """The displacements, in voxels, of a part of the grid, a few planes at a time.

        Yields
        ------
        part : Box
            Consecutive parts of `box` along z.
        displacement : torch.Tensor
            The displacements of the part, as `regnet.synthesis.random_fields.displacement_in_voxels` returns them.
        """
        planes, rows, columns = box
        for slab in slabs(tuple(along.stop - along.start for along in box)):
            part = slice(planes.start + slab.start, planes.start + slab.stop), rows, columns
            yield part, displacement_in_voxels(self.field, self.grid.size, self.grid.spacing, part)

    def save(self, path: str | Path) -> None:
        """Write the field as an ``.npz`` file."""
        with whole_file(path) as partial:
            np.savez(
                partial,
                points=self.field.points.numpy(),
                vectors=self.field.vectors.numpy(),
                sigma=self.field.sigma,
                scale=self.field.scale.numpy(),
                size=self.grid.size,
                spacing=self.grid.spacing,
                origin=self.grid.origin,
                direction=self.grid.direction,
            )

    @classmethod
    def load(cls, path: str | Path) -> "SyntheticDVF":
        """Read a field that `save` wrote.

        Raises
        ------
        InputError
            If the file cannot be read as such a field.
        """
        try:
            with open(path, "rb") as file, np.load(file) as stored:
                grid = Grid(*(tuple(stored[name].tolist()) for name in ("size", "spacing", "origin", "direction")))
                points, vectors, scale = (torch.from_numpy(stored[name]) for name in ("points", "vectors", "scale"))
                return cls(RandomField(points, vectors, float(stored["sigma"]), scale), grid)
        except NPZ_ERRORS as error:
            raise InputError(f"{path}: cannot be read as a synthetic displacement field ({error})") from error


def random_dvf(grid: Grid, *, sigma: float, points: int, theta: float, border: float, rng: np.random.Generator) -> SyntheticDVF:
    """Draw a random field that does not fold.

    Parameters
    ----------
    grid
        The grid of the images.
    sigma, points, theta, border, rng
        As in `regnet.synthesis.random_fields.draw_field`; lengths in mm.

    Raises
    ------
    RegNetError
        If no field without folding is found, because theta is too large for sigma.
    """
    field = draw_field(grid.size, grid.spacing, sigma=sigma, points=points, theta=theta, border=border, rng=rng)
    return SyntheticDVF(field, grid)


def require_room(image: sitk.Image, name: str, smallest: int) -> None:
    """Refuse an image that is smaller than the config allows, by default smaller than the chapter's patch of 54^3 voxels.

    Raises
    ------
    InputError
        If `image`, called `name` in the message, has fewer than `smallest` voxels along an axis.
    """
    if min(image.GetSize()) < smallest:
        size = " x ".join(map(str, image.GetSize()))
        raise InputError(
            f"{name}: found {size} voxels of {image.GetSpacing()[0]:g} mm, expected at least {smallest} along each axis "
            "(synthesis.smallest_size)"
        )


def reachable_boxes(mask: sitk.Image, dvf: SyntheticDVF, block: int) -> list[Box]:
    """The parts of the fixed image of a synthetic pair that windows centred in its lungs can reach.

    Each part is at most `SLAB_PLANES` thick, because lungs are narrower at their ends.

    Parameters
    ----------
    mask
        Lungs of the moving image; those of the fixed image are at most the reach of `dvf` away from them.
    dvf
        The field of the pair.
    block
        Outputs per axis of a sample, k: a window reaches 26 + k voxels from its centre.

    Raises
    ------
    InputError
        If the mask is empty.
    """
    inside = sitk.GetArrayViewFromImage(mask) != 0
    reach = WINDOW_MARGIN + block + dvf.reach
    planes, _, _ = _around(inside, reach)
    boxes = []
    for first in range(planes.start, planes.stop, SLAB_PLANES):
        part = slice(first, min(first + SLAB_PLANES, planes.stop))
        near = inside[max(0, part.start - reach) : part.stop + reach]
        if near.any():
            boxes.append((part, *_around(near, reach)[1:]))
    return boxes


def bspline_coefficients(moving: sitk.Image) -> sitk.Image:
    """The cubic B-spline coefficients of a moving image, float32, on a grid with a spacing of 1 and the origin 0."""
    return sitk.GetImageFromArray(spline_coefficients(torch.from_numpy(sitk.GetArrayFromImage(moving))).numpy())


def deform(
    moving: sitk.Image,
    dvf: SyntheticDVF,
    *,
    noise_sd: float,
    rng: np.random.Generator,
    boxes: Sequence[Box] | None = None,
    coefficients: sitk.Image | None = None,
) -> sitk.Image:
    """The fixed image of a synthetic pair: ``I_M(x + u(x))`` by cubic B-splines, plus Gaussian noise, int16 HU.

    Parameters
    ----------
    moving
        The moving image, on the grid of `dvf`. Its border values continue outside.
    dvf
        The field ``u``.
    noise_sd
        Standard deviation of the noise, in HU.
    rng
        Source of the noise.
    boxes
        The parts to deform (`reachable_boxes`), everything if None. Outside, the result equals the moving image.
    coefficients
        From `bspline_coefficients`, if one moving image is deformed several times; computed if None.
    """
    coefficients = coefficients or bspline_coefficients(moving)
    values = sitk.GetArrayFromImage(moving)
    warper = sitk.WarpImageFilter()
    warper.SetInterpolator(sitk.sitkBSplineResamplerOrder3)
    everything = [tuple(slice(0, count) for count in values.shape)]
    for part, displacement in chain.from_iterable(map(dvf.in_voxels, everything if boxes is None else boxes)):
        field = sitk.Compose(*map(sitk.GetImageFromArray, displacement.numpy()))
        field.SetOrigin([along.start for along in part[::-1]])
        warper.SetOutputParameteresFromImage(field)
        warped = sitk.GetArrayFromImage(warper.Execute(coefficients, field))
        warped += noise_sd * rng.standard_normal(warped.shape, np.float32)
        values[part] = np.clip(np.round(warped), AIR_HU, 32767)
    return dvf.grid.image(values)


def other_scan(image: sitk.Image, appearance: Appearance, rng: np.random.Generator) -> sitk.Image:
    """A CT image, int16 HU, as another scan of the patient might show it: changed as `regnet.synthesis.appearance` does."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    values = torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.float32))
    return _int16(change(values[None, None], appearance, generator)[0, 0], image)


def source_scan(image: sitk.Image, rng: np.random.Generator) -> sitk.Image:
    """The image that both images of a pair come from: a random share softer than `image`."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    values = torch.from_numpy(sitk.GetArrayFromImage(image).astype(np.float32))
    return _int16(source_of_pair(values[None, None], generator)[0, 0], image)


def slide(
    fixed: sitk.Image, mask: sitk.Image, rng: np.random.Generator, *, border: float, boxes: Sequence[Box] | None = None
) -> sitk.Image:
    """Move what is not lung in the fixed image of a synthetic pair by a further field: the chest wall slides along lungs.

    Parameters
    ----------
    fixed
        The fixed image.
    mask
        Its lungs, which stay as they are. Lung that would come to lie outside them is soft tissue there.
    rng
        Source of the field.
    border
        As in `regnet.synthesis.random_fields.draw_field`.
    boxes
        The parts to change, everything if None.
    """
    further = random_dvf(Grid.of(fixed), sigma=40.0, points=100, theta=6.0, border=border, rng=rng)
    outside = sitk.GetArrayFromImage(deform(fixed, further, noise_sd=0, rng=rng, boxes=boxes))
    lungs = sitk.GetArrayViewFromImage(mask) != 0
    # With the border: there the interpolated values are between lung and tissue.
    was_lung = sitk.GetArrayFromImage(deform_mask(sitk.BinaryDilate(mask, (2, 2, 2)), further)) != 0
    outside[was_lung] = rng.uniform(*SOFT_TISSUE_HU)
    return Grid.of(fixed).image(np.where(lungs, sitk.GetArrayViewFromImage(fixed), outside))


def _int16(values: torch.Tensor, like: sitk.Image) -> sitk.Image:
    return Grid.of(like).image(np.clip(np.round(values.numpy()), AIR_HU, 32767).astype(np.int16))


def deform_mask(mask: sitk.Image, dvf: SyntheticDVF) -> sitk.Image:
    """Deform the lung mask of the moving image of a synthetic pair to that of its fixed image: nearest neighbour, uint8.

    Raises
    ------
    InputError
        If the mask is empty.
    """
    values = torch.from_numpy(sitk.GetArrayFromImage(mask))
    warped = torch.zeros_like(values)
    _, rows, columns = values.shape
    for part, displacement in dvf.in_voxels(_around(values.numpy() != 0, dvf.reach)):
        x, y, z = displacement.add_(0.5).floor_().to(torch.int32)
        first = [torch.arange(along.start, along.stop, dtype=torch.int32) for along in part]
        source = (z + first[0][:, None, None]).mul_(rows).add_(y + first[1][:, None]).mul_(columns).add_(x + first[2])
        warped[part] = values.take(source.long())
    return dvf.grid.image(warped.numpy())


def _around(inside: np.ndarray, reach: int) -> Box:
    """The part of a volume that is at most `reach` voxels from the bounding box of a mask."""
    box = bounding_box(inside, reach)
    if not box:
        raise InputError("the lung mask is empty, expected voxels to sample patches from")
    return box


def draw_samples(
    dvf: SyntheticDVF,
    mask: sitk.Image,
    count: int,
    block: int,
    rng: np.random.Generator,
) -> Samples:
    """Draw samples of a synthetic pair: block centres in the lungs of its fixed image, and the true displacements there.

    Parameters
    ----------
    dvf
        The field of the pair.
    mask
        Lungs of the fixed image, on the grid of `dvf`.
    count
        Number of samples.
    block
        Outputs per axis of a sample.
    rng
        Source of the random numbers.

    Raises
    ------
    InputError
        If the mask is empty.
    """
    centres = sample_centres(sitk.GetArrayViewFromImage(mask), count, rng)
    displacements = dvf.at(output_points(centres, block))
    return Samples(centres, dvf.grid.to_voxels(displacements).astype(np.float32))
