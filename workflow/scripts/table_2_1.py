"""Make Table 2.1."""

import pandas as pd

from regnet.jobs import log_to
from regnet.records import LANDMARK_COLUMNS, POINT_COLUMNS, read_errors
from regnet.tables import table_2_1, write_table

with log_to(snakemake.log[0]):
    inputs, output = snakemake.input, snakemake.output
    curves = zip(snakemake.params.variants, inputs.curves, strict=True)
    seen = {variant: pd.read_csv(path).iloc[-1][["blocks", "patches"]].astype(int).to_dict() for variant, path in curves}
    landmarks = read_errors(inputs.landmarks, LANDMARK_COLUMNS)
    synthetic = read_errors(inputs.synthetic, POINT_COLUMNS)
    write_table(table_2_1(landmarks, synthetic, seen), output.csv, output.md, output.tex)
