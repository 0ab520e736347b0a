"""Make the synthetic pairs of an image."""

import numpy as np
import SimpleITK as sitk
import torch

from regnet.conventions import job_seed
from regnet.images.volumes import Grid, read_ct, read_mask, write_image
from regnet.synthesis.appearance import Appearance
from regnet.synthesis.pair_names import PairName
from regnet.synthesis.pairs import (
    bspline_coefficients,
    deform,
    deform_mask,
    other_scan,
    random_dvf,
    reachable_boxes,
    require_room,
    slide,
    source_scan,
)
from regnet.synthesis.samples import save_volume
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    torch.set_num_threads(snakemake.threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(snakemake.threads)
    settings = snakemake.params.synthesis
    border = settings["border"]
    appearance = Appearance.of(settings["appearance"])
    rng = np.random.default_rng(job_seed(snakemake.params.seed, "synthesize", snakemake.wildcards.image))
    original = read_ct(snakemake.input.image)
    if appearance:
        original = source_scan(original, rng)
    require_room(original, snakemake.wildcards.image, settings["smallest_size"])
    grid = Grid.of(original)

    deformation = dict(settings["moving"])
    noise_sd = deformation.pop("noise_sd")
    dvf = random_dvf(grid, **deformation, border=border, rng=rng)
    moving = {"original": original, "deformed": deform(original, dvf, noise_sd=noise_sd, rng=rng)}
    original_mask = read_mask(snakemake.input.mask, grid)
    masks = {"original": original_mask, "deformed": deform_mask(original_mask, dvf)}
    coefficients = {kind: bspline_coefficients(image) for kind, image in moving.items()}
    dvf.save(snakemake.output.deformation)
    write_image(masks["deformed"], snakemake.output.deformed_mask)
    for kind, path in (("original", snakemake.output.original), ("deformed", snakemake.output.deformed)):
        shown = other_scan(moving[kind], appearance, rng) if appearance else moving[kind]
        save_volume(sitk.GetArrayViewFromImage(shown), path)

    for pair, fixed_path, dvf_path in zip(snakemake.params.pairs, snakemake.output.fixed, snakemake.output.dvf, strict=True):
        kind, frequency = PairName.of(pair)
        dvf = random_dvf(grid, **settings["frequencies"][frequency], border=border, rng=rng)
        options = {"boxes": reachable_boxes(masks[kind], dvf, snakemake.params.block), "coefficients": coefficients[kind]}
        fixed = deform(moving[kind], dvf, noise_sd=settings["noise_sd"], rng=rng, **options)
        if settings["sliding"] and rng.uniform() < settings["sliding"]:
            fixed = slide(fixed, deform_mask(masks[kind], dvf), rng, border=border, boxes=options["boxes"])
        if appearance:
            fixed = other_scan(fixed, appearance, rng)
        save_volume(sitk.GetArrayViewFromImage(fixed), fixed_path)
        dvf.save(dvf_path)
