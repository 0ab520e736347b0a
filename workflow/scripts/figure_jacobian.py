"""Draw the Jacobian determinants of all methods."""

from regnet.evaluation.long_tables import REGULARITY_COLUMNS, read_errors
from regnet.presentation.figures.fields import figure_jacobian
from regnet.presentation.figures.style import save_figure
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    figure = figure_jacobian(read_errors(snakemake.input.regularity, REGULARITY_COLUMNS), snakemake.input.slices)
    save_figure(figure, snakemake.output.png, snakemake.output.pdf)
