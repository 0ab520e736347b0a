"""Register a pair with the trained network, or coarse to fine with several."""

import torch

from regnet.errors import RegistrationError
from regnet.images.transforms import read_transform, write_transform
from regnet.images.volumes import Grid, read_ct, read_mask
from regnet.learning.devices import device_name, pick_device
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.weight_files import load_network
from regnet.registration.regnet import Stage
from regnet.registration.run import register_pair
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
    *coarser, finest = stages
    settings = {
        "module": "regnet",
        "network": finest.network,
        "window": finest.window,
        "coarser": coarser,
        "inference": InferenceSettings(**params.inference),
        "device": pick_device(snakemake.resources.gpu),
    }
    try:
        transform = register_pair(
            finest.fixed,
            finest.moving,
            settings,
            fixed_mask=finest.mask,
            initial=read_transform(inputs.initial),
            threads=snakemake.threads,
        )
    except RegistrationError as error:
        raise RegistrationError(f"{snakemake.wildcards.pair}, regnet: {error}") from error
    write_transform(transform, snakemake.output.transform)
    write_machine(snakemake.output.machine, device_name(snakemake.resources.gpu, snakemake.threads))
