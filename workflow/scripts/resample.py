"""Resample an image and its lung mask to an isotropic grid."""

import logging

from regnet.images.lung_masks import refuse_other_than_lungs
from regnet.images.volumes import Grid, read_ct, read_mask, resample_ct, resample_mask, write_image
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    image = read_ct(snakemake.input.image)
    mask = read_mask(snakemake.input.mask, Grid.of(image))
    refuse_other_than_lungs(mask, image, snakemake.input.mask)
    grid = Grid.of(image).isotropic(float(snakemake.wildcards.spacing))
    logging.info("from %s to %s", Grid.of(image), grid)
    write_image(resample_ct(image, grid), snakemake.output.image)
    write_image(resample_mask(mask, grid), snakemake.output.mask)
