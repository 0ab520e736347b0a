"""Make the table that compares the methods, and the tests between them."""

from regnet.evaluation.long_tables import FIELD_ERROR_COLUMNS, LANDMARK_COLUMNS, REGULARITY_COLUMNS, RUN_COLUMNS, read_errors
from regnet.evaluation.significance import paired_tests
from regnet.evaluation.summaries import FURTHER_CAPTURE_RANGES, accuracy, accurate_ranges, capture_curve
from regnet.presentation.comparison import comparison, costs, write_comparison
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, output, params = snakemake.input, snakemake.output, snakemake.params
    landmarks = read_errors(inputs.landmarks, LANDMARK_COLUMNS)
    field_errors = read_errors(inputs.field_errors, FIELD_ERROR_COLUMNS) if inputs.field_errors else None
    capture_ranges = list(dict.fromkeys([params.capture_range, *FURTHER_CAPTURE_RANGES]))
    ranges = accurate_ranges(capture_curve(landmarks, seed=params.seed))
    runs, regularity = read_errors(inputs.runs, RUN_COLUMNS), read_errors(inputs.regularity, REGULARITY_COLUMNS)
    write_comparison(
        comparison(accuracy(landmarks, capture_ranges, seed=params.seed), costs(runs, regularity, field_errors, ranges)),
        paired_tests(landmarks, capture_ranges),
        csv=output.csv,
        tests_csv=output.tests,
        md=output.md,
        tex=output.tex,
        capture_range=params.capture_range,
    )
