"""Files and folders: written so that nobody ever reads half of one, checksums, JSON."""

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from regnet.errors import InputError, OutputError

NPZ_ERRORS = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)
"""What numpy raises while it reads an ``.npz`` file that is cut off or damaged, or lacks an array."""


def is_running(process: int) -> bool:
    """Whether there is a process with this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def refuse_cut_table(path: str | Path) -> None:
    """Refuse a table of text that ends within a row, as whoever reads it would not notice.

    Raises
    ------
    InputError
        If the last line does not end, or the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 1))
            ending = file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a table ({error.strerror})") from error
    if ending != b"\n":
        raise InputError(f"{path}: cannot be read as a table (it is empty or ends within a row)")


def checksum(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        If the file cannot be read as JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON; never leaves half a file."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it to `path` once the block has ended without an error.

    The temporary name keeps the suffixes (``.nii.gz``), by which most writers choose the format. Parent folders are made.
    What killed processes left beside `path` is removed.

    Raises
    ------
    OutputError
        If the file, or a folder for it, cannot be made.
    """
    path = Path(path)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}: {error.filename})") from error
    _remove_leftovers(path.parent, "partial", path.name)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        # A full disk is met by a write to an open file, which names none.
        if error.filename is not None and str(partial) not in (error.filename, error.filename2):
            raise
        # Nobody finds the temporary file that the message names.
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        # A file system that cannot be written refuses this too.
        with suppress(OSError):
            partial.unlink()


@contextmanager
def whole_folder(path: str | Path, names: Collection[str], *, replace: bool = False) -> Iterator[Path]:
    """Give a new, empty folder, and move it to `path` once the block has ended without an error; else nothing is left of it.

    Parameters
    ----------
    path
        The folder to make. Missing parent folders are made too, at the end.
    names
        What the folder may hold. An older folder that holds anything else is somebody's own and never replaced.
    replace
        Whether an older folder that is not empty may be replaced.

    Raises
    ------
    OutputError
        If `path` is there and may not be replaced, or cannot be made.
    """
    path = Path(path).resolve()
    _refuse_to_replace(path, names, replace)
    # Beside `path` or above it: on the same file system, where moving is atomic.
    nearest = next(parent for parent in path.parents if parent.exists())
    partial, replaced = (nearest / f".{what}-{os.getpid()}-{path.name}" for what in ("partial", "replaced"))
    try:
        _remove_leftovers(nearest, "partial", path.name)
        partial.mkdir()
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error.strerror})") from error
    try:
        yield partial
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.rename(path, replaced)
        try:
            os.rename(partial, path)
        except OSError:
            if replaced.exists():
                os.rename(replaced, path)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
        _remove_leftovers(nearest, "replaced", path.name)
    except OutputError as error:
        # Nobody finds the temporary folder that the message names.
        raise OutputError(str(error).replace(str(partial), str(path))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(folder: Path, what: str, name: str) -> None:
    """Remove the temporary files or folders of one name whose processes were killed before they could do it."""
    for entry in os.scandir(folder):
        found = re.fullmatch(rf"\.{what}-(\d+)-{re.escape(name)}", entry.name)
        if found and not is_running(int(found[1])):
            with suppress(OSError):
                shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)


def _refuse_to_replace(path: Path, names: Collection[str], replace: bool) -> None:
    if Path.cwd().is_relative_to(path):
        raise OutputError(f"{path}: found the current folder or one above it, expected a folder for the results alone")
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path}: found a file, expected a folder or a new name")
    found = sorted(entry.name for entry in path.iterdir())
    if found and not replace:
        raise OutputError(f"{path}: is there already, expected a new name, or --force to replace it")
    others = [name for name in found if name not in names]
    if others:
        raise OutputError(f"{path}: holds {others[0]}, expected nothing but earlier results ({', '.join(names)})")
