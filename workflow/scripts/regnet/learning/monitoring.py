"""What users see of a running training: lines in the log, and event files for TensorBoard."""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 15
"""How often the log gets a line while a stage runs."""


class Progress:
    """Logs every now and then how far a stage is, how fast it runs, and how long it will still take.

    Parameters
    ----------
    stage
        Name of the stage.
    step, steps
        Steps of the stage that are done (0 unless it was interrupted), and all its steps.
    patches
        Patches that the network has seen before.
    """

    def __init__(self, stage: str, step: int, steps: int, patches: int) -> None:
        self.stage = stage
        self.first = step
        self.steps = steps
        self.patches = patches
        self.started = self.logged = time.monotonic()

    def due(self) -> bool:
        """Whether `PROGRESS_SECONDS` have passed since the last line, or since the start."""
        return time.monotonic() - self.logged > PROGRESS_SECONDS

    def log(self, step: int, patches: int, loss: float, validation: float) -> None:
        """Log a line after `step` steps of the stage and `patches` patches in all; errors in mm, nan if unknown."""
        self.logged = time.monotonic()
        elapsed = self.logged - self.started
        log.info(
            "%s step %d / %d, loss %.2f mm, %s%.0f patches/s, %s left",
            self.stage,
            step,
            self.steps,
            loss,
            "" if math.isnan(validation) else f"validation {validation:.2f} mm, ",
            (patches - self.patches) / elapsed,
            duration(elapsed / (step - self.first) * (self.steps - step)),
        )


def duration(seconds: float) -> str:
    """A time in words, as in ``2 h 05 min``, ``12 min`` or ``40 s``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


class EventFiles:
    """Curves for TensorBoard over the patches seen; without the package tensorboard, nothing is written.

    Parameters
    ----------
    folder
        Where the event files are written.
    patches
        Patches that the network has seen. With 0, files of earlier trainings are removed; otherwise later points are hidden.
    """

    def __init__(self, folder: str | Path, patches: int) -> None:
        self._writer = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("no event files for TensorBoard, as the package tensorboard is not installed")
            return
        if not patches:
            for earlier in Path(folder).glob("events.out.tfevents.*"):
                earlier.unlink()
        self._writer = SummaryWriter(str(folder), purge_step=patches + 1 if patches else None, flush_secs=30)

    def add(self, stage: str, patches: int, values: Mapping[str, float]) -> None:
        """Add a point to each of the curves ``<stage>/<name>``, in mm."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{stage}/{name}", value, patches)

    def close(self) -> None:
        """Write all that is still in memory, and close the files."""
        if self._writer:
            self._writer.close()
