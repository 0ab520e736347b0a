"""Wheel and sdist are built and installed into an environment with what they require alone; two scans are registered there."""

import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from packaging.requirements import Requirement

from regnet.images.transforms import read_transform
from regnet.images.volumes import Grid, write_image

ROOT = Path(__file__).parents[2]

LARGEST_WHEEL_MB = 20

pytestmark = pytest.mark.slow


def run(*command, **options):
    process = subprocess.run([str(word) for word in command], capture_output=True, encoding="utf-8", **options)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]
    return process.stdout


def required(found: Distribution, seen: dict[str, Distribution]) -> dict[str, Distribution]:
    """What a distribution requires without extras, and what that requires in turn."""
    for requirement in map(Requirement, found.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            name = requirement.name.lower()
            if name not in seen:
                seen[name] = distribution(name)
                required(seen[name], seen)
    return seen


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from an sdist of the files that git knows."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    names = run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, source)
    assert len(list(built.glob("*.tar.gz"))) == 1
    (path,) = built.glob("*.whl")
    assert path.stat().st_size < LARGEST_WHEEL_MB * 2**20
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with the wheel. The packages that it requires are linked from this one, where they are pinned."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (info,) = packages.glob("*.dist-info")
    for found in required(Distribution.at(info), {}).values():
        for name in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            target = packages / name
            if not target.exists():
                target.symlink_to(Path(found.locate_file(name)))
    run(*pip, "check")
    return folder


def test_two_scans_are_registered_without_the_workflow(environment, tmp_path):
    grid = Grid((48, 44, 40), (2.0, 2.0, 2.0), (-40.0, 10.0, -90.0))
    noise = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    smooth = sitk.GetArrayFromImage(sitk.Normalize(sitk.SmoothingRecursiveGaussian(grid.image(noise), 4.0)))
    hu = np.full(grid.shape, 30, np.int16)
    lungs = np.zeros(grid.shape, np.uint8)
    lungs[6:-6, 6:-6, 6:-6] = 1
    hu[lungs > 0] = np.clip(smooth * 150 - 750, -1000, 0)[lungs > 0]
    hu[:2] = -1000
    for name, image in (("scan", hu), ("mask", lungs)):
        write_image(grid.image(image), tmp_path / f"{name}.nii.gz")
    masks = ("--fixed-mask", "mask.nii.gz", "--moving-mask", "mask.nii.gz")
    run(environment / "bin" / "regnet", "register", "scan.nii.gz", "scan.nii.gz", *masks, "--output", "out", cwd=tmp_path)
    transform = read_transform(tmp_path / "out" / "transform.h5")
    moved = np.array(transform.TransformPoint(grid.points([24, 22, 20]).tolist())) - grid.points([24, 22, 20])
    assert np.abs(moved).max() < 0.5


@pytest.mark.parametrize("command", ["check", "plan"])
def test_commands_that_need_the_workflow_say_so(environment, command, tmp_path):
    process = subprocess.run([environment / "bin" / "regnet", command], cwd=tmp_path, capture_output=True, encoding="utf-8")
    expected = "regnet: error: snakemake: not installed, expected for this command; to install it: pip install '.[workflow]'\n"
    assert (process.returncode, process.stderr) == (2, expected)


def test_nothing_of_the_workflow_or_the_checks_is_installed(environment):
    code = "import importlib.util as u; print([n for n in ('snakemake', 'pytest', 'selenium', 'ruff') if u.find_spec(n)])"
    assert run(environment / "bin" / "python", "-c", code).strip() == "[]"
