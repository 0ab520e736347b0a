"""Put tables of errors into one."""

from regnet.evaluation import LANDMARK_COLUMNS, POINT_COLUMNS, collect, read_errors, write_errors
from regnet.jobs import log_to

with log_to(snakemake.log[0]):
    columns = {"landmarks": LANDMARK_COLUMNS, "synthetic": POINT_COLUMNS}[snakemake.params.table]
    tables = [read_errors(path, columns) for path in snakemake.input.errors]
    write_errors(collect(tables, columns), snakemake.output.errors)
