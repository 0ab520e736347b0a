"""The registration methods of a config: checks that import nothing, the memory of each method, and the files it consists of."""

import ast
import importlib.util
import os
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from regnet.errors import ConfigError
from regnet.registration.loading import MODULES
from regnet.system.source_files import code_of, source_files

PACKAGES = {"syn": ("ants", "antspyx"), "greedy": ("picsl_greedy", "picsl-greedy"), "convexadam": ("convexAdam", "convexadam")}
"""Modules that need a package beyond requirements.in: its name for import, and its name for pip."""

MEMORY_MB = {"elastix": 4000}
"""Memory for a registration of images of 300^3 voxels, in MB; modules not named here get twice that."""

FIRST = ("affine", "bspline_1r", "bspline_3r", "regnet", "regnet_pyramid", "regnet_refined")
"""The chapter's methods and those of this project, in this order: their rows come before all others."""

INSTALL = "pip install -r requirements-peers.in -c constraints.txt -c constraints-peers.txt (or make peers)"

SIGNATURE = "register(fixed, moving, fixed_mask, moving_mask, initial, settings)"


def configured(methods: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Mapping[str, Any]]:
    """The methods of the config by name, `FIRST` before others, without those that an overlay has set to null."""
    # Snakemake puts the keys that a file of --configfile adds before those of the default config.
    names = dict.fromkeys((*FIRST, *methods))
    return {name: settings for name in names if (settings := methods.get(name)) is not None}


def check_methods(methods: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Check that the module of each method can be used, without importing it, and that each has a method to start from.

    Parameters
    ----------
    methods
        The config's, by name, each with its ``module``.

    Raises
    ------
    ConfigError
        With a line for each problem: a package that is not installed, a file or module that does not exist or has no function
        ``register``, or an ``initial`` that is no other method or starts from this one.
    """
    found = configured(methods)
    problems = [f"config: methods.{name}.{problem}" for name, settings in found.items() for problem in _problems(settings)]
    problems += [f"config: methods.{name}.initial: {problem}" for name in found for problem in _starting_problems(name, found)]
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(settings: Mapping[str, Any]) -> Iterator[str]:
    module = settings["module"]
    if module in PACKAGES and importlib.util.find_spec(PACKAGES[module][0]) is None:
        yield f"module: found {module}, whose package {PACKAGES[module][1]} is not installed; to install it: {INSTALL}"
    if module == "elastix" and not Path(settings["parameters"]).is_file():
        yield f"parameters: found {settings['parameters']}, which is not a file, expected an elastix parameter file"
    if module in MODULES:
        return
    path = _path(module)
    if path is None or not path.is_file():
        kind = "the path of a .py file" if module.endswith(".py") else "a module that Python can import"
        yield f"module: found {module}, which does not exist, expected one of {', '.join(MODULES)}, or {kind}"
    elif path.suffix == ".py" and not _defines_register(path):
        yield f"module: found {module} without a function register, expected one: {SIGNATURE}"


def starts_from(method: str, methods: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The method whose transform a method of the config starts from; None for the affine registration."""
    return None if method == "affine" else methods[method].get("initial", "affine")


def _starting_problems(name: str, methods: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    initial = methods[name].get("initial")
    if initial is None:
        return
    if name == "affine":
        yield f"found {initial}, expected none: the affine registration starts from nothing"
    elif initial not in methods:
        yield f"found {initial}, expected one of {', '.join(other for other in methods if other != name)}"
    else:
        chain = [name]
        while (before := starts_from(chain[-1], methods)) is not None and before in methods:
            if before in chain:
                if before == name:
                    yield f"found {initial}, which starts from {name} itself ({' <- '.join([*chain, before])})"
                return
            chain.append(before)


def _path(module: str) -> Path | None:
    """The file of a module that is not of this package, or None if there is none."""
    if module.endswith(".py"):
        return Path(module)
    # Not find_spec of the whole name: it would import the packages before each dot.
    package, *rest = module.split(".")
    try:
        spec = None if package == "__main__" else importlib.util.find_spec(package)
    except ValueError:  # of a module that this process made itself, without a file
        return None
    for name in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _defines_register(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # of a zero byte, and of brackets in brackets in ...
        return False
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    # A function that is imported from elsewhere counts too.
    names |= {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    return "register" in names


def memory_mb(settings: Mapping[str, Any]) -> int:
    """Memory that a job of a method requests, in MB."""
    return MEMORY_MB.get(settings["module"], 8000)


def method_files(settings: Mapping[str, Any]) -> list[str]:
    """The files that decide what a method does: its code, and its parameter file if it has one.

    Parameters
    ----------
    settings
        Of one method, as in the config.

    Returns
    -------
    list of str
        Paths relative to the current folder, or as the config gives them.
    """
    module = settings["module"]
    if module in MODULES:
        own = source_files(f"registration.{module}")
    else:
        path = str(_path(module))
        own = (os.path.relpath(path) if os.path.isabs(path) else path,)
    files = [*code_of("register"), *own, *([settings["parameters"]] if module == "elastix" else [])]
    return list(dict.fromkeys(files))
