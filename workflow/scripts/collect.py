"""Put tables of errors into one."""

from regnet.evaluation import long_tables
from regnet.system.jobs import log_to

TABLES = {
    "landmarks": long_tables.LANDMARK_COLUMNS,
    "synthetic": long_tables.POINT_COLUMNS,
    "regularity": long_tables.REGULARITY_COLUMNS,
    "field_errors": long_tables.FIELD_ERROR_COLUMNS,
}

with log_to(snakemake.log[0]):
    columns = TABLES[snakemake.params.table]
    tables = [long_tables.read_errors(path, columns) for path in snakemake.input.errors]
    long_tables.write_errors(long_tables.collect(tables, columns), snakemake.output.errors)
