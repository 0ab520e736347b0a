"""profiles/slurm on a real Slurm: the test config end to end, GPUs, a job over its time limit, and Snakemake killed midway."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import yaml
from one_machine import running, wait_until
from working_copy import copy_of_the_workflow

GROUPS = {"images", "samples", "errors", "tables", "figures", "pages"}

pytestmark = pytest.mark.skipif(
    os.environ.get("TEST_SLURM") != "1", reason="starts a Slurm on this machine, as root: make test-slurm does"
)


@pytest.fixture(scope="module")
def slurm():
    # Not a folder of pytest: munge requires one that every user can enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder)) as cluster:
            yield cluster


def site(folder, **changes):
    """Edit the profile in a folder as a site would, and apply `changes`; the rest is as in the repository."""
    path = folder / "profiles" / "slurm" / "profile.yaml"
    profile = yaml.safe_load(path.read_text(encoding="utf-8"))
    profile["default-resources"]["slurm_partition"] = "main"
    profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 3, "latency-wait": 5}
    path.write_text(yaml.safe_dump(profile | changes), encoding="utf-8")


def command(*arguments, config=("config/test.yaml",)):
    slurm = ("--workflow-profile", "profiles/slurm")
    return [sys.executable, "-m", "snakemake", *slurm, "--configfile", *config, *arguments]


def snakemake(folder, *arguments, **options):
    process = subprocess.run(command(*arguments, **options), cwd=folder, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr[-5000:]
    return process.stderr


def jobs_of(slurm, log):
    """The Slurm jobs in a log of Snakemake, in the order of submission."""
    submitted = re.findall(r"has been submitted with SLURM jobid (\d+)", log)
    known = {job["JobId"]: job for job in slurm.jobs()}
    return [known[job] for job in submitted]


def name_of(job):
    """The rule of a Slurm job, or its group."""
    name = job["Comment"].removeprefix("rule_").partition("_wildcards_")[0]
    return next((group for group in GROUPS if name.startswith(f"{group}_")), name)


def one_at_a_time(jobs, first):
    """Whether each job ended before the `first` time (StartTime or SubmitTime) of the next job."""
    times = sorted((datetime.fromisoformat(job[first]), datetime.fromisoformat(job["EndTime"])) for job in jobs)
    return all(end <= start for (_, end), (start, _) in pairwise(times))


@pytest.fixture(scope="module")
def run(slurm, tmp_path_factory):
    """A folder in which the test config has been run through Slurm, and the log of Snakemake."""
    folder = copy_of_the_workflow(tmp_path_factory.mktemp("run"))
    site(folder)
    return folder, snakemake(folder)


def test_the_run_leaves_the_table_and_the_figures(run):
    results = run[0] / "results" / "test"
    assert len(pd.read_csv(results / "tables" / "table_2_1.csv")) == 12
    assert (results / "figures" / "figure_2_5.png").exists()
    assert (results / "viewers" / "test1.html").exists()
    assert (results / "report" / "run_times.html").exists()


def test_short_jobs_run_in_groups_that_request_the_largest_memory_and_the_total_time(slurm, run):
    jobs = jobs_of(slurm, run[1])
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert {job["NumCPUs"] for job in jobs} == {"1"}
    count = Counter(map(name_of, jobs))
    assert set(count) == GROUPS | {"register", "register_regnet", "train", "evaluate_synthetic", "field_statistics"}
    assert (count["images"], count["register"], count["train"]) == (1, 3, 3)
    requested = {name_of(job): (job["MinMemoryNode"], job["TimeLimit"]) for job in jobs}
    # Three phantoms with two images each: 15 jobs of ten minutes.
    assert requested["images"] == ("3000M", "02:30:00")
    assert requested["errors"] == ("4000M", "01:10:00")
    assert requested["register"] == ("4000M", "01:00:00")
    assert requested["train"] == ("6000M", "1-00:00:00")


def test_only_jobs_that_request_a_gpu_get_it(slurm, run):
    jobs = jobs_of(slurm, run[1])
    with_gpu = [job for job in jobs if job.get("TresPerJob") == "gres:gpu:1"]
    assert {name_of(job) for job in with_gpu} == {"train", "evaluate_synthetic", "register_regnet"}
    assert {job["Partition"] for job in with_gpu} == {"gpu"}
    devices = slurm.devices()
    for job in jobs:
        assert set(devices[job["JobId"]]) == ({"0"} if job in with_gpu else {"none"}), job
    # Up to four may be submitted, but the machine has one GPU.
    assert one_at_a_time(with_gpu, "StartTime")


def registered(method, pair):
    return f"results/test/registrations/{method}/{pair}/transform.h5"


def test_a_cap_on_gpus_delays_submission(slurm, run, tmp_path):
    folder = tmp_path / "capped"
    shutil.copytree(run[0], folder)
    with open(folder / "config" / "cohorts" / "test" / "pairs.tsv", "a", encoding="utf-8") as table:
        table.write("back\ttest1_followup\ttest1_baseline\t\t\n")
    snakemake(folder, "--", registered("affine", "back"))
    targets = [registered("regnet", pair) for pair in ("test1", "back")]
    log = snakemake(folder, "--resources", "gpu=1", "turn=1", "--forcerun", "register_regnet", "--", *targets)
    jobs = jobs_of(slurm, log)
    assert [name_of(job) for job in jobs] == ["register_regnet"] * 2
    assert one_at_a_time(jobs, "SubmitTime")


def test_the_network_also_runs_on_a_cluster_without_gpus(slurm, run, tmp_path):
    folder = tmp_path / "cpu"
    shutil.copytree(run[0], folder)
    changed = ("register_regnet:gpu=0", "register_regnet:slurm_partition=main")
    target = registered("regnet", "test1")
    (job,) = jobs_of(slurm, snakemake(folder, "--set-resources", *changed, "--forcerun", "register_regnet", "--", target))
    assert (job["JobState"], job["Partition"]) == ("COMPLETED", "main")
    assert "TresPerJob" not in job
    assert set(slurm.devices()[job["JobId"]]) == {"none"}


HANGS_ONCE = """\
import time
from pathlib import Path


def register(fixed, moving, fixed_mask, moving_mask, initial, settings):
    if not Path("hung").exists():
        Path("hung").touch()
        time.sleep(600)
    return initial
"""


def test_a_job_over_its_time_limit_is_reported_and_gets_more_time(slurm, run, tmp_path):
    folder = tmp_path / "late"
    shutil.copytree(run[0], folder)
    # Slurm counts in minutes, so the first attempt gets one; time and memory grow with the attempts, as in the rules.
    site(folder, **{"set-resources": {"register": {"runtime": "attempt", "mem_mb": "1000 * attempt"}}})
    (folder / "methods").mkdir()
    (folder / "methods" / "hangs.py").write_text(HANGS_ONCE, encoding="utf-8")
    (folder / "late.yaml").write_text("methods: {hangs: {module: methods/hangs.py}}\n", encoding="utf-8")
    target = registered("hangs", "test1")
    log = snakemake(folder, "--", target, config=["config/test.yaml", "late.yaml"])
    jobs = jobs_of(slurm, log)
    # Two jobs, or three on a machine so busy that two minutes are too few.
    requested = [(job["TimeLimit"], job["MinMemoryNode"]) for job in jobs]
    assert requested == [("00:01:00", "1000M"), ("00:02:00", "2000M"), ("00:03:00", "3000M")][: max(2, len(jobs))]
    assert [job["JobState"] for job in jobs] == [*["TIMEOUT"] * (len(jobs) - 1), "COMPLETED"]
    assert f"SLURM-job '{jobs[0]['JobId']}' failed, SLURM status is: 'TIMEOUT'" in log
    assert (folder / target).exists()


def test_snakemake_killed_midway_continues(slurm, run, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(run[0], folder)
    shutil.rmtree(folder / "results" / "test" / "registrations")
    target = registered("bspline_1r", "test1")
    with open(folder / "killed.log", "w", encoding="utf-8") as output:
        process = subprocess.Popen(command("--", target), cwd=folder, stderr=output)

    def jobs():
        return jobs_of(slurm, (folder / "killed.log").read_text(encoding="utf-8"))

    # The second of two jobs, which needs the output of the first.
    wait_until(lambda: len(jobs()) == 2 and jobs()[1]["JobState"] == "RUNNING", "no second job", seconds=900)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert jobs()[1]["JobState"] == "RUNNING", "a job outlives a Snakemake that was killed"

    # The steps in docs/cluster.md.
    (name,) = re.findall("SLURM run ID: (.+)", (folder / "killed.log").read_text(encoding="utf-8"))
    subprocess.run(["scancel", "--name", name], check=True)
    wait_until(lambda: jobs()[1]["JobState"] == "CANCELLED", "not cancelled")
    snakemake(folder, "--unlock")
    (job,) = jobs_of(slurm, snakemake(folder, "--", target))
    assert job["Comment"] == jobs()[1]["Comment"]
    assert (folder / target).exists()
