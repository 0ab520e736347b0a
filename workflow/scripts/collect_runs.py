"""Put the seconds and the memory of all registrations into one long table."""

import pandas as pd

from regnet.evaluation.long_tables import RUN_COLUMNS, read_benchmark, write_errors
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    rows = []
    for run, path in zip(snakemake.params.runs, snakemake.input.benchmarks, strict=True):
        job = read_benchmark(path)
        rows.append((*run, job["s"], job["max_rss"]))
    write_errors(pd.DataFrame(rows, columns=list(RUN_COLUMNS)), snakemake.output.runs)
