"""The frame of every script of the workflow: it logs, turns a known error into one line, and ends when Snakemake ends."""

import faulthandler
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO

from regnet.errors import RegNetError
from regnet.system.files import is_running

STARTED_BY = "REGNET_STARTED_BY"
"""Environment variable with the process ID of the Snakemake that starts the jobs; the rules set it."""

NO_MEMORY = re.compile(
    r"(can't|cannot|failed to|unable to) allocate|out of memory|not enough memory|bad_alloc"
    r"|failed to map segment|could not create a primitive|can't start new thread"
)
"""Errors of compiled libraries, in lower case, that get no memory: while they run, are loaded, or start a thread. The
primitive is oneDNN's, which torch computes with."""


@contextmanager
def log_to(path: str | Path) -> Iterator[None]:
    """Send logging, stdout and stderr, including those of compiled libraries, to the file `path` while the block runs.

    A `RegNetError`, a file that cannot be read or written, too little memory and Ctrl-C end the process with status 1 and one
    line on the terminal; any other exception passes through. The log has the traceback of every error but a `RegNetError` or
    Ctrl-C. When the Snakemake that started the job ends, the job is killed.
    """
    _end_with_snakemake()
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 - closed below
    except OSError as error:
        sys.exit(f"error: {path}: cannot be written ({error.strerror})")
    try:
        with output_to(log) as terminal:
            # A library that gets no memory may crash: the log then says where.
            faulthandler.enable(log)
            logging.basicConfig(stream=log, level=logging.INFO, format="%(asctime)s %(message)s", force=True)
            try:
                yield
            except (Exception, KeyboardInterrupt) as error:
                line = _one_line(error, path)
                if line is None:
                    logging.exception("unexpected error")
                    raise
                logging.error("%s", line, exc_info=isinstance(error, OSError | MemoryError | RuntimeError | ImportError))
                with suppress(OSError):
                    os.write(terminal[1], f"error: {line}\n".encode(errors="backslashreplace"))
                sys.exit(1)
            finally:
                logging.getLogger().handlers.clear()
                faulthandler.disable()
    finally:
        # A full disk has no room for the last lines.
        with suppress(OSError):
            log.close()


def _one_line(error: BaseException, path: str | Path) -> str | None:
    """The line that a user can act on, for an error of the job that logs to `path`; None for a bug of this program."""
    if isinstance(error, RegNetError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return f"{path}: the job was interrupted"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or path}: {error.strerror}"
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | ImportError) and NO_MEMORY.search(reason.lower())):
        return f"{path}: the job needs more memory than it may have ({reason[:200] or type(error).__name__})"
    return None


def _end_with_snakemake() -> None:
    """Kill this process when the Snakemake that started it ends.

    Otherwise a job would outlive a killed Snakemake, and could write its output among that of a later run with another config.
    A thread checks every second. Linux has a system call for this, but only for the direct parent, which may be a shell. While
    a library call blocks all threads this one cannot run, but it does so as soon as the call returns.
    """
    if STARTED_BY not in os.environ:
        return
    snakemake, parent = int(os.environ[STARTED_BY]), os.getppid()

    def watch() -> None:
        # A dead process keeps its ID until somebody waits for it, but is no longer a parent.
        while is_running(snakemake) and os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, daemon=True).start()


@contextmanager
def output_to(file: IO[str]) -> Iterator[tuple[int, int]]:
    """Send stdout and stderr, including those of compiled libraries, to an open file; yields copies of the old descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    try:
        yield before
    finally:
        # A full disk has no room for the last output.
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        for descriptor, saved in enumerate(before, start=1):
            os.dup2(saved, descriptor)
            os.close(saved)
