"""Draw the curves of a training."""

from regnet.evaluation.long_tables import read_table
from regnet.presentation.figures.style import save_figure
from regnet.presentation.figures.training import CURVES, training_curves
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    save_figure(training_curves(read_table(snakemake.input.curves, CURVES)), snakemake.output.png, snakemake.output.pdf)
