"""Register a pair with the trained network, or coarse to fine with several."""

import torch

from regnet.images.transforms import read_transform, write_transform
from regnet.images.volumes import Grid, read_ct, read_mask
from regnet.learning.devices import device_name, pick_device
from regnet.learning.weight_files import load_network
from regnet.registration.regnet import Stage, register_stages
from regnet.system.jobs import log_to
from regnet.system.machine import write_machine

with log_to(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    inputs, params = snakemake.input, snakemake.params
    stages = []
    masks = inputs.fixed_mask or [None] * len(inputs.weights)
    for weights, spacing, fixed, moving, mask in zip(
        inputs.weights, params.spacings, inputs.fixed, inputs.moving, masks, strict=True
    ):
        network, facts = load_network(weights, spacing=spacing)
        image = read_ct(fixed)
        lungs = read_mask(mask, Grid.of(image)) if mask else None
        stages.append(Stage(network, facts["window"], image, read_ct(moving), lungs))
    transform = register_stages(
        stages,
        read_transform(inputs.initial),
        passes=params.passes,
        mirrors=params.mirrors,
        smoothing=params.smoothing,
        stride=params.stride,
        precision=params.precision,
        max_memory_gib=params.max_memory_gib,
        device=pick_device(snakemake.resources.gpu),
    )
    write_transform(transform, snakemake.output.transform)
    write_machine(snakemake.output.machine, device_name(snakemake.resources.gpu, snakemake.threads))
