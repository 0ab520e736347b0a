"""Make the table that compares the methods, and the tests between them."""

from regnet.evaluation.long_tables import FIELD_ERROR_COLUMNS, LANDMARK_COLUMNS, REGULARITY_COLUMNS, RUN_COLUMNS, read_errors
from regnet.evaluation.significance import paired_tests
from regnet.evaluation.summaries import accuracy, capture_curve, held_ranges
from regnet.presentation.comparison import comparison, costs, write_comparison
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, output, settings = snakemake.input, snakemake.output, snakemake.params.evaluation
    landmarks = read_errors(inputs.landmarks, LANDMARK_COLUMNS)
    field_errors = read_errors(inputs.field_errors, FIELD_ERROR_COLUMNS) if inputs.field_errors else None
    draws = {"samples": settings["bootstrap_samples"], "seed": snakemake.params.seed}
    capture_ranges = list(dict.fromkeys([settings["capture_range"], *settings["further_capture_ranges"]]))
    held = held_ranges(capture_curve(landmarks, settings["distance_bins"], **draws), settings["accurate_within"])
    runs, regularity = read_errors(inputs.runs, RUN_COLUMNS), read_errors(inputs.regularity, REGULARITY_COLUMNS)
    write_comparison(
        comparison(accuracy(landmarks, capture_ranges, **draws), costs(runs, regularity, field_errors, held)),
        paired_tests(landmarks, capture_ranges),
        csv=output.csv,
        tests_csv=output.tests,
        md=output.md,
        tex=output.tex,
        capture_range=settings["capture_range"],
        accurate=settings["accurate_within"],
    )
