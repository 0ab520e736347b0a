"""Keep one slice of a test pair under several transforms for Figure 2.5."""

from regnet.evaluation import example_slices, save_slices
from regnet.jobs import log_to
from regnet.transforms import read_transform
from regnet.volumes import read_ct, read_mask

with log_to(snakemake.log[0]):
    inputs, params = snakemake.input, snakemake.params
    transforms = {method: read_transform(path) for method, path in zip(params.methods, inputs.transforms, strict=True)}
    images = read_ct(inputs.fixed), read_mask(inputs.mask), read_ct(inputs.moving)
    save_slices(snakemake.output.slices, example_slices(params.pair, *images, transforms))
