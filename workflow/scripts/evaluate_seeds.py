"""Measure the spread of the landmark errors over seeds."""

from regnet.evaluation.landmark_errors import seed_spread
from regnet.evaluation.long_tables import LANDMARK_COLUMNS, collect, read_errors, write_errors
from regnet.images.transforms import read_transform
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, params = snakemake.input, snakemake.params
    errors = collect([read_errors(path, LANDMARK_COLUMNS) for path in inputs.errors], LANDMARK_COLUMNS)
    repeats = [(*names, read_transform(path)) for names, path in zip(params.again, inputs.again, strict=True)]
    write_errors(seed_spread(errors, repeats), snakemake.output.spread)
