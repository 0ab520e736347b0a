"""Train RegNet or one of its variants."""

from regnet.learning.training_job import PairFiles, TrainingJob, job_arguments, run_job
from regnet.system.jobs import log_to

# Where there are several GPUs, each of their processes imports this file again.
if __name__ == "__main__":
    with log_to(snakemake.log[0]):
        params, inputs, variant = snakemake.params, snakemake.input, snakemake.wildcards.variant
        job = TrainingJob(
            variant=variant,
            training=PairFiles(tuple(inputs.training), tuple(inputs.training_fixed), tuple(inputs.training_moving)),
            validation=PairFiles(tuple(inputs.validation), tuple(inputs.validation_fixed), tuple(inputs.validation_moving)),
            synthesis=params.synthesis,
            spacing=params.spacing,
            **job_arguments(snakemake, variant),
        )
        run_job(snakemake, job)
