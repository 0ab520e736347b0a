"""What a command prints on a full disk, into a closed pipe, or to no stdout at all: one line, and a status that is not 0.

Public report: ``> /dev/full`` gave a traceback.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk

pytestmark = pytest.mark.slow

if not os.path.exists("/dev/full"):
    pytest.skip("no /dev/full here", allow_module_level=True)

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"

FULL = "regnet: error: stdout: cannot be written (No space left on device)\n"

TABLE = "transform-points points.csv --transform identity.tfm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("points")
    (folder / "points.csv").write_text("x,y,z\n" + 9000 * "1,2,3\n", encoding="utf-8")
    sitk.WriteTransform(sitk.TranslationTransform(3), folder / "identity.tfm")
    return folder


def shell(folder, words, redirections="", **environment):
    """Run a command in a shell, with redirections."""
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m regnet {words} {redirections}"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SCRIPTS), **environment},
        capture_output=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize("words", [TABLE, "--help", "--version", "evaluate --help"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk(words, unbuffered, folder):
    if unbuffered and "-" in words.split()[-1] and sys.version_info >= (3, 12):
        pytest.skip("argparse ignores that its text is lost")
    process = shell(folder, words, "> /dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (process.returncode, process.stderr) == (2, FULL)


def test_a_closed_stdout(folder):
    process = shell(folder, TABLE, ">&-")
    assert (process.returncode, process.stderr) == (2, "regnet: error: stdout: cannot be written (it is closed)\n")
    # What goes to a file needs no stdout, and nothing else gets into the file.
    process = shell(folder, f"{TABLE} --output moved.csv", "<&- >&- 2>&-")
    assert process.returncode == 0
    assert (folder / "moved.csv").read_text(encoding="utf-8") == "x,y,z\n" + 9000 * "1.0000,2.0000,3.0000\n"


def test_a_pipe_that_nobody_reads(folder):
    process = shell(folder, TABLE, "| head -n 1; exit ${PIPESTATUS[0]}")
    assert (process.returncode, process.stdout, process.stderr) == (141, "x,y,z\n", "")


@pytest.mark.parametrize("stderr", ["2> /dev/full", "2>&-"])
def test_a_stderr_that_cannot_be_written(stderr, folder):
    assert shell(folder, "transform-points none.csv --transform identity.tfm", stderr).returncode == 2
    process = shell(folder, TABLE, stderr)
    assert process.returncode == 0
    assert process.stdout.startswith("x,y,z\n1.0000,2.0000,3.0000\n")
