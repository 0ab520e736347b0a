"""Measure the error of all methods against the distance after the affine registration."""

from regnet.evaluation.long_tables import LANDMARK_COLUMNS, read_errors
from regnet.evaluation.summaries import capture_curve
from regnet.presentation.comparison import write_capture_curve
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    landmarks = read_errors(snakemake.input.landmarks, LANDMARK_COLUMNS)
    curve = capture_curve(landmarks, seed=snakemake.params.seed)
    write_capture_curve(curve, csv=snakemake.output.csv, md=snakemake.output.md)
