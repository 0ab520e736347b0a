"""``regnet plan`` shows why Snakemake fails.

Public report: of Snakemake's output only the last line was shown, which names the profile and not the reason.
"""

import shutil
from pathlib import Path

import pytest

from regnet.cli import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the workflow, which is the current folder."""
    for name in ("workflow", "config", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def version(folder):
    change(folder / "Snakefile", 'min_version("9.0")', 'min_version("99.0")')


def missing_input(folder):
    change(folder / "workflow" / "rules" / "report.smk", "    input:\n", '    input:\n        "scans/none.mha",\n')


def option(folder):
    change(folder / "profiles" / "default" / "profile.yaml", "rerun-incomplete: true", "no-such-option: true")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (version, ["WorkflowError", "Expecting Snakemake version 99.0 or higher"]),
        (missing_input, ["Missing input files for rule", "scans/none.mha"]),
        (option, ["unrecognized arguments: --no-such-option"]),
    ],
)
def test_the_reason_is_shown_in_one_line(damage, parts, folder, capfd):
    damage(folder)
    assert main(["plan", "--configfile", "config/test.yaml"]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("regnet: error: snakemake --dry-run: ")
    assert printed.err.count("\n") == 1
    assert [part for part in parts if part not in printed.err] == []
    assert "Using " not in printed.err
