"""Measure a network on the samples of the synthetic pairs of a split."""

import torch

from regnet.evaluation.long_tables import write_errors
from regnet.evaluation.point_errors import sample_errors
from regnet.learning.dense import predict_pairs
from regnet.learning.devices import device_name, pick_device
from regnet.learning.inference import predict_samples
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.weight_files import load_network
from regnet.synthesis.pairs import SyntheticDVF
from regnet.synthesis.samples import SamplePool
from regnet.system.jobs import log_to
from regnet.system.machine import write_machine

with log_to(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    network, facts = load_network(snakemake.input.weights)
    inputs = snakemake.input
    pool = SamplePool(inputs.samples, inputs.fixed, inputs.moving, facts["window"])
    grids = [SyntheticDVF.load(path).grid for path in inputs.dvf]
    device = pick_device(snakemake.resources.gpu)
    if network.any_spacing:
        predicted = predict_pairs(network, pool, settings=InferenceSettings(**snakemake.params.inference), device=device)
    else:
        predicted = predict_samples(network, pool, device=device)
    names, variant, split = snakemake.params.names, snakemake.wildcards.network, snakemake.wildcards.split
    write_errors(sample_errors(variant, split, names, grids, pool, predicted), snakemake.output.errors)
    write_machine(snakemake.output.machine, device_name(snakemake.resources.gpu, snakemake.threads))
