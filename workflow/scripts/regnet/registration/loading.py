"""Loads the function of a method by the name of its module.

A method is a module with one function ``register`` (docs/adding-a-method.md). The config names the module by its name in
`MODULES`, by the path of a ``.py`` file, or by its import name. A module is imported when it is first used.
"""

import importlib
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

MODULES = ("elastix", "regnet", "pyramid", "demons", "syn", "greedy", "convexadam")
"""The modules of this package that hold a method."""


@cache
def load(module: str) -> Callable[..., Any]:
    """The function ``register`` of a method's module."""
    if module in MODULES:
        return importlib.import_module(f"regnet.registration.{module}").register
    return (_load_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)).register


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    # Both are there for every path that ends in .py.
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
