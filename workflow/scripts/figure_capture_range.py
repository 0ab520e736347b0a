"""Draw the error against the distance after the affine registration."""

from regnet.evaluation.long_tables import read_table
from regnet.evaluation.summaries import CURVE_COLUMNS
from regnet.presentation.figures.comparison import figure_capture_range
from regnet.presentation.figures.style import save_figure
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    curve = read_table(snakemake.input.curve, CURVE_COLUMNS)
    figure = figure_capture_range(curve, snakemake.params.capture_range)
    save_figure(figure, snakemake.output.png, snakemake.output.pdf)
