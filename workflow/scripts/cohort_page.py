"""Make the page of the report about the cohort."""

from regnet.experiment.cohort import read_cohort
from regnet.presentation.report import cohort_page, write_page
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, params = snakemake.input, snakemake.params
    cohort = read_cohort(params.cohort, params.data_root)
    write_page(snakemake.output.page, "Images and pairs", cohort_page(cohort, inputs.resampled, inputs.masks))
