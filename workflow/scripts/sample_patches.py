"""Draw the samples of the synthetic pairs of an image."""

import numpy as np
import torch

from regnet.conventions import job_seed
from regnet.errors import InputError
from regnet.images.volumes import read_mask
from regnet.synthesis.pair_names import PairName
from regnet.synthesis.pairs import SyntheticDVF, deform_mask, draw_samples
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    patches, prefix = snakemake.params.patches, "" if snakemake.params.split == "train" else "evaluation_"
    count, block = patches[prefix + "per_pair"], patches[prefix + "block"]
    rng = np.random.default_rng(job_seed(snakemake.params.seed, "sample", snakemake.wildcards.image))
    masks = {"original": read_mask(snakemake.input.mask), "deformed": read_mask(snakemake.input.deformed_mask)}
    for pair, dvf, samples in zip(snakemake.params.pairs, snakemake.input.dvf, snakemake.output.samples, strict=True):
        field = SyntheticDVF.load(dvf)
        try:
            mask = deform_mask(masks[PairName.of(pair).moving], field)
            draw_samples(field, mask, count, block, rng).save(samples)
        except InputError as error:
            raise InputError(f"{snakemake.wildcards.image}, {pair}: {error}") from error
