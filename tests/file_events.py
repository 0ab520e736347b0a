"""Which files are moved into folders, and which are made in place. Linux only."""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

MOVED_IN, MADE = 0x80, 0x100


class FileEvents:
    """Watches the files of some folders with inotify.

    Parameters
    ----------
    folders
        Existing folders; their subfolders are not watched.

    Attributes
    ----------
    moved, made
        Files that were moved into place, and files that were made under their own name, until the last `read`.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders = {
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), MOVED_IN | MADE): folder for folder in folders
        }
        if self._descriptor < 0 or min(self._folders) < 0:
            raise OSError(ctypes.get_errno(), "inotify cannot watch")
        self.moved: set[Path] = set()
        self.made: set[Path] = set()

    def read(self) -> None:
        """Collect the events since the last call."""
        while True:
            try:
                events = os.read(self._descriptor, 2**20)
            except BlockingIOError:
                return
            while events:
                watch, mask, _, length = struct.unpack_from("iIII", events)
                name, events = events[16 : 16 + length].rstrip(b"\0"), events[16 + length :]
                if watch in self._folders:
                    (self.moved if mask & MOVED_IN else self.made).add(self._folders[watch] / os.fsdecode(name))

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)
