"""Put tables of errors into one."""

from regnet.evaluation import long_tables as records
from regnet.system.jobs import log_to

TABLES = {
    "landmarks": records.LANDMARK_COLUMNS,
    "synthetic": records.POINT_COLUMNS,
    "regularity": records.REGULARITY_COLUMNS,
    "field_errors": records.FIELD_ERROR_COLUMNS,
}

with log_to(snakemake.log[0]):
    columns = TABLES[snakemake.params.table]
    tables = [records.read_errors(path, columns) for path in snakemake.input.errors]
    records.write_errors(records.collect(tables, columns), snakemake.output.errors)
