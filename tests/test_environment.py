"""requirements.in, constraints.txt and environment.yml agree; optional packages have their own requirements and pins."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from regnet import __version__
from regnet.registration.methods import PACKAGES

ROOT = Path(__file__).parents[1]

OPTIONAL = ("peers", "slurm")


def requirements(file="requirements.in"):
    lines = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in (line.partition("#") for line in lines)}


def constraints(file="constraints.txt"):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def test_every_requirement_says_what_it_is_for():
    for file in ("requirements.in", *(f"requirements-{name}.in" for name in OPTIONAL)):
        assert all(len(reason) > 4 for reason in requirements(file).values()), file


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_packages_are_pinned_and_not_part_of_the_default(name):
    optional, pinned = requirements(f"requirements-{name}.in"), constraints(f"constraints-{name}.txt")

    def plain(names):
        return {re.sub(r"[-_.]+", "-", name) for name in names}

    assert set(optional) <= plain(pinned)
    assert not set(optional) & set(requirements())
    # Each package has one version, above all torch, which convexadam requires without a version.
    assert not plain(pinned) & plain(constraints())
    assert not [name for name in pinned if name.startswith(("torch", "nvidia"))]


def test_modules_name_the_packages_of_the_peers():
    assert {package for _, package in PACKAGES.values()} == set(requirements("requirements-peers.in"))


def test_environment_yml_has_the_requirements_at_the_constrained_versions():
    (pip,) = [
        entry["pip"]
        for entry in yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
        if isinstance(entry, dict)
    ]
    pinned = constraints()
    expected = [f"{name}=={pinned[name.partition('[')[0].lower()]}" for name in requirements()]
    assert pip == expected


def test_pre_commit_and_make_lint_use_the_same_versions():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    revisions = {hook["repo"].rpartition("/")[2].removesuffix("-pre-commit"): hook["rev"] for hook in hooks}
    pinned = constraints()
    assert revisions == {name: f"v{pinned[name]}" for name in ("ruff", "snakefmt")}


def test_github_runs_the_script_of_the_ci_with_the_oldest_python_that_is_supported():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["ci"]["steps"]
    (python,) = [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={python}"
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]
    assert (ROOT / ".ci" / "run").is_file()


def test_citation_and_changelog_name_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\d\S*)", changelog, re.MULTILINE)[0] == __version__
