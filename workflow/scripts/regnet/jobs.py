"""What every script of the workflow does around its work: keep a log, and turn a known error into one line."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from regnet.errors import RegNetError


@contextmanager
def log_to(path: str | Path) -> Iterator[None]:
    """Send logging, stdout and stderr, those of compiled libraries too, to the file `path` while the block runs.

    A `RegNetError` ends the process with status 1 and its message on the terminal; any other exception passes through,
    with its traceback in the log.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", buffering=1, encoding="utf-8") as log, output_to(log) as terminal:
        logging.basicConfig(stream=log, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
        try:
            yield
        except RegNetError as error:
            logging.error("%s", error)
            os.write(terminal[1], f"error: {error}\n".encode())
            sys.exit(1)
        except Exception:
            logging.exception("unexpected error")
            raise
        finally:
            logging.getLogger().handlers.clear()


@contextmanager
def output_to(file: IO[str]) -> Iterator[tuple[int, int]]:
    """Send stdout and stderr, those of compiled libraries too, to an open file; gives the descriptors they had before."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    try:
        yield before
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, saved in enumerate(before, start=1):
            os.dup2(saved, descriptor)
            os.close(saved)
