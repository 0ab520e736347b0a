"""Make Table 2.1."""

from regnet.evaluation.long_tables import LANDMARK_COLUMNS, POINT_COLUMNS, read_errors
from regnet.learning.weight_files import load_network
from regnet.presentation.table_2_1 import table_2_1, write_table
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, output = snakemake.input, snakemake.output
    facts = {variant: load_network(path)[1] for variant, path in zip(snakemake.params.variants, inputs.weights, strict=True)}
    seen = {variant: {kind: one[f"{kind}_seen"] for kind in ("blocks", "patches")} for variant, one in facts.items()}
    landmarks = read_errors(inputs.landmarks, LANDMARK_COLUMNS)
    synthetic = read_errors(inputs.synthetic, POINT_COLUMNS)
    write_table(table_2_1(landmarks, synthetic, seen), output.csv, output.md, output.tex)
