"""Real DICOM series for tests, written slice by slice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_series(
    folder: Path,
    positions: Sequence[float],
    uid: str,
    description: str = "Thorax",
    *,
    modality: str = "CT",
    orientation: str = "1\\0\\0\\0\\1\\0",
    shear: float = 0.0,
    slices: Sequence[np.ndarray] | None = None,
    spacing: float = 0.8,
) -> None:
    """Write slices at positions along z, in mm; y moves by `shear` per mm; values rise by 10 HU a slice if none are given."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, z in enumerate(positions):
        values = np.full((20, 24), -1000 + 10 * number, np.int16) if slices is None else slices[number]
        image = sitk.GetImageFromArray(values)
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{number + 1}",
            "0008|0060": modality,
            "0008|103e": description,
            "0020|000d": f"{uid}.0",
            "0020|000e": uid,
            "0020|0032": f"-10\\{5 + shear * z:g}\\{z:g}",
            "0020|0037": orientation,
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        image.SetSpacing((spacing, spacing))
        writer.SetFileName(f"{folder}/{uid.rpartition('.')[2]}_{number:02}.dcm")
        writer.Execute(image)
