"""Keep the error of the whole field on one slice of a test pair whose true DVF is known."""

from regnet.evaluation.long_tables import save_slices
from regnet.images.transforms import read_field, read_transform
from regnet.images.volumes import read_ct, read_mask
from regnet.presentation.slices import field_error_slices
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, pair = snakemake.input, snakemake.params.pair
    transforms = dict(zip(snakemake.params.methods, map(read_transform, inputs.transforms), strict=True))
    images, truth = (read_ct(inputs.fixed), read_mask(inputs.mask)), read_field(inputs.truth)
    save_slices(snakemake.output.slices, field_error_slices(pair, *images, transforms, truth))
