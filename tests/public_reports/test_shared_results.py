"""Text in the header of a scan, such as the patient's name, reaches no image that is written.

From public reports of tools that copy DICOM tags and comments of headers into files that are then shared.
"""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.images.transforms import warp
from regnet.images.volumes import IDENTITY, Grid, read_ct, read_mask, resample_ct, write_image

NAME = "DOE^JANE"


@pytest.mark.parametrize("suffix", ["nii", "mha", "nrrd"])
def test_no_text_of_a_header_is_written(suffix, tmp_path):
    array = np.random.default_rng(0).integers(-900, 100, (8, 8, 8)).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    for key in ("ITK_FileNotes", "aux_file", "0010|0010"):
        image.SetMetaData(key, NAME)
    path = tmp_path / f"scan.{suffix}"
    sitk.WriteImage(image, path)
    assert NAME.encode() in path.read_bytes()
    scan, grid = read_ct(path), Grid.of(image)
    results = [
        scan,
        resample_ct(scan, grid),
        resample_ct(scan, grid.isotropic(2.0)),
        warp(scan, IDENTITY, grid),
        read_mask(path),
    ]
    for result in results:
        write_image(result, tmp_path / "result.nii.gz")
        assert NAME.encode() not in gzip.decompress((tmp_path / "result.nii.gz").read_bytes())
