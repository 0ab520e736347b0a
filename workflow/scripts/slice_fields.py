"""Keep one slice of three synthetic DVFs for Figure 2.2."""

from regnet.evaluation.long_tables import save_slices
from regnet.images.transforms import field_transform
from regnet.images.volumes import read_ct, read_mask
from regnet.presentation.slices import field_slices
from regnet.synthesis.pairs import SyntheticDVF
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs = snakemake.input
    dvfs = [SyntheticDVF.load(path) for path in inputs.dvf]
    fields = {
        frequency: field_transform(dvf.on_grid(), dvf.grid)
        for frequency, dvf in zip(snakemake.params.frequencies, dvfs, strict=True)
    }
    save_slices(snakemake.output.slices, field_slices(fields, read_ct(inputs.image), read_mask(inputs.mask)))
