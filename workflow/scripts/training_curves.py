"""Draw the curves of a training."""

import pandas as pd

from regnet.figures.style import save_figure
from regnet.figures.training import training_curves
from regnet.jobs import log_to

with log_to(snakemake.log[0]):
    save_figure(training_curves(pd.read_csv(snakemake.input.curves)), snakemake.output.png, snakemake.output.pdf)
