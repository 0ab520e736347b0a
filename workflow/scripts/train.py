"""Train RegNet or one of its variants."""

import torch

from regnet.conventions import job_seed
from regnet.inference import save_network
from regnet.jobs import log_to
from regnet.network import RegNet
from regnet.patches import SamplePool
from regnet.training import pick_device, train, write_curves

with log_to(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    params, inputs, variant = snakemake.params, snakemake.input, snakemake.wildcards.variant
    window = tuple(params.window)
    trainer = train(
        variant,
        SamplePool(inputs.training, inputs.training_fixed, inputs.training_moving, window),
        SamplePool(inputs.validation, inputs.validation_fixed, inputs.validation_moving, window),
        params.training,
        params.synthesis,
        spacing=params.spacing,
        seed=job_seed(params.seed, "train", variant),
        device=pick_device(snakemake.resources.gpu),
    )
    facts = {
        "spacing": params.spacing,
        "window": window,
        "blocks_seen": trainer.blocks,
        "patches_seen": trainer.patches,
        "seed": params.seed,
    }
    save_network(trainer.network, snakemake.output.last, **facts)
    best = RegNet(variant)
    best.load_state_dict(trainer.best_weights)
    save_network(best, snakemake.output.best, **facts)
    write_curves(trainer.rows, snakemake.output.curves)
