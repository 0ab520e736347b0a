"""Put down what the tables of an experiment come from."""

from regnet.experiment.cohort import read_cohort
from regnet.experiment.provenance import collect, write_facts
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, params = snakemake.input, snakemake.params
    facts = collect(
        params.config,
        read_cohort(params.config["cohort"], params.config["data_root"]),
        code=inputs.code,
        files=[*inputs.methods, *inputs.given_weights],
        weights=inputs.weights,
        machines=list(zip(params.steps, inputs.machines, strict=True)),
    )
    write_facts(facts, snakemake.output.facts)
