"""Register a pair with the trained network."""

import torch

from regnet.inference import load_network
from regnet.jobs import log_to
from regnet.registration.regnet import register
from regnet.training import pick_device
from regnet.transforms import read_transform, write_transform
from regnet.volumes import read_ct

with log_to(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    network, facts = load_network(snakemake.input.weights)
    transform = register(
        network,
        read_ct(snakemake.input.fixed),
        read_ct(snakemake.input.moving),
        read_transform(snakemake.input.initial),
        window=facts["window"],
        passes=snakemake.params.passes,
        device=pick_device(snakemake.resources.gpu),
    )
    write_transform(transform, snakemake.output.transform)
