"""Make Table 2.1."""

import pandas as pd

from regnet.evaluation import LANDMARK_COLUMNS, POINT_COLUMNS, read_errors
from regnet.jobs import log_to
from regnet.tables import table_2_1, write_table

with log_to(snakemake.log[0]):
    inputs, output = snakemake.input, snakemake.output
    patches_seen = {
        variant: int(pd.read_csv(path)["patches"].iloc[-1])
        for variant, path in zip(snakemake.params.variants, inputs.curves, strict=True)
    }
    landmarks = read_errors(inputs.landmarks, LANDMARK_COLUMNS)
    synthetic = read_errors(inputs.synthetic, POINT_COLUMNS)
    write_table(table_2_1(landmarks, synthetic, patches_seen), output.csv, output.md, output.tex)
