from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/synthesis.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/registration.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/results.smk"


rule all:
    """All registrations, tables and figures of the experiment."""
    default_target: True
    input:
        rules.registrations.input,
        rules.tables.input,
        rules.figures.input,
