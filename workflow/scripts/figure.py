"""Draw a figure: call the function that the rule names with its inputs and its other params."""

from importlib import import_module

from regnet.presentation.figures.style import save_figure
from regnet.system.jobs import log_to

with log_to(snakemake.log[0]):
    params = dict(snakemake.params.items())
    module, function = params.pop("draw").split(".")
    drawing = import_module(f"regnet.presentation.figures.{module}")
    # Functions read slices themselves: a module has readers for tables alone.
    inputs = {
        name: drawing.READERS[name](path) if name in drawing.READERS else path
        for name, path in snakemake.input.items()
        if name != "code"
    }
    save_figure(getattr(drawing, function)(**inputs, **params), snakemake.output.png, snakemake.output.pdf)
