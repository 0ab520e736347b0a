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
include: "workflow/rules/report.smk"
include: "workflow/rules/provenance.smk"


rule all:
    """All registrations, tables and their provenance, figures, viewers and pages of the report of the experiment."""
    default_target: True
    input:
        rules.registrations.input,
        rules.tables.input,
        rules.figures.input,
        rules.viewers.input,
        rules.pages.input,
        rules.provenances.input,
