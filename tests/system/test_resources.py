"""Files other than Python: an installed package finds its schemas, parameter files and weights, as the repository does."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from regnet.errors import InputError
from regnet.learning.released import find_weights
from regnet.system import resources
from regnet.system.resources import FOLDERS, PACKAGE, REPOSITORY, shipped

IN_THE_REPOSITORY_ALONE = ("regnet_early_1mm.", "regnet_1scale_1mm.")
"""Weights that nothing but the chapter's comparison uses."""

BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as `pip install` leaves it, built from a copy of the repository with released weights."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "target"))
    for path in (
        *REPOSITORY.glob("requirements*.in"),
        *(REPOSITORY / name for name in ("pyproject.toml", "README.md", "LICENSE")),
    ):
        shutil.copy(path, source)
    for name in ("workflow", "config", "resources"):
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (source / "resources" / "weights" / "regnet_of_the_test.safetensors").write_bytes(b"weights")
    process = subprocess.run([sys.executable, "-c", BUILD, str(wheels)], cwd=source, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr[-3000:]
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_the_shipped_folders_are_installed():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    data = {name: folder for name, folder in settings["package-dir"].items() if name != "regnet"}
    assert data == {f"regnet.data.{name}": folder for name, folder in FOLDERS.items()}
    code = {".".join(path.parent.relative_to(PACKAGE.parent).parts) for path in PACKAGE.rglob("__init__.py")}
    assert set(settings["packages"]) == code | set(data)


def test_an_installed_package_has_every_file_of_the_repository(installed):
    for name in FOLDERS:
        for path in shipped(name).iterdir():
            if path.name.startswith(IN_THE_REPOSITORY_ALONE):
                assert not (installed / "regnet" / "data" / name / path.name).exists()
                continue
            assert (installed / "regnet" / "data" / name / path.name).read_bytes() == path.read_bytes()
    for path in PACKAGE.rglob("*.py"):
        assert (installed / path.relative_to(PACKAGE.parent)).exists()


def test_an_installed_package_uses_its_own_files(installed, tmp_path):
    code = (
        "from regnet.system.resources import shipped; from regnet.experiment.schemas import CONFIG_SCHEMA, validator;"
        "from regnet.learning.released import find_weights; validator(CONFIG_SCHEMA);"
        "print(shipped('elastix') / 'affine.txt', CONFIG_SCHEMA, find_weights('regnet_of_the_test'), sep='\\n')"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(installed)}, capture_output=True, encoding="utf-8"
    )
    assert process.returncode == 0, process.stderr
    paths = [Path(line) for line in process.stdout.splitlines()]
    assert [path.name for path in paths] == ["affine.txt", "config.schema.yaml", "regnet_of_the_test.safetensors"]
    assert all(path.is_relative_to(installed) and path.exists() for path in paths)
    entry_points = next(installed.glob("*.dist-info/entry_points.txt")).read_text(encoding="utf-8")
    assert "regnet = regnet.cli:main" in entry_points


def test_weights_are_found_by_path_or_name(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "REPOSITORY", tmp_path)
    folder = tmp_path / FOLDERS["weights"]
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"^regnet_2mm: found no such weights, .* \(none exists\); `make run`"):
        find_weights("regnet_2mm")
    for name in ("regnet_2mm", "regnet_1mm"):
        (folder / f"{name}.safetensors").write_bytes(b"")
    assert find_weights("regnet_1mm") == folder / "regnet_1mm.safetensors"
    assert find_weights(tmp_path / "resources" / "weights" / "regnet_1mm.safetensors").is_file()
    with pytest.raises(InputError, match=r"other\.safetensors: found no such weights, .* \(regnet_1mm, regnet_2mm\);"):
        find_weights(tmp_path / "other.safetensors")
