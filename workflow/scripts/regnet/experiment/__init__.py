"""The parts of an experiment: config and cohort, their checks, the estimate of its costs, the provenance of its results."""
