"""Segment the lungs of an image that comes without a mask."""

from regnet.images.lungs import segment_lungs
from regnet.images.volumes import read_ct, write_image
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    write_image(segment_lungs(read_ct(snakemake.input.image), snakemake.input.image), snakemake.output.mask)
