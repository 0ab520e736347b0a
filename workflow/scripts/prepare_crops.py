"""Put an image and its lung mask into a file from which a training cuts crops without ITK."""

import numpy as np
import SimpleITK as sitk

from regnet.images.volumes import Grid, read_ct, read_mask
from regnet.system.files import whole_file
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    image = read_ct(snakemake.input.image)
    lungs = read_mask(snakemake.input.mask, Grid.of(image))
    arrays = {"hu": sitk.GetArrayViewFromImage(image), "lungs": sitk.GetArrayViewFromImage(lungs)}
    with whole_file(snakemake.output.volume) as partial:
        np.savez(partial, **arrays, spacing=image.GetSpacing()[0])
