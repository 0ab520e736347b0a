"""Train the feature pyramid."""

import torch

from regnet.conventions import job_seed
from regnet.learning.devices import device_name
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.training_job import PyramidJob
from regnet.learning.weight_files import load_network
from regnet.system.files import write_json
from regnet.system.jobs import log_to
from regnet.system.machine import write_machine

# Where there are several GPUs, each of their processes imports this file again.
if __name__ == "__main__":
    with log_to(snakemake.log[0]):
        params, inputs, outputs, gpus = snakemake.params, snakemake.input, snakemake.output, snakemake.resources.gpu
        job = PyramidJob(
            training=tuple(inputs.training),
            validation=tuple(inputs.validation),
            settings=params.settings,
            window=tuple(params.window),
            seed=job_seed(params.seed, "train", RegNetPyramid.variant),
            facts={"seed": params.seed},
            threads=snakemake.threads,
            gpus=gpus,
            code=tuple(inputs.code),
            checkpoints=params.checkpoints,
            events=params.events,
            best=outputs.best,
            last=outputs.last,
            curves=outputs.curves,
            start=inputs.start or None,
        )
        job.run(processes=max(1, min(gpus, torch.cuda.device_count())))
        write_json(outputs.facts, load_network(outputs.best)[1])
        write_machine(outputs.machine, device_name(gpus, snakemake.threads))
