"""Put the seconds and the memory of all registrations into one long table."""

import pandas as pd

from regnet.evaluation.long_tables import RUN_COLUMNS, read_benchmark, write_errors
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    rows = zip(snakemake.params.runs, snakemake.input.benchmarks, strict=True)
    runs = pd.DataFrame([(*run, *read_benchmark(path)) for run, path in rows], columns=list(RUN_COLUMNS))
    write_errors(runs, snakemake.output.runs)
