"""Draw how close the methods bring how many landmarks."""

from regnet.evaluation.long_tables import LANDMARK_COLUMNS, read_errors, read_table
from regnet.presentation.comparison import COLUMNS
from regnet.presentation.figures.comparison import figure_comparison
from regnet.presentation.figures.style import save_figure
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    landmarks = read_errors(snakemake.input.landmarks, LANDMARK_COLUMNS)
    figure = figure_comparison(landmarks, read_table(snakemake.input.comparison, COLUMNS), snakemake.params.capture_range)
    save_figure(figure, snakemake.output.png, snakemake.output.pdf)
