"""requirements*.in, constraints.txt and environment.yml agree; each extra has its own requirements."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from regnet import __version__
from regnet.registration.methods import PACKAGES

ROOT = Path(__file__).parents[1]

OPTIONAL = ("peers", "slurm")


DEFAULT = ("requirements.in", "requirements-workflow.in", "requirements-dev.in")
"""What `make` installs."""

ON_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that have another name on conda-forge."""

OF_MODULES = {package.lower() for _, package in PACKAGES.values()}
"""What rows of the table need that the user adds."""

IMPORTED_AS = {"itk": "itk-elastix", "yaml": "PyYAML", **dict(PACKAGES.values())}

NAME = re.compile(r"([A-Za-z0-9-]+)(\[\w+\])?(.*)")


def requirements(*files):
    """Names without bounds, and the reasons."""
    return {NAME.match(line)[1]: reason for file in files for line, reason in lines(file).items()}


def lines(file):
    """The requirements of a file, and the reasons."""
    written = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in (line.partition("#") for line in written)}


def constraints(file="constraints.txt"):
    pinned = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in pinned if line and not line.startswith("#"))


def plain(names):
    return {re.sub(r"[-_.]+", "-", name.lower()) for name in names}


def test_every_requirement_says_what_it_is_for():
    for file in (*DEFAULT, *(f"requirements-{name}.in" for name in OPTIONAL)):
        assert all(len(reason) > 4 for reason in lines(file).values()), file


def test_what_is_installed_for_users_has_lower_bounds_that_the_pins_meet():
    pinned = {Requirement(f"{name}=={version}").name: version for name, version in constraints().items()}
    for file in DEFAULT[:2]:
        for requirement in map(Requirement, lines(file)):
            assert [bound.operator for bound in requirement.specifier] == [">="], requirement
            assert pinned[requirement.name.lower()] in requirement.specifier, requirement
    assert plain(requirements(*DEFAULT)) <= plain(pinned)


def test_what_the_package_imports_is_required():
    """By the package itself or, in a function that only the workflow calls, by the extra of the workflow."""
    allowed = set(sys.stdlib_module_names) | {"regnet"}
    runtime, workflow = (plain(requirements(file)) for file in DEFAULT[:2])
    for path in (ROOT / "workflow" / "scripts" / "regnet").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in {name.partition(".")[0] for name in names} - allowed:
                package = plain([IMPORTED_AS.get(name, name)])
                # The workflow alone writes pages of the report; rows with such a module are checked before they run.
                at_once = node in tree.body and path.name != "report.py" and path.stem not in PACKAGES
                assert package <= (runtime if at_once else runtime | workflow | OF_MODULES), f"{path}: {name}"


@pytest.mark.parametrize("name", OPTIONAL)
def test_optional_packages_are_pinned_and_not_part_of_the_default(name):
    optional, pinned = plain(requirements(f"requirements-{name}.in")), constraints(f"constraints-{name}.txt")
    assert optional <= plain(pinned)
    assert not optional & plain(requirements(*DEFAULT))
    # Each package has one version, above all torch, which convexadam requires without a version.
    assert not plain(pinned) & plain(constraints())
    assert not [name for name in pinned if name.startswith(("torch", "nvidia"))]


def test_modules_name_the_packages_of_the_peers():
    assert {package for _, package in PACKAGES.values()} == set(requirements("requirements-peers.in"))


def test_environment_yml_has_the_requirements_of_the_workflow_and_no_test_tools():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (of_pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    of_conda = [entry for entry in dependencies if isinstance(entry, str)]
    required = {}
    for line in (*lines(DEFAULT[0]), *lines(DEFAULT[1])):
        name, _, bound = NAME.match(line).groups()
        required[name] = bound
    assert of_pip == [f"itk-elastix{required.pop('itk-elastix')}"]
    named = {ON_CONDA.get(name, name.lower()) + bound for name, bound in required.items()}
    assert set(of_conda) == named | {"python>=3.11,<3.14", "pip"}


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
