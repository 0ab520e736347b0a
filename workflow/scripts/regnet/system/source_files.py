"""Which modules of this package a script uses: a rule lists them as inputs, so that a change reruns what depends on it."""

import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]

SCRIPTS = PACKAGE.parent
"""The folder of the rules' scripts, beside the package."""


def code_of(script: str) -> tuple[str, ...]:
    """Source files of all modules of the package that the script of a rule imports, directly or not.

    Parameters
    ----------
    script
        Its name in ``workflow/scripts``, without the suffix, for example ``"resample"``.

    Returns
    -------
    tuple of str
        Paths relative to the current folder.
    """
    return source_files(*_imports(SCRIPTS / f"{script}.py"))


def source_files(*modules: str) -> tuple[str, ...]:
    """Source files of the given modules and of all modules of the package that they import, directly or not.

    Parameters
    ----------
    modules
        Names below the package, for example ``"registration.regnet"``.

    Returns
    -------
    tuple of str
        Paths relative to the current folder.
    """
    return tuple(os.path.relpath(path) for path in _closure(modules))


def _closure(modules: Iterable[str]) -> list[Path]:
    """The files of modules and of what they import, in the order of the modules' names."""
    paths: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in paths:
            paths[module] = PACKAGE / f"{module.replace('.', '/')}.py"
            waiting += _imports(paths[module])
    return [paths[module] for module in sorted(paths)]


def scripts() -> list[str]:
    """The names of all scripts of rules, for `code_of`."""
    return sorted(path.stem for path in SCRIPTS.glob("*.py"))


@cache
def _imports(path: Path) -> list[str]:
    """The modules of the package that a file imports, in functions too.

    A text search: every job of the workflow needs the imports of all modules, and parsing them takes a second.
    """
    return re.findall(r"^ *from regnet\.([\w.]+) import ", path.read_text(encoding="utf-8"), re.MULTILINE)
