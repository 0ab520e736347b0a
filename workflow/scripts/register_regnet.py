"""Register a pair with the trained network."""

import torch

from regnet.inference import load_network
from regnet.jobs import log_to
from regnet.registration.regnet import register
from regnet.training import pick_device
from regnet.transforms import read_transform, write_transform
from regnet.volumes import Grid, read_ct, read_mask

with log_to(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    inputs, params = snakemake.input, snakemake.params
    network, facts = load_network(inputs.weights)
    fixed = read_ct(inputs.fixed)
    transform = register(
        network,
        fixed,
        read_ct(inputs.moving),
        read_transform(inputs.initial),
        mask=read_mask(inputs.fixed_mask, Grid.of(fixed)) if inputs.fixed_mask else None,
        window=facts["window"],
        passes=params.passes,
        stride=params.stride,
        precision=params.precision,
        max_memory_gib=params.max_memory_gib,
        device=pick_device(snakemake.resources.gpu),
    )
    write_transform(transform, snakemake.output.transform)
