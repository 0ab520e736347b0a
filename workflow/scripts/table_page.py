"""Make the page of the report that shows a table."""

from pathlib import Path

from regnet.presentation.report import write_page
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    write_page(snakemake.output.page, snakemake.params.title, Path(snakemake.input.table).read_text(encoding="utf-8"))
