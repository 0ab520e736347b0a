"""requirements.in says what is used, constraints.txt and environment.yml follow it."""

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def requirements():
    lines = [
        line
        for line in (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    return {name.strip(): reason.strip() for name, _, reason in (line.partition("#") for line in lines)}


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def test_every_requirement_says_what_it_is_for():
    assert all(len(reason) > 4 for reason in requirements().values())


def test_environment_yml_has_the_requirements_at_the_constrained_versions():
    (pip,) = [
        entry["pip"]
        for entry in yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
        if isinstance(entry, dict)
    ]
    pinned = constraints()
    expected = [f"{name}=={pinned[name.partition('[')[0].lower()]}" for name in requirements()]
    assert pip == expected
