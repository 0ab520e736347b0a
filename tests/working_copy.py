"""The workflow in a folder of its own, as a user has it after cloning, for tests that run or change it."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_of_the_workflow(folder):
    for name in ("workflow", "config", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    return folder
