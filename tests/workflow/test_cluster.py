"""Jobs on other machines, with a submit script in the place of a scheduler; of profiles/slurm what needs no Slurm."""

import re
import subprocess
import sys

import pytest
import yaml
from working_copy import ROOT, copy_of_the_workflow

# What sbatch and qsub do: take a script, start it elsewhere, say a number and return.
SUBMIT = """\
#!/bin/sh
echo "$1 $2 $3" >> submitted.txt
setsid sh "$4" > "$4.out" 2>&1 &
echo $!
"""


def slurm_profile():
    return yaml.safe_load((ROOT / "profiles" / "slurm" / "profile.yaml").read_text(encoding="utf-8"))


def snakemake(folder, *arguments, config="config/test.yaml"):
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/generic", "--configfile", config]
    return subprocess.run([*command, *arguments], cwd=folder, capture_output=True, encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """The workflow with a profile for the submit script, with the groups, memory and time of the profile for Slurm."""
    folder = copy_of_the_workflow(tmp_path)
    (folder / "submit.sh").write_text(SUBMIT, encoding="utf-8")
    profile = {
        "executor": "cluster-generic",
        "cluster-generic-submit-cmd": "sh submit.sh {threads} {resources.mem_mb} {resources.runtime}",
        "jobs": 4,
        "seconds-between-status-checks": 1,
        "default-resources": {key: slurm_profile()["default-resources"][key] for key in ("mem_mb", "runtime")},
        **{key: slurm_profile()[key] for key in ("groups", "group-components")},
    }
    (folder / "profiles" / "generic").mkdir()
    (folder / "profiles" / "generic" / "profile.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_jobs_run_where_a_submit_script_puts_them(folder):
    results = folder / "results" / "test"
    target = results / "registrations" / "affine" / "test1" / "transform.h5"
    process = snakemake(folder, "--", str(target.relative_to(folder)))
    assert process.returncode == 0, process.stderr[-5000:]
    assert target.exists()
    assert (results / "images" / "1.75mm" / "test1_baseline.nii.gz").exists()
    # A phantom, and lungs and grids of its two images: one group of three steps of ten minutes. Then the registration.
    submitted = (folder / "submitted.txt").read_text(encoding="utf-8").splitlines()
    assert submitted == ["2 6000 30", "1 4000 60"]


def test_memory_and_time_grow_with_the_attempt(folder):
    target = "results/test/registrations/affine/test1/transform.h5"
    process = snakemake(folder, "--dry-run", "--attempt", "2", "--", target)
    assert process.returncode == 0, process.stderr
    # Those of a rule, and those of the profile for rules that have none.
    for rule, memory, minutes in (("register", 8000, 120), ("phantom", 4000, 20)):
        resources = re.search(rf"rule {rule}:\n(?:.*\n)*?    *resources: (.*)", process.stdout).group(1)
        assert f"mem_mb={memory}" in resources
        assert f"runtime={minutes}" in resources


def test_jobs_ask_for_the_same_here_and_on_a_cluster():
    default = yaml.safe_load((ROOT / "profiles" / "default" / "profile.yaml").read_text(encoding="utf-8"))["default-resources"]
    assert default == {key: slurm_profile()["default-resources"][key] for key in ("mem_mb", "runtime")}


def test_groups_are_short_rules_that_are_there(folder):
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    profile = slurm_profile()
    assert set(profile["groups"]) <= set(re.findall(r"^ *(?:use rule \w+ as|rule) (\w+)(?: with)?:", text, re.MULTILINE))
    assert set(profile["groups"].values()) == set(profile["group-components"])
    assert not {"train", "register", "register_again", "register_regnet", "evaluate_synthetic"} & set(profile["groups"])
    # No group depends on itself: Snakemake would refuse.
    process = snakemake(folder, "--dry-run", config="config/config.yaml")
    assert process.returncode == 0, process.stderr
