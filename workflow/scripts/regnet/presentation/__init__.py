"""Tables, figures, the report and the viewer."""

import os
import sys
from contextlib import suppress

if "MPLBACKEND" in os.environ and "matplotlib" not in sys.modules:
    # A notebook hands its backend on to the programs that it starts, and matplotlib refuses to be imported where that backend
    # is not installed. Our figures need none: they bring their own canvas, Agg.
    backend = os.environ.pop("MPLBACKEND")
    try:
        with suppress(ImportError):
            import matplotlib

            with suppress(ValueError):
                matplotlib.rcParams["backend"] = backend
    finally:
        os.environ["MPLBACKEND"] = backend
