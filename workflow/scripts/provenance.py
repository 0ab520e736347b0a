"""Write beside each table what it comes from."""

from regnet.experiment.provenance import read_facts, write_provenance
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    facts, files = read_facts(snakemake.input.facts), iter(snakemake.input.tables)
    for suffixes, path in zip(snakemake.params.tables.values(), snakemake.output, strict=True):
        write_provenance(facts, [next(files) for _ in suffixes], path)
