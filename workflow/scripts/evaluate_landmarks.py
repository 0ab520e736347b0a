"""Measure all methods on the landmarks of a pair."""

from regnet.evaluation.landmark_errors import pair_errors
from regnet.evaluation.long_tables import write_errors
from regnet.images.landmarks import read_landmark_pair
from regnet.images.transforms import read_transform
from regnet.images.volumes import Grid, read_image
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, params = snakemake.input, snakemake.params
    transforms = {method: read_transform(path) for method, path in zip(params.methods, inputs.transforms, strict=True)}
    fixed, moving = read_landmark_pair(inputs.fixed_landmarks, inputs.moving_landmarks, (inputs.fixed, inputs.moving))
    grid = Grid.of(read_image(inputs.moving))
    errors = pair_errors(snakemake.wildcards.pair, transforms, fixed, moving, params.capture_range, grid)
    write_errors(errors, snakemake.output.errors)
