"""Draw the curves of a training."""

from regnet.figures.style import save_figure
from regnet.figures.training import read_curves, training_curves
from regnet.jobs import log_to

with log_to(snakemake.log[0]):
    save_figure(training_curves(read_curves(snakemake.input.curves)), snakemake.output.png, snakemake.output.pdf)
