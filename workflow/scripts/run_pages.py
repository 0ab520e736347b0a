"""Make the pages of the report about the run: how long it took, what it ran on, and its config."""

from regnet.evaluation.long_tables import write_errors
from regnet.presentation.report import config_page, run_times, run_times_page, versions_page, write_page
from regnet.system.jobs import log_to
from regnet.system.machine import versions

with log_to(snakemake.log[0]):
    output = snakemake.output
    times = run_times(snakemake.input.benchmarks)
    write_errors(times, output.times_csv)
    write_page(output.times, "Run times", run_times_page(times))
    write_page(output.versions, "Versions", versions_page(versions()))
    write_page(output.config, "Config", config_page(snakemake.config))
