"""Draw accuracy against seconds."""

from regnet.evaluation.long_tables import read_table
from regnet.presentation.comparison import COLUMNS
from regnet.presentation.figures.comparison import figure_accuracy_time
from regnet.presentation.figures.style import save_figure
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    figure = figure_accuracy_time(read_table(snakemake.input.comparison, COLUMNS), snakemake.params.capture_range)
    save_figure(figure, snakemake.output.png, snakemake.output.pdf)
