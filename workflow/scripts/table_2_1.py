"""Make Table 2.1."""

from regnet.evaluation.long_tables import LANDMARK_COLUMNS, POINT_COLUMNS, read_errors
from regnet.presentation.table_2_1 import table_2_1, write_table
from regnet.system.files import read_json
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, output = snakemake.input, snakemake.output
    facts = {variant: read_json(path) for variant, path in zip(snakemake.params.variants, inputs.facts, strict=True)}
    landmarks = read_errors(inputs.landmarks, LANDMARK_COLUMNS)
    synthetic = read_errors(inputs.synthetic, POINT_COLUMNS)
    write_table(table_2_1(landmarks, synthetic, facts), output.csv, output.md, output.tex)
