"""Draw the distributions of what synthetic fields are like."""

from regnet.evaluation.long_tables import DISTRIBUTION_COLUMNS, SUMMARY_COLUMNS, read_errors
from regnet.presentation.figures.style import save_figure
from regnet.presentation.figures.synthesis import figure_field_statistics
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    distributions = read_errors(snakemake.input.distributions, DISTRIBUTION_COLUMNS)
    summary = read_errors(snakemake.input.summary, SUMMARY_COLUMNS)
    save_figure(figure_field_statistics(distributions, summary), snakemake.output.png, snakemake.output.pdf)
