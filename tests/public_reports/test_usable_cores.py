"""Threads by default: the cores that the process may use, not those of the machine.

Public report: programs that ask ``os.cpu_count()`` take all cores of a node that they share.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regnet.system.machine import usable_cores

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"


def control_groups(folder, membership, files):
    """A folder like / with the files of control groups; returns it."""
    for name, content in {"proc/self/cgroup": membership, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def bound():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_a_process_that_is_bound_to_one_core(tmp_path):
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{core}]); from regnet.system.machine import usable_cores; "
        "from regnet import cli; print(usable_cores(), cli._parser().parse_args('register a b -o c'.split()).threads)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, capture_output=True, encoding="utf-8", check=True
    )
    assert process.stdout == "1 1\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        (
            "0::/job/step\n",
            {"sys/fs/cgroup/job/cpu.max": "150000 100000\n", "sys/fs/cgroup/job/step/cpu.max": "max 100000\n"},
            1,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        (
            "5:memory:/job\n4:cpu,cpuacct:/job\n",
            {"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        # A container: its group is not below what is mounted.
        (
            "4:cpu,cpuacct:/docker/1f\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        # No limit, and what cannot be known.
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ("4:cpu:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "nonsense\n"}, None),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 64),
        ("nonsense", {}, None),
    ],
)
def test_the_quota_of_control_groups(membership, files, quota, tmp_path):
    assert usable_cores(control_groups(tmp_path, membership, files)) == min(bound(), quota or bound())


def test_a_machine_without_control_groups(tmp_path):
    assert usable_cores(tmp_path) == bound()


def test_a_machine_without_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores(tmp_path) == os.cpu_count()
