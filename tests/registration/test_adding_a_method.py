"""The example of docs/adding-a-method.md, unchanged: it is short, the config accepts it, and the workflow runs it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from regnet.experiment.schemas import check_config
from regnet.images.transforms import transform_points
from regnet.registration.methods import check_methods
from regnet.registration.run import register_pair

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The settings of the example; its module is in the current folder, where the config looks for it."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "ffd.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return yaml.safe_load(block("yaml"))["methods"]


def test_the_example_is_short():
    assert len((block("python") + block("yaml")).splitlines()) < 40


def test_the_example_is_a_method_of_the_config(example):
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    check_config(config | {"methods": config["methods"] | example})
    check_methods(example)


def test_the_example_registers(example, oblique_grid, rng, tmp_path):
    noise = sitk.SmoothingRecursiveGaussian(oblique_grid.image(rng.normal(size=oblique_grid.shape).astype(np.float32)), 5.0)
    fixed = sitk.Cast(-600 + 200 * sitk.Normalize(noise), sitk.sitkInt16)
    shift = np.array((6.0, -4.0, 5.0))
    moving = sitk.Resample(fixed, sitk.TranslationTransform(3, (-shift).tolist()), sitk.sitkBSpline, -600.0)
    array = np.zeros(oblique_grid.shape, np.uint8)
    array[12:-12, 12:-12, 12:-12] = 1
    mask = oblique_grid.image(array)
    log = tmp_path / "tool.log"
    transform = register_pair(
        *(fixed, moving, example["ffd"]),
        **{"fixed_mask": mask, "moving_mask": mask, "initial": sitk.TranslationTransform(3, (2.0, 0.0, 2.0)), "margin": 15.0},
        tool_log=log,
    )
    points = oblique_grid.points(rng.uniform(16, np.array(oblique_grid.size) - 17, (200, 3)))
    errors = np.linalg.norm(transform_points(transform, points) - points - shift, axis=1)
    assert errors.mean() < 0.4


def test_the_workflow_takes_the_example(example, tmp_path):
    for name in ("Snakefile", "workflow", "config", "profiles", "environment.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "ffd.yaml").write_text(block("yaml"), encoding="utf-8")
    target = "results/test/registrations/ffd/test1/transform.h5"
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--configfile", "config/test.yaml", "ffd.yaml", "--", target]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr[-3000:]
    assert "methods/ffd.py" in process.stdout
