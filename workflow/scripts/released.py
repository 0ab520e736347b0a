"""Take released weights, or others that are there, for the experiment."""

from pathlib import Path

from regnet.learning.weight_files import load_network
from regnet.system.files import whole_file
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    given, spacing = snakemake.input.weights, snakemake.params.spacing
    load_network(given, variant=snakemake.wildcards.variant, spacing=spacing)
    with whole_file(snakemake.output.weights) as partial:
        partial.write_bytes(Path(given).read_bytes())
