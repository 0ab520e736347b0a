"""The rooms of the package: imports point downwards, and modules that must start quickly import nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
PACKAGE = SCRIPTS / "regnet"

FLOORS = [
    {"conventions", "errors"},
    {"system"},
    {"images"},
    {"synthesis"},
    {"learning", "evaluation"},
    {"registration"},
    {"experiment"},
    {"datasets", "presentation"},
    {"api"},
    {"register_scans"},
    {"cli"},
]
"""The rooms from the lowest to the highest: a module imports from its own room and from lower floors."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports(path):
    """The modules of the package that a file imports, in functions too: the parts of their names below ``regnet``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "regnet":
            below = node.module.split(".")[1:]
            # `from regnet import cli` names a module, `from regnet import __version__` does not.
            yield from [below] if below else [[alias.name] for alias in node.names if alias.name in FLOOR]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1:] for alias in node.names if alias.name.startswith("regnet."))


def modules():
    return [path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]


def test_every_module_has_a_room():
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()} == set(FLOOR)


def test_no_import_points_upwards():
    upwards = [
        f"{path.relative_to(PACKAGE)} imports {'.'.join(parts)}"
        for path in modules()
        for parts in imports(path)
        for room in [path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
        if parts[0] != room and FLOOR[parts[0]] >= FLOOR[room]
    ]
    assert upwards == []


def test_no_imports_in_a_circle():
    uses = {}
    for path in modules():
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        uses[name] = {".".join(parts) for parts in imports(path)}
    done = set()
    while ready := {name for name, used in uses.items() if name not in done and used & uses.keys() <= done}:
        done |= ready
    assert set(uses) - done == set()


def loaded(module, heavy):
    """Which of the packages `heavy` a new process loads when it imports a module of this package."""
    code = f"import sys, regnet.{module}; print([name for name in {heavy} if name in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, capture_output=True, encoding="utf-8"
    )
    assert process.returncode == 0, process.stderr
    return ast.literal_eval(process.stdout)


@pytest.mark.parametrize("module", ["figures.chapter", "figures.comparison", "figures.fields", "table_2_1", "comparison"])
def test_tables_and_figures_need_neither_torch_nor_itk(module):
    """They take seconds to import, and every figure is a process of its own."""
    assert loaded(f"presentation.{module}", ("torch", "SimpleITK", "itk", "scipy.stats")) == []


def test_networks_are_trained_and_applied_with_torch_and_numpy_only():
    """A GPU node may have nothing else."""
    modules = "; ".join(f"import regnet.learning.{path.stem}" for path in sorted((PACKAGE / "learning").glob("[!_]*.py")))
    assert loaded(f"learning; {modules}", ("SimpleITK", "itk", "pandas", "scipy")) == []
