"""Which modules of this package a module uses: what a rule lists as inputs, so that a change reruns what depends on it."""

import ast
import os
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


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
        path = PACKAGE / f"{module.replace('.', '/')}.py"
        found[module] = path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("regnet."):
                waiting.append(node.module.removeprefix("regnet."))
    return tuple(os.path.relpath(found[module]) for module in sorted(found))
