"""Take released weights, or others that are there, for the experiment."""

from pathlib import Path

from regnet.learning.weight_files import load_network
from regnet.system.files import whole_file, write_json
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    given, spacing = snakemake.input.weights, snakemake.params.spacing
    _, facts = load_network(given, variant=snakemake.wildcards.variant, spacing=spacing)
    with whole_file(snakemake.output.weights) as partial:
        partial.write_bytes(Path(given).read_bytes())
    write_json(snakemake.output.facts, facts)
