"""Keep one slice of a test pair under all transforms, and their Jacobian determinants there."""

from regnet.evaluation.long_tables import save_slices
from regnet.images.transforms import read_transform
from regnet.images.volumes import read_ct, read_mask
from regnet.presentation.slices import example_slices, jacobian_slices
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, pair = snakemake.input, snakemake.params.pair
    transforms = dict(zip(snakemake.params.methods, map(read_transform, inputs.transforms), strict=True))
    fixed, mask, moving = read_ct(inputs.fixed), read_mask(inputs.mask), read_ct(inputs.moving)
    save_slices(snakemake.output.slices, example_slices(pair, fixed, mask, moving, transforms))
    save_slices(snakemake.output.jacobian, jacobian_slices(pair, fixed, mask, transforms))
