"""Checkpoints of a running training. A damaged one, or one of another training, is never used.

A checkpoint is one file: a line of JSON (the checksum of the rest, and the fingerprint of the training), then the state as
`torch.save` writes it. It is read with ``weights_only=True``, so that nothing in it can run code.
"""

import functools
import hashlib
import io
import json
import logging
import os
import pickle
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from regnet.errors import RegNetError
from regnet.system.files import whole_file

log = logging.getLogger(__name__)

KEPT = 2
"""How many of the newest checkpoints are kept: if the last one is damaged, the one before it is used."""


def fingerprint(settings: Mapping[str, Any], data: Iterable[str | Path], code: Iterable[str | Path]) -> dict[str, str]:
    """Digests of all that decides a training; a checkpoint is used only if all of them match.

    Files count by their content, not by their names or times.

    Parameters
    ----------
    settings
        Everything that decides what is computed; JSON can hold it.
    data
        Sample tables, volumes, and weights that a training starts from.
    code
        Source files, together with the version of torch.

    Returns
    -------
    dict
        A digest for each of ``settings``, ``data`` and ``code``.
    """
    # Several pairs share a moving image: read it once.
    content = functools.cache(_file_digest)
    return {
        "settings": _digest(json.dumps(settings, sort_keys=True).encode()),
        "data": _digest(*map(content, data)),
        "code": _digest(*map(content, code), torch.__version__.encode()),
    }


def _file_digest(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def _digest(*parts: bytes | memoryview) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one training, in their own folder.

    Parameters
    ----------
    folder
        Their folder; nothing else may be in it.
    fingerprint
        That of the training, see `fingerprint`.
    minutes
        Time between two checkpoints.
    """

    def __init__(self, folder: str | Path, fingerprint: Mapping[str, str], minutes: float) -> None:
        self.folder = Path(folder)
        self.fingerprint = dict(fingerprint)
        self.minutes = minutes
        self._good: list[Path] = []
        self._saved = time.monotonic()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training into this folder while the block runs; a killed process leaves no lock.

        Raises
        ------
        RegNetError
            If another process already trains into it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            message = f"{self.folder}: another process is still training into this folder, expected none: stop it, or wait"
            raise RegNetError(message) from error
        try:
            yield
        finally:
            lock.release()

    def due(self) -> bool:
        """Whether `minutes` have passed since the last checkpoint, or since the start."""
        return time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, and remove all but the newest `KEPT` good ones of this training.

        Parameters
        ----------
        state
            Tensors, numbers, strings, and lists and dicts of them.
        """
        payload = io.BytesIO()
        torch.save(dict(state), payload)
        header = {"blake2b": _digest(payload.getbuffer()), "fingerprint": self.fingerprint}
        numbers = [_number(path) for path in self._files()]
        path = self.folder / f"{1 + max(numbers, default=0):06d}.checkpoint"
        with whole_file(path) as partial, open(partial, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            file.write(payload.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        self._good = [*self._good, path][-KEPT:]
        for existing in [*self._files(), *self.folder.glob(".partial-*.checkpoint")]:
            if existing not in self._good:
                existing.unlink()
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state of the newest undamaged checkpoint of this training, its tensors on the CPU; None without one.

        The log names each checkpoint that is not used, and the reason.
        """
        for path in sorted(self._files(), key=_number, reverse=True):
            try:
                header, _, payload = path.read_bytes().partition(b"\n")
                header = json.loads(header)
                if header["blake2b"] != _digest(payload):
                    raise ValueError("its checksum is wrong")
                changed = [part for part in self.fingerprint if header["fingerprint"].get(part) != self.fingerprint[part]]
                if changed:
                    log.warning("checkpoint %s is not used: it was written with other %s", path, ", ".join(changed))
                    continue
                state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                log.warning("checkpoint %s is damaged and not used (%s)", path, reason[:200])
                continue
            self._good = [path]
            log.info("continuing from checkpoint %s", path)
            return state
        return None

    def remove(self) -> None:
        """Remove the checkpoints once the training is finished, so that the next one starts from scratch."""
        for path in [*self._files(), *self.folder.glob(".partial-*.checkpoint"), self.folder / "lock"]:
            path.unlink(missing_ok=True)
        # What somebody else put into the folder stays.
        with suppress(OSError):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("*.checkpoint") if re.fullmatch(r"\d+\.checkpoint", path.name)]


def _number(path: Path) -> int:
    return int(path.stem)
