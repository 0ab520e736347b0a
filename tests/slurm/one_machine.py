"""Slurm on a single machine: starts munge, slurmctld and slurmd with a folder for their state, and stops them. Needs root.

The node claims two cores, 20 GB and one GPU. Its device file is a stand-in, but Slurm treats it like a real GPU: it gives it to
one job at a time and sets CUDA_VISIBLE_DEVICES.
"""

import re
import secrets
import shlex
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

# Job steps drop every SLURM_ variable, including SLURM_CONF, and find the configuration only here.
CONFIGURATION = Path("/etc/slurm")
MARK = "# Written by tests/slurm/one_machine.py\n"

SLURM_CONF = """\
ClusterName=onemachine
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/task_prolog.sh
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
# Slurm remembers finished jobs for an hour, so that tests can query them.
MinJobAge=3600
KillWait=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=20000 Gres=gpu:fake:1 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""

# Records the devices of each job step: Slurm runs this right before the step, in its environment.
TASK_PROLOG = """\
#!/bin/sh
echo "$SLURM_JOB_ID ${{SLURM_STEP_ID:-batch}} ${{CUDA_VISIBLE_DEVICES:-none}}" >> {folder}/devices.txt
"""


class Slurm:
    """A running Slurm and the jobs since its start."""

    def __init__(self, folder):
        self.folder = folder

    def jobs(self):
        """The fields of `scontrol show job`, a mapping for each job."""
        text = subprocess.check_output(["scontrol", "show", "job", "--oneliner"], encoding="utf-8")
        lines = [line for line in text.splitlines() if line.startswith("JobId=")]
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]

    def devices(self):
        """CUDA_VISIBLE_DEVICES in the steps of each job, by job id, without the batch script itself."""
        devices = {}
        for line in (self.folder / "devices.txt").read_text(encoding="utf-8").splitlines():
            job, step, device = line.split()
            if step.isdigit():
                devices.setdefault(job, []).append(device)
        return devices

    def cancel_all(self):
        subprocess.run(["scancel", "--user=root"], check=True)
        wait_until(lambda: not subprocess.check_output(["squeue", "--noheader"]).strip(), "jobs are still running")


def wait_until(happened, otherwise, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)


def _answers(*command, expected=""):
    process = subprocess.run(command, capture_output=True, encoding="utf-8")
    return process.returncode == 0 and expected in process.stdout


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def _configure(folder):
    host = socket.gethostname().partition(".")[0]
    controller_port, node_port = _free_ports(2)
    values = {"folder": folder, "host": host, "controller_port": controller_port, "node_port": node_port}
    (folder / "task_prolog.sh").write_text(TASK_PROLOG.format(**values), encoding="utf-8")
    (folder / "task_prolog.sh").chmod(0o755)
    (folder / "devices.txt").touch()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(1024))
    files = {
        "slurm.conf": SLURM_CONF.format(**values),
        "gres.conf": f"NodeName={host} Name=gpu Type=fake File=/dev/null\n",
        "cgroup.conf": "CgroupPlugin=cgroup/v1\n",
    }
    CONFIGURATION.mkdir(exist_ok=True)
    for name, text in files.items():
        path = CONFIGURATION / name
        assert not path.exists() or path.read_text(encoding="utf-8").startswith(MARK), f"{path}: this machine already has Slurm"
        path.write_text(MARK + text, encoding="utf-8")
    return [CONFIGURATION / name for name in files]


@contextmanager
def running(folder):
    """A running Slurm with its state and logs in `folder`, which every user must be able to enter."""
    written = _configure(folder)
    daemons = []

    def start(command, ready, otherwise):
        with open(folder / f"{Path(shlex.split(command)[0]).name}.out", "w", encoding="utf-8") as output:
            daemons.append(subprocess.Popen(shlex.split(command), stdout=output, stderr=output))
        wait_until(ready, otherwise)

    try:
        own = " ".join(
            f"--{name}={folder}/munge.{suffix}"
            for name, suffix in (
                ("socket", "socket"),
                ("key-file", "key"),
                ("pid-file", "pid"),
                ("log-file", "log"),
                ("seed-file", "seed"),
            )
        )
        start(f"munged --foreground {own}", (folder / "munge.socket").exists, f"no munged: {folder}")
        start("slurmctld -D", lambda: _answers("scontrol", "ping", expected="is UP"), f"no slurmctld: {folder}")
        start("slurmd -D", lambda: _answers("sinfo", "-h", "-o", "%t", expected="idle"), f"no slurmd: {folder}")
        slurm = Slurm(folder)
        yield slurm
        slurm.cancel_all()
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()
        for path in written:
            path.unlink()
