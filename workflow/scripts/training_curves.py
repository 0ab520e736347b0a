"""Draw the curves of a training."""

from regnet.figures.style import save_figure
from regnet.figures.training import CURVES, training_curves
from regnet.jobs import log_to
from regnet.records import read_table

with log_to(snakemake.log[0]):
    save_figure(training_curves(read_table(snakemake.input.curves, CURVES)), snakemake.output.png, snakemake.output.pdf)
