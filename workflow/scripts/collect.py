"""Put tables of errors into one."""

from pathlib import Path

from regnet.evaluation.long_tables import (
    FIELD_ERROR_COLUMNS,
    LANDMARK_COLUMNS,
    POINT_COLUMNS,
    REGULARITY_COLUMNS,
    collect,
    read_errors,
    write_errors,
)
from regnet.system.jobs import log_to

TABLES = {
    "landmarks": LANDMARK_COLUMNS,
    "synthetic": POINT_COLUMNS,
    "regularity": REGULARITY_COLUMNS,
    "field_errors": FIELD_ERROR_COLUMNS,
}

with log_to(snakemake.log[0]):
    columns = TABLES[Path(snakemake.output.errors).stem]
    tables = [read_errors(path, columns) for path in snakemake.input.errors]
    write_errors(collect(tables, columns), snakemake.output.errors)
