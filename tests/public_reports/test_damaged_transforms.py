"""Damaged transform files: a file that is cut off gives our error, and never another transform.

Public reports: the same kind as ITK issue 6575 and MetaIO issue 142 for volumes. Of a ``.tfm`` or ``.mat`` that is cut off, ITK
reads the numbers that are there.
"""

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.images.transforms import compose, read_transform

POINT = (3.0, 4.0, 5.0)

AFFINE = sitk.AffineTransform([1.1, 0, 0, 0, 1.2, 0, 0, 0, 1.3], [12.5, -7.25, 3.125], [5, 6, 7])


@pytest.mark.parametrize("suffix", [".tfm", ".txt", ".mat", ".h5", ".xfm"])
def test_a_transform_that_is_cut_off_is_refused(suffix, tmp_path):
    path = tmp_path / f"transform{suffix}"
    sitk.WriteTransform(AFFINE, path)
    expected = read_transform(path).TransformPoint(POINT)
    np.testing.assert_allclose(expected, AFFINE.TransformPoint(POINT))
    data = path.read_bytes()
    lengths = range(0, len(data), max(1, len(data) // 150))
    refused = 0
    for length in lengths:
        path.write_bytes(data[:length])
        try:
            moved = read_transform(path).TransformPoint(POINT)
        except InputError:
            refused += 1
            continue
        np.testing.assert_allclose(moved, expected)
    # The last line end of an .xfm has no meaning.
    assert refused >= len(lengths) - 2


def test_composites_and_crlf_are_read(tmp_path):
    composite = compose(AFFINE, sitk.TranslationTransform(3, (1.0, 2.0, 3.0)))
    for suffix in (".tfm", ".h5"):
        sitk.WriteTransform(composite, tmp_path / f"both{suffix}")
        np.testing.assert_allclose(
            read_transform(tmp_path / f"both{suffix}").TransformPoint(POINT), composite.TransformPoint(POINT)
        )
    text = (tmp_path / "both.tfm").read_bytes()
    (tmp_path / "both.tfm").write_bytes(text.replace(b"\n", b"\r\n"))
    np.testing.assert_allclose(read_transform(tmp_path / "both.tfm").TransformPoint(POINT), composite.TransformPoint(POINT))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    field = sitk.Image((6, 5, 4), sitk.sitkVectorFloat64, 3)
    field[2, 2, 2] = (0.0, np.nan, 0.0)
    for number, transform in enumerate(
        (sitk.TranslationTransform(3, (np.nan, 0.0, 0.0)), sitk.DisplacementFieldTransform(field))
    ):
        sitk.WriteTransform(transform, tmp_path / f"{number}.h5")
        with pytest.raises(InputError, match=rf"{number}\.h5: found a transform with numbers that are not finite"):
            read_transform(tmp_path / f"{number}.h5")
