"""What people see of a running training: lines in the log, and TensorBoard event files. Only torch."""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 15
"""How often the log gets a line while a stage runs."""


class Progress:
    """Tells now and then how far a stage is, how fast it goes, and when it will end.

    Parameters
    ----------
    stage
        Its name.
    step, steps
        Where it begins, or goes on, and ends.
    patches
        How many the network has seen before.
    """

    def __init__(self, stage: str, step: int, steps: int, patches: int) -> None:
        self.stage = stage
        self.first = step
        self.steps = steps
        self.patches = patches
        self.begun = self.told = time.monotonic()

    def due(self) -> bool:
        """Whether the last line, or the beginning, is `PROGRESS_SECONDS` ago."""
        return time.monotonic() - self.told > PROGRESS_SECONDS

    def log(self, step: int, patches: int, loss: float, validation: float) -> None:
        """Log a line after `step` steps of the stage and `patches` patches in all; errors in mm, nan if unknown."""
        self.told = time.monotonic()
        elapsed = self.told - self.begun
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
    """Curves for TensorBoard, drawn over the patches seen; nothing is written where the package tensorboard is missing.

    Parameters
    ----------
    folder
        Where the event files are written.
    patches
        How many the network has seen. If none, files of earlier trainings are removed; else their points beyond it are hidden.
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
        """Write what is still in memory."""
        if self._writer:
            self._writer.close()
