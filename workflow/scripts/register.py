"""Register a pair with a method of the config."""

from regnet.conventions import job_seed
from regnet.errors import RegistrationError
from regnet.images.transforms import read_transform, write_transform
from regnet.images.volumes import read_ct, read_mask
from regnet.registration.run import register_pair
from regnet.system.jobs import log_to
from regnet.system.machine import write_machine

with log_to(snakemake.log.job):
    inputs, params = snakemake.input, snakemake.params
    method, pair = snakemake.wildcards.method, snakemake.wildcards.pair
    try:
        transform = register_pair(
            read_ct(inputs.fixed),
            read_ct(inputs.moving),
            params.settings,
            fixed_mask=read_mask(inputs.fixed_mask),
            moving_mask=read_mask(inputs.moving_mask),
            initial=read_transform(inputs.initial) if inputs.initial else None,
            margin=params.margin,
            seed=job_seed(params.seed, method, pair),
            threads=params.threads,
            gpus=snakemake.resources.gpu,
            tool_log=snakemake.log.tool,
        )
    except RegistrationError as error:
        raise RegistrationError(f"{pair}, {method}: {error}") from error
    write_transform(transform, snakemake.output.transform)
    write_machine(snakemake.output.machine)
