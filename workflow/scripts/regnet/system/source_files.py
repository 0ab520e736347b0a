"""Which modules of this package a module uses: what a rule lists as inputs, so that a change reruns what depends on it."""

import os
import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
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
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found[module] = _path(module)
        waiting += _imports(module)
    return tuple(os.path.relpath(found[module]) for module in sorted(found))


def _path(module: str) -> Path:
    return PACKAGE / f"{module.replace('.', '/')}.py"


@cache
def _imports(module: str) -> list[str]:
    """The modules of the package that a module imports, in functions too.

    Found as text: every job of the workflow asks for all of them, and parsing takes a second.
    """
    return re.findall(r"^ *from regnet\.([\w.]+) import ", _path(module).read_text(encoding="utf-8"), re.MULTILINE)
