"""Distributions of what the fields of the training images are like."""

import torch

from regnet.evaluation.field_statistics import field_statistics
from regnet.evaluation.long_tables import write_errors
from regnet.synthesis.pairs import SyntheticDVF
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    fields = ((kind, SyntheticDVF.load(path)) for kind, path in zip(snakemake.params.kinds, snakemake.input.dvf, strict=True))
    distributions, summary = field_statistics(fields)
    write_errors(distributions, snakemake.output.distributions)
    write_errors(summary, snakemake.output.summary)
