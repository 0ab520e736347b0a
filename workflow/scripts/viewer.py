"""Make the viewer of a pair, and a picture of it for the report."""

from regnet.images.landmarks import read_landmark_pair
from regnet.images.transforms import read_transform
from regnet.images.volumes import IDENTITY, read_ct, read_mask
from regnet.presentation.figures.overview import overview
from regnet.presentation.figures.style import save_figure
from regnet.presentation.slices import overview_slices
from regnet.presentation.viewer import write_viewer
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    inputs, params = snakemake.input, snakemake.params
    transforms = {method: read_transform(path) for method, path in zip(params.methods, inputs.transforms, strict=True)}
    images = read_ct(inputs.fixed), read_mask(inputs.mask), read_ct(inputs.moving)
    landmarks = None
    if inputs.fixed_landmarks:
        given = inputs.given_fixed, inputs.given_moving
        landmarks = read_landmark_pair(inputs.fixed_landmarks, inputs.moving_landmarks, given)
    pair, experiment = snakemake.wildcards.pair, snakemake.wildcards.experiment
    slices = overview_slices(*images, {"before": IDENTITY, "after": transforms[params.pictured]})
    save_figure(overview(slices), snakemake.output.picture)
    write_viewer(snakemake.output.page, pair, *images, transforms, landmarks, experiment=experiment)
