"""Measure the error of all methods against the distance after the affine registration."""

from regnet.evaluation.long_tables import LANDMARK_COLUMNS, read_errors
from regnet.evaluation.summaries import capture_curve
from regnet.presentation.comparison import write_capture_curve
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    settings, output = snakemake.params.evaluation, snakemake.output
    landmarks = read_errors(snakemake.input.landmarks, LANDMARK_COLUMNS)
    samples, seed = settings["bootstrap_samples"], snakemake.params.seed
    curve = capture_curve(landmarks, settings["distance_bins"], samples=samples, seed=seed)
    write_capture_curve(curve, settings["accurate_within"], csv=output.csv, md=output.md)
