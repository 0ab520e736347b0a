"""Files and folders: writing them whole or not at all, checksums, JSON."""

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import sys
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from regnet.errors import InputError, OutputError, RegNetError

NPZ_ERRORS = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)
"""What numpy raises while it reads an ``.npz`` file that is truncated or damaged, or lacks an array."""


def is_running(process: int) -> bool:
    """Whether a process with this ID runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def refuse_undecodable(path: str | Path, error: type[RegNetError] = InputError) -> None:
    """Refuse a name that is not text in UTF-8: compiled libraries, as SimpleITK and ITK, abort the process over it.

    Raises
    ------
    RegNetError
        Of the class `error`, with the bytes of the name escaped.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as problem:
        encoding = sys.getfilesystemencoding()
        reason = "is not UTF-8" if encoding == "utf-8" else f"is not {encoding}, as the locale says (PYTHONUTF8=1 for UTF-8)"
        raise error(f"{path}: found a name that {reason}, expected another name") from problem


def refuse_truncated_table(path: str | Path) -> None:
    """Refuse a text table that ends within a row, which its reader would not notice.

    Raises
    ------
    InputError
        If the file is empty, its last line has no line end, or it cannot be read.
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
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON; never leaves half a file."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and move it to `path` once the block ends without an error.

    The temporary name keeps the suffixes (``.nii.gz``), from which most writers choose the format. Makes parent folders, and
    removes the temporary files of `path` that killed processes of this machine left.

    Raises
    ------
    OutputError
        If the file or a parent folder cannot be made, or `path` is a pipe or a device.
    """
    path = Path(path)
    refuse_undecodable(path, OutputError)
    partial = path.with_name(f"{temporary_prefix('partial')}{secrets.token_hex(4)}-{path.name}")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OutputError(f"{path}: found a pipe or a device, expected a file or a new name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}: {error.filename})") from error
    remove_leftovers(path.parent, "partial", path.name)
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        # A write to an open file on a full disk fails without a file name.
        if error.filename is not None and str(partial) not in (error.filename, error.filename2):
            raise
        # The error names the temporary file, which the user never sees.
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        # A read-only file system refuses this too.
        with suppress(OSError):
            partial.unlink()


@contextmanager
def whole_folder(
    path: str | Path, names: Collection[str], *, files: Collection[str] = (), replace: bool = False
) -> Iterator[Path]:
    """Yield a new, empty folder, and move it to `path` once the block ends without an error; otherwise remove it.

    Parameters
    ----------
    path
        The folder to make. Missing parent folders are made at the end.
    names
        Names that the folder may hold. An existing folder that holds anything else is never replaced.
    files
        Files that folders among `names` may hold, as paths relative to `path` with slashes.
    replace
        Whether an existing folder that is not empty may be replaced.

    Raises
    ------
    OutputError
        If `path` exists and may not be replaced, or cannot be made. If something came into it while the block ran: then it
        stays, and the new folder gets the next free name, which the message says.
    """
    path = Path(path).resolve()
    refuse_undecodable(path, OutputError)
    if problem := _why_not_replaced(path, names, files, replace):
        raise OutputError(f"{path}: {problem}")
    # The nearest existing parent is on the same file system, where a move is atomic.
    nearest = next(parent for parent in path.parents if parent.exists())
    token = secrets.token_hex(4)
    partial, replaced = (nearest / f"{temporary_prefix(kind)}{token}-{path.name}" for kind in ("partial", "replaced"))
    try:
        remove_leftovers(nearest, "partial", path.name)
        partial.mkdir()
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error.strerror})") from error
    try:
        yield partial
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            # Moved away before it is looked at again: nothing can come into it in between.
            os.rename(path, replaced)
        try:
            problem = _why_not_replaced(replaced, names, files, replace)
            if not problem:
                os.rename(partial, path)
        except OSError:
            if replaced.exists():
                os.rename(replaced, path)
            raise
        if problem:
            os.rename(replaced, path)
            kept = next(free for number in count(2) if not (free := path.with_name(f"{path.name}-{number}")).exists())
            os.rename(partial, kept)
            raise OutputError(f"{path}: {problem}; it came there during the run, whose results are in {kept}")
        shutil.rmtree(replaced, ignore_errors=True)
        remove_leftovers(nearest, "replaced", path.name)
    except OutputError as error:
        # The error names the temporary folder, which the user never sees.
        raise OutputError(str(error).replace(str(partial), str(path))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@cache
def _machine() -> str:
    """A short name of this machine: a process number says nothing about processes of others on the same file system."""
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def temporary_prefix(kind: str) -> str:
    """The beginning of the name of a temporary file or folder of this process; a part that is chosen at random follows."""
    return f".{kind}-{_machine()}-{os.getpid()}-"


def remove_leftovers(folder: Path, kind: str, name: str) -> None:
    """Remove temporary files or folders for `name` whose processes, of this machine, were killed before they could do so."""
    for entry in os.scandir(folder):
        match = re.fullmatch(rf"\.{kind}-{_machine()}-(\d{{1,9}})-\w+-{re.escape(name)}", entry.name)
        if match and not is_running(int(match[1])):
            with suppress(OSError):
                shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)


def _why_not_replaced(path: Path, names: Collection[str], files: Collection[str], replace: bool) -> str | None:
    """Why a folder may not be replaced; None if it may, or does not exist."""
    if Path.cwd().is_relative_to(path):
        return "found the current folder or one above it, expected a folder for the results alone"
    if not path.exists():
        return None
    if not path.is_dir():
        return "found a file, expected a folder or a new name"
    entries = sorted(path.iterdir())
    if entries and not replace:
        return "already exists, expected a new name, or --force to replace it"
    foreign = [entry.name for entry in entries if entry.name not in names]
    for folder in (entry for entry in entries if entry.is_dir() and not entry.is_symlink()):
        below = (
            entry.relative_to(path).as_posix()
            for entry in sorted(folder.rglob("*"))
            if entry.is_symlink() or not entry.is_dir()
        )
        foreign += [name for name in below if name not in files]
    if foreign:
        return f"holds {foreign[0]}, expected nothing but earlier results ({', '.join(names)})"
    return None
