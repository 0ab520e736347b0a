"""Writing files and folders so that nobody ever reads half of one."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from regnet.errors import OutputError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, and move it to `path` once the block has ended without an error.

    The temporary name keeps the suffixes (``.nii.gz``), by which most writers choose the format. Parent folders are made.

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
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if str(partial) not in (error.filename, error.filename2):
            raise
        # Nobody finds the temporary file that the message names.
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)


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
    except OutputError as error:
        # Nobody finds the temporary folder that the message names.
        raise OutputError(str(error).replace(str(partial), str(path))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
