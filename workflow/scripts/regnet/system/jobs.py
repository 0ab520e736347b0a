"""What every script of the workflow does around its work: keep a log, turn a known error into one line, end with Snakemake."""

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
"""Environment variable with the number of the process of Snakemake that starts the jobs; the rules set it."""

NO_MEMORY = re.compile(
    r"(can't|cannot|failed to|unable to) allocate|out of memory|not enough memory|bad_alloc"
    r"|failed to map segment|could not create a primitive|can't start new thread"
)
"""What compiled libraries say, in small letters, when they get no memory: while they run, are loaded, or start a thread. The
primitive is oneDNN's, which torch computes with."""


@contextmanager
def log_to(path: str | Path) -> Iterator[None]:
    """Send logging, stdout and stderr, those of compiled libraries too, to the file `path` while the block runs.

    A `RegNetError`, a file that cannot be read or written, too little memory and Ctrl-C end the process with status 1 and one
    line on the terminal; any other exception passes through. The log has the traceback of all but the first and the last.
    A job also ends, with nothing written, when the Snakemake that started it does.
    """
    _end_with_snakemake()
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        log = open(path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        sys.exit(f"error: {path}: cannot be written ({error.strerror})")
    try:
        with output_to(log) as terminal:
            # Libraries crash where they get no memory: the log says where.
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
                os.write(terminal[1], f"error: {line}\n".encode())
                sys.exit(1)
            finally:
                logging.getLogger().handlers.clear()
                faulthandler.disable()
    finally:
        # A full disk has no room for the last lines.
        with suppress(OSError):
            log.close()


def _one_line(error: BaseException, path: str | Path) -> str | None:
    """What a user can act on, of an error of the job with the log `path`; None for an error of this program."""
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
    """Watch the process of Snakemake that started this job, and kill this one when it ends.

    Otherwise a job would outlive a Snakemake that was killed, and could write its output into what a later run makes with
    another config. A thread that looks every second does on every system what Linux alone offers by a system call, and there
    only for the process that is the direct parent, which may be a shell. It cannot run during a long call into a library that
    does not let other threads run, but then comes first when that returns.
    """
    if STARTED_BY not in os.environ:
        return
    snakemake, parent = int(os.environ[STARTED_BY]), os.getppid()

    def watch() -> None:
        # A process that nobody has waited for still has its number, but is no parent any more.
        while is_running(snakemake) and os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    Thread(target=watch, daemon=True).start()


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
        # A full disk has no room for it.
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        for descriptor, saved in enumerate(before, start=1):
            os.dup2(saved, descriptor)
            os.close(saved)
