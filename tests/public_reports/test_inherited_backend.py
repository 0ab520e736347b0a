"""Figures need no backend of matplotlib but Agg, whatever the environment names; nor a home that can be written.

Public report: deepTools issue 1416. A notebook sets ``MPLBACKEND`` for the programs that it starts; where that backend is not
installed, matplotlib raises an error as it is imported.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"

DRAW = """
import os
from regnet.presentation.figures.style import new_figure, save_figure
import matplotlib
figure = new_figure(2, 2)
figure.subplots().plot([0, 1])
save_figure(figure, "figure.png", "figure.pdf")
print(type(figure.canvas).__name__, os.environ.get("MPLBACKEND"), matplotlib.rcParams._get_backend_or_none())
"""


def draw(folder, environment):
    """Draw a figure in a new process; returns what it printed: the canvas, the variable, and matplotlib's backend."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRAW],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(SCRIPTS), **environment},
        capture_output=True,
        encoding="utf-8",
    )
    assert process.returncode == 0, process.stderr
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    return process.stdout.split()


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no-such-backend"])
def test_backends_that_are_not_installed(backend, tmp_path):
    assert draw(tmp_path, {"MPLBACKEND": backend})[:2] == ["FigureCanvasAgg", backend]


def test_a_backend_that_matplotlib_knows(tmp_path):
    """It is left to the program that imports this package, such as a notebook."""
    assert draw(tmp_path, {"MPLBACKEND": "qtagg"}) == ["FigureCanvasAgg", "qtagg", "qtagg"]


def test_folders_that_do_not_exist(tmp_path):
    """Below a file no folder can be made, not even by root."""
    (tmp_path / "file").touch()
    folders = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), f"{tmp_path}/file/folder")
    assert draw(tmp_path, folders)[0] == "FigureCanvasAgg"
