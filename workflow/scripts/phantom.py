"""Make one subject of the embedded cohort."""

import logging

from regnet.conventions import job_seed
from regnet.datasets.phantom import make_subject, write_subject
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    settings = snakemake.params.phantom
    subject = make_subject(
        job_seed(snakemake.params.seed, "phantom", snakemake.wildcards.subject),
        spacing=tuple(settings["spacing"]),
        scale=settings["scale"],
        landmarks=settings["landmarks"],
    )
    logging.info("%d landmarks", len(subject.baseline_landmarks))
    write_subject(
        subject,
        snakemake.output.baseline,
        snakemake.output.followup,
        snakemake.output.baseline_landmarks,
        snakemake.output.followup_landmarks,
        snakemake.output.dvf,
    )
