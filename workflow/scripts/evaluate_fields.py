"""Measure all methods everywhere in the lungs of a pair whose true DVF is known."""

from regnet.evaluation.field_errors import pair_field_errors
from regnet.evaluation.long_tables import write_errors
from regnet.images.transforms import read_field, read_transform
from regnet.images.volumes import read_mask
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs = snakemake.input
    transforms = dict(zip(snakemake.params.methods, map(read_transform, inputs.transforms), strict=True))
    truth, mask = read_field(inputs.truth), read_mask(inputs.mask)
    write_errors(pair_field_errors(snakemake.wildcards.pair, transforms, truth, mask), snakemake.output.errors)
