"""Draw Figure 2.5."""

from regnet.presentation.figures.chapter import figure_2_5
from regnet.presentation.figures.style import save_figure
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    save_figure(figure_2_5(snakemake.input.slices), snakemake.output.png, snakemake.output.pdf)
