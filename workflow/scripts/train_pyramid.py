"""Train the feature pyramid."""

from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.training_job import PyramidJob, job_arguments, run_job
from regnet.system.jobs import log_to

# Where there are several GPUs, each of their processes imports this file again.
if __name__ == "__main__":
    with log_to(snakemake.log[0]):
        inputs = snakemake.input
        volumes = {"training": tuple(inputs.training), "validation": tuple(inputs.validation)}
        job = PyramidJob(**volumes, **job_arguments(snakemake, RegNetPyramid.variant))
        run_job(snakemake, job)
