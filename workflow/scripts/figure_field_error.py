"""Draw the errors of the whole field."""

from regnet.evaluation.long_tables import FIELD_ERROR_COLUMNS, read_errors
from regnet.presentation.figures.fields import figure_field_error
from regnet.presentation.figures.style import save_figure
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    figure = figure_field_error(read_errors(snakemake.input.field_errors, FIELD_ERROR_COLUMNS), snakemake.input.slices)
    save_figure(figure, snakemake.output.png, snakemake.output.pdf)
