"""Draw Figure 2.3."""

from regnet.evaluation.long_tables import LANDMARK_COLUMNS, read_errors
from regnet.presentation.figures.chapter import figure_2_3
from regnet.presentation.figures.style import save_figure
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    landmarks = read_errors(snakemake.input.landmarks, LANDMARK_COLUMNS)
    figure = figure_2_3(landmarks, snakemake.params.capture_range)
    save_figure(figure, snakemake.output.png, snakemake.output.pdf)
