"""Measure the Jacobian determinants of all methods in the lungs of a pair."""

from regnet.evaluation.field_errors import pair_regularity
from regnet.evaluation.long_tables import write_errors
from regnet.images.transforms import read_transform
from regnet.images.volumes import read_mask
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs = snakemake.input
    transforms = dict(zip(snakemake.params.methods, map(read_transform, inputs.transforms), strict=True))
    write_errors(pair_regularity(snakemake.wildcards.pair, transforms, read_mask(inputs.mask)), snakemake.output.regularity)
