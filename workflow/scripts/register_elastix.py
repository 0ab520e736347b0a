"""Register a pair with elastix."""

from regnet.conventions import job_seed
from regnet.errors import RegistrationError
from regnet.jobs import log_to
from regnet.registration.elastix import register
from regnet.transforms import read_transform, write_transform
from regnet.volumes import read_ct, read_mask

OVERRIDES = {
    "resolutions": "NumberOfResolutions",
    "iterations": "MaximumNumberOfIterations",
    "grid_spacing": "FinalGridSpacingInPhysicalUnits",
}

with log_to(snakemake.log.job):
    inputs, params = snakemake.input, snakemake.params
    method, pair = snakemake.wildcards.method, snakemake.wildcards.pair
    try:
        transform = register(
            read_ct(inputs.fixed),
            read_ct(inputs.moving),
            inputs.parameters,
            log=snakemake.log.elastix,
            fixed_mask=read_mask(inputs.fixed_mask),
            initial=read_transform(inputs.initial) if inputs.initial else None,
            overrides={OVERRIDES[key]: value for key, value in params.settings.items() if key in OVERRIDES},
            seed=job_seed(params.seed, method, pair),
            threads=params.threads,
        )
    except RegistrationError as error:
        raise RegistrationError(f"{pair}, {method}: {error}") from error
    write_transform(transform, snakemake.output.transform)
