"""Disturb runs with real faults; a rerun must end with the tables of an undisturbed run, byte for byte.

    python tests/faults/run.py [--seed NUMBER] [--kills NUMBER] [--keep] [--folder FOLDER] [CASE ...]

The config `faults.yaml` is run once without faults. Each case copies this run, removes the outputs of one stage and all tables,
disturbs the run that makes them again, reruns Snakemake, and prints a line. The disk-* and read-only cases need root and mount.
"""

import argparse
import fnmatch
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests"))

from file_events import FileEvents  # noqa: E402 - needs the path above
from working_copy import copy_of_the_workflow  # noqa: E402

RESULTS = Path("results/faults")

MEASURED = {
    "evaluation/runs.csv": ("seconds", "memory_mb"),
    "tables/comparison.csv": ("seconds", "seconds_with_affine", "memory_mb"),
}
"""Columns of time and memory, which differ between any two runs."""

STAGES = {
    "images": ["cohort/test1_*", "masks", "images", "registrations", "evaluation/[!s]*"],
    "synthesis": ["synthetic/validation1_*", "patches/validation1_*", "evaluation/synthetic*"],
    "training": ["models", "evaluation/synthetic*"],
    "registration": ["registrations", "evaluation/[!s]*"],
    "evaluation": ["evaluation"],
}
"""Outputs of each stage and of the stages that depend on it. Removing them and the tables makes the stage run again."""

TABLES = ("tables", str(RESULTS / "evaluation" / "field_statistics.csv"))
"""Targets that make all tables."""

JOBS = {
    "training": ["train"],
    "registration": ["register", "register_regnet"],
    "evaluation": ["evaluate_synthetic", "evaluate_landmarks", "evaluate_regularity", "evaluate_fields"],
}
"""Scripts of the jobs that are killed, by stage."""


class Skipped(Exception):
    """A case that cannot run on this machine; the message says why."""


class Failed(Exception):
    """A requirement of a case that is not met."""


def require(fact: bool, message: str) -> None:
    if not fact:
        raise Failed(message)


class Workflow:
    """A copy of the workflow in its own folder, and its runs."""

    def __init__(self, folder: Path, *configs: str) -> None:
        self.folder = folder
        self.configs = configs or ("faults.yaml",)

    def start(self, *arguments: str, cores: int = 2) -> subprocess.Popen:
        """Start Snakemake in a new process group, as a shell does."""
        output = open(self.folder / "output.txt", "w", encoding="utf-8")  # noqa: SIM115 - the process keeps it
        configs = ["config/test.yaml", *self.configs]
        command = [sys.executable, "-m", "snakemake", "--resources", "gpu=0", "--configfile", *configs, "--cores", str(cores)]
        with output:
            return subprocess.Popen(
                [*command, *arguments], cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def run(self, *arguments: str, cores: int = 2) -> tuple[int, str]:
        """Run Snakemake; return its exit status and its output."""
        status = self.start(*arguments, cores=cores).wait()
        return status, self.output()

    def output(self) -> str:
        return (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")

    def remove(self, stage: str) -> None:
        for pattern in (*STAGES[stage], "tables"):
            for path in (self.folder / RESULTS).glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def jobs(self, names: list[str] | None = None) -> dict[int, str]:
        """The running jobs of this folder: process ids and names of scripts."""
        jobs = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if Path(os.readlink(process / "cwd")) != self.folder.resolve():
                    continue
            except OSError:
                continue
            scripts = [word for word in words[:3] if ".snakemake/scripts/" in word]
            name = Path(scripts[0]).name.split(".")[1] if scripts else None
            if name and (names is None or name in names):
                jobs[int(process.name)] = name
        return jobs

    def wait_for_job(self, snakemake: subprocess.Popen, names: list[str] | None = None) -> tuple[int, str]:
        """Wait for the first job of one of the scripts; return its process id and the script."""
        while snakemake.poll() is None:
            for process, name in self.jobs(names).items():
                return process, name
            time.sleep(0.02)
        raise Failed(f"no job of {names} ran: {self.output()[-2000:]}")

    def rerun(self, *targets: str) -> str:
        """Run again, as a user does after a fault: with --unlock first if Snakemake asks for it."""
        status, output = self.run(*(targets or TABLES))
        unlocked = ""
        if "snakemake --unlock" in output or "--unlock" in output:
            require(status != 0, "locked, but the exit status is 0")
            self.run("--unlock")
            status, output = self.run(*(targets or TABLES))
            unlocked = ", after --unlock"
        require(status == 0, f"the rerun failed: {errors(output) or output[-3000:]}")
        return unlocked


def errors(output: str) -> list[str]:
    """The lines of the output that describe an error."""
    return [line.strip() for line in output.splitlines() if line.startswith("error: ")]


def table(path: Path, name: str) -> bytes:
    """The part of a table that must be the same in all runs."""
    if name not in MEASURED:
        return path.read_bytes()
    frame = pd.read_csv(io.BytesIO(path.read_bytes()), dtype=str, keep_default_na=False)
    return frame.drop(columns=list(MEASURED[name])).to_csv(index=False).encode()


def tables(folder: Path, results: Path = RESULTS) -> dict[str, bytes]:
    paths = sorted([*(folder / results).glob("tables/*.csv"), *(folder / results).glob("evaluation/*.csv")])
    return {name: table(path, name) for path in paths for name in [path.relative_to(folder / results).as_posix()]}


class Harness:
    """The undisturbed run, and its copies."""

    def __init__(self, scratch: Path, rng: random.Random) -> None:
        self.scratch = scratch
        self.rng = rng
        self.reference = Workflow(scratch / "reference")
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, int] = {}
        self.tables: dict[str, bytes] = {}

    def checkout(self, folder: Path) -> None:
        folder.mkdir()
        copy_of_the_workflow(folder)
        shutil.copy(ROOT / "tests" / "faults" / "faults.yaml", folder)

    def prepare(self) -> str:
        """Make the undisturbed run and check that it moves all its outputs into place, unless the folder has an earlier one."""
        measured = self.reference.folder / "measured.json"
        if measured.exists():
            self.seconds, self.memory = json.loads(measured.read_text(encoding="utf-8"))
            self.tables = tables(self.reference.folder)
            return "made earlier"
        self.checkout(self.reference.folder)
        status, plan = self.reference.run("--dry-run", "all")
        require(status == 0, plan[-3000:])
        declared = {
            self.reference.folder / name
            for line in re.findall(r"^    output: (.*)$", plan, re.MULTILINE)
            for name in line.split(", ")
        }
        folders = {path.parent for path in declared}
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        moves = FileEvents(folders)
        process = self.reference.start("all")
        begun: dict[int, float] = {}
        names: dict[int, str] = {}
        while process.poll() is None:
            now = time.monotonic()
            moves.read()
            for job, name in self.reference.jobs().items():
                begun.setdefault(job, now)
                names[job] = name
                self.seconds[name] = max(self.seconds.get(name, 0.0), now - begun[job])
                self.memory[name] = max(self.memory.get(name, 0), virtual_memory(job))
            time.sleep(0.05)
        moves.read()
        moves.close()
        require(process.returncode == 0, self.reference.output()[-3000:])
        in_place = sorted(str(path) for path in declared & moves.made)
        require(not in_place, f"made in place: {', '.join(in_place)}")
        missing = sorted(str(path) for path in declared - moves.moved)
        require(not missing, f"not moved into place: {', '.join(missing)}")
        self.tables = tables(self.reference.folder)
        require(len(self.tables) > 8, "tables are missing")
        measured.write_text(json.dumps([self.seconds, self.memory]), encoding="utf-8")
        return f"{len(declared)} outputs of {len(self.seconds)} kinds of jobs, all moved into place; {len(self.tables)} tables"

    def copy(self, name: str) -> Workflow:
        folder = self.scratch / re.sub(r"\W+", "_", name)
        subprocess.run(["cp", "-a", "--reflink=auto", self.reference.folder, folder], check=True)
        return Workflow(folder)

    def check(self, workflow: Workflow) -> None:
        """Require the tables of the undisturbed run, and no half-written files."""
        remade = tables(workflow.folder)
        different = [name for name in self.tables if remade.get(name) != self.tables[name]] + sorted(
            remade.keys() - self.tables
        )
        require(not different, f"tables differ: {', '.join(different)}")
        left = [str(path.relative_to(workflow.folder)) for path in (workflow.folder / "results").rglob(".*-*")]
        require(not left, f"left over: {', '.join(left)}")


def virtual_memory(process: int) -> int:
    """The peak size of the address space of a process, in KiB."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    peak = re.search(r"VmPeak:\s+(\d+)", status)
    return int(peak[1]) if peak else 0


Case = Callable[[Harness, Workflow], str]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def register(function: Case) -> Case:
        CASES[name] = function
        return function

    return register


def end(process: subprocess.Popen, which: signal.Signals, group: bool = False) -> None:
    with_group = os.killpg if group else os.kill
    try:
        with_group(process.pid, which)
    except ProcessLookupError:
        return
    process.wait()


def kill_snakemake(harness: Harness, workflow: Workflow, which: signal.Signals, group: bool = False) -> str:
    """Kill Snakemake at a random time after its first job began, and check that no job outlives it."""
    stage = harness.rng.choice(list(STAGES))
    workflow.remove(stage)
    process = workflow.start(*TABLES)
    workflow.wait_for_job(process)
    delay = harness.rng.uniform(0, 12)
    time.sleep(delay)
    running = workflow.jobs()
    end(process, which, group)
    time.sleep(2)
    # A job that is still importing packages ends afterwards.
    alive = len(workflow.jobs().keys() & running.keys())
    unlocked = workflow.rerun()
    require(not workflow.jobs().keys() & running.keys(), "a job has outlived its Snakemake and the rerun")
    names = ", ".join(sorted(running.values())) or "no job"
    return f"{stage}, {delay:.1f} s after its first job began ({names}), {alive} of these alive 2 s later; rerun{unlocked}"


def kill_job(harness: Harness, workflow: Workflow, stage: str, which: signal.Signals) -> str:
    """Kill one job of a stage at a random time."""
    workflow.remove(stage)
    names = [harness.rng.choice(JOBS[stage])]
    process = workflow.start(*TABLES)
    job, name = workflow.wait_for_job(process, names)
    delay = harness.rng.uniform(0, harness.seconds[name])
    time.sleep(delay)
    ended = ""
    try:
        os.kill(job, which)
    except ProcessLookupError:
        ended = " (had ended)"
    status = process.wait()
    if not ended and status:
        require(f"died with <Signals.{which.name}" in workflow.output(), f"no message: {workflow.output()[-2000:]}")
    unlocked = workflow.rerun()
    return f"{name} {delay:.1f} s after it began{ended}, snakemake ended with {status}; rerun{unlocked}"


def kills(count: int) -> None:
    """Add cases of SIGKILL, for Snakemake and the jobs of three stages in turn."""
    for number in range(count):
        stage = ("snakemake", *JOBS)[number % 4]

        def run(harness: Harness, workflow: Workflow, stage: str = stage) -> str:
            if stage == "snakemake":
                return kill_snakemake(harness, workflow, signal.SIGKILL)
            return kill_job(harness, workflow, stage, signal.SIGKILL)

        case(f"kill-{number + 1:02d}-{stage}")(run)


for _stage in JOBS:
    case(f"term-{_stage}")(lambda harness, workflow, stage=_stage: kill_job(harness, workflow, stage, signal.SIGTERM))
case("term-snakemake")(lambda harness, workflow: kill_snakemake(harness, workflow, signal.SIGTERM))
case("interrupt")(lambda harness, workflow: kill_snakemake(harness, workflow, signal.SIGINT, group=True))


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    """Mount a file system during the block."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise Skipped("needs root and mount")
    at.mkdir(parents=True, exist_ok=True)
    process = subprocess.run(["mount", *arguments, str(at)], capture_output=True, encoding="utf-8")
    if process.returncode != 0:
        raise Skipped(f"mount: {process.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


DISKS = {
    "images": ("images", "images"),
    "synthesis": ("synthesis", "synthetic"),
    "training": ("training", "models"),
    "checkpoints": ("training", "checkpoints"),
    "registration": ("registration", "registrations"),
    "evaluation": ("evaluation", "evaluation"),
    "tables": ("evaluation", "tables"),
    "logs": ("evaluation", "logs"),
}
"""The stage that runs, and the folder on a disk that is too small."""


def out_of_disk(harness: Harness, workflow: Workflow, name: str) -> str:
    """Put the folder of a stage on a disk that is too small for its outputs; then enlarge the disk."""
    stage, folder = DISKS[name]
    needed = size(workflow.folder / RESULTS / folder)
    workflow.remove(stage)
    path = workflow.folder / RESULTS / folder
    shutil.rmtree(path, ignore_errors=True)
    room = {"checkpoints": 2**20, "logs": 2**12, "images": needed // 8}.get(name) or max(
        2**12, int(harness.rng.uniform(0.3, 0.8) * needed)
    )
    with mounted("-t", "tmpfs", "-o", f"size={room}", "tmpfs", at=path):
        status, output = workflow.run(*TABLES)
        lines = errors(output)
        if name == "logs":
            require(status == 0, f"a full disk for logs stops the run: {lines}")
        else:
            require(status != 0 and len(lines) > 0, f"status {status}, {lines}, {output[-3000:]}")
            require(all(re.search(r"space left|disk full", line) for line in lines), f"unclear: {lines}")
        subprocess.run(["mount", "-o", "remount,size=2G", str(path)], check=True)
        workflow.rerun()
        result = lines[0] if lines else "nothing fails"
        # Unmounting removes what is on the disk.
        kept = workflow.folder / "kept"
        subprocess.run(["cp", "-a", path, kept], check=True)
    path.rmdir()
    kept.rename(path)
    return f"{room // 1024} KiB: {result}"


for _name in DISKS:
    case(f"disk-{_name}")(lambda harness, workflow, name=_name: out_of_disk(harness, workflow, name))


@case("read-only")
def read_only(harness: Harness, workflow: Workflow) -> str:
    workflow.remove("registration")
    results = workflow.folder / "results"
    with mounted("--bind", str(results), at=results):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(results)], check=True)
        status, output = workflow.run(*TABLES)
    lines = [line.strip() for line in output.splitlines() if "Read-only file system" in line]
    require(status != 0 and len(lines) > 0, output[-3000:])
    workflow.rerun()
    return lines[-1]


MEMORY = {
    "images": ["phantom", "resample"],
    "synthesis": ["synthesize", "sample_patches"],
    "training": ["train"],
    "registration": ["register", "register_regnet"],
    "evaluation": ["evaluate_synthetic", "evaluate_fields"],
}


def memory_message(workflow: Workflow, output: str) -> str:
    """The line about memory: from the output or, if a library ended the process, from the log that Snakemake names."""
    lines = errors(output)
    for names in re.findall(r"^    log: (.*?) \(check", output, re.MULTILINE):
        for name in names.split(", "):
            path = workflow.folder / name
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            lines += [f"{name}: {line}" for line in text.splitlines()]
    messages = [line for line in lines if re.search(r"(?i)memory|alloc|Segmentation fault|Aborted", line)]
    require(len(messages) > 0, f"unclear: {lines} {output[-3000:]}")
    return messages[0]


def out_of_memory(harness: Harness, workflow: Workflow, stage: str) -> str:
    """Limit jobs to a fraction of the address space that they need, less each time."""
    snakefile = workflow.folder / "Snakefile"
    text = snakefile.read_text(encoding="utf-8")
    messages = []
    for share in (0.97, 0.9, 0.8):
        workflow.remove(stage)
        limit = int(share * max(harness.memory[name] for name in MEMORY[stage]))
        snakefile.write_text(f'{text}\nshell.prefix("set -euo pipefail; ulimit -v {limit}; ")\n', encoding="utf-8")
        status, output = workflow.run(*TABLES)
        if status != 0:
            messages.append(f"{share:.0%} of {limit / share / 2**20:.1f} GiB: {memory_message(workflow, output)}")
    snakefile.write_text(text, encoding="utf-8")
    workflow.rerun()
    return "; ".join(messages) or "enough memory at all three limits"


for _stage in MEMORY:
    case(f"memory-{_stage}")(lambda harness, workflow, stage=_stage: out_of_memory(harness, workflow, stage))


@case("two-snakemakes")
def two_snakemakes(harness: Harness, workflow: Workflow) -> str:
    workflow.remove("registration")
    first = workflow.start(*TABLES)
    workflow.wait_for_job(first)
    second = Workflow(workflow.folder)
    status, output = second.run(*TABLES)
    require(status != 0, "the second ran too")
    (line,) = [line for line in output.splitlines() if "cannot be locked" in line]
    require(first.wait() == 0, "the first failed")
    return line.strip()


HALVES = {
    "tables/comparison.csv": "figures/comparison.png",
    "evaluation/example_slices.npz": "figures/figure_2_5.png",
    "models/regnet/training.csv": "figures/training_regnet.png",
    "evaluation/landmarks.csv": "tables/table_2_1.csv",
    "evaluation/landmarks/test1.csv": "evaluation/landmarks.csv",
    "benchmarks/register/affine/test1.tsv": "evaluation/runs.csv",
    "cohort/test1_baseline.txt": "evaluation/landmarks/test1.csv",
    "cohort/test1_dvf.nii.gz": "evaluation/field_errors/test1.csv",
    "models/regnet/model.safetensors": "evaluation/synthetic/regnet_validation.csv",
    "patches/validation1_baseline/original_low.npz": "evaluation/synthetic/regnet_validation.csv",
    "synthetic/validation1_baseline/original.npy": "evaluation/synthetic/regnet_validation.csv",
    "synthetic/validation1_baseline/original_low/dvf.npz": "patches/validation1_baseline/original_low.npz",
    "registrations/affine/test1/transform.h5": "registrations/bspline_1r/test1/transform.h5",
    "images/1.75mm/test1_baseline_mask.nii.gz": "registrations/affine/test1/transform.h5",
    "images/1.75mm/test1_baseline.nii.gz": "registrations/affine/test1/transform.h5",
}
"""Files of each kind and a file made from each, the last stage first, so that each target needs only one job."""


@case("half-written")
def half_written(harness: Harness, workflow: Workflow) -> str:
    """Truncate each file in turn, which also makes it newer than the rest; in the end delete all of them."""
    messages = []
    for name, made in HALVES.items():
        path = workflow.folder / RESULTS / name
        content, times = path.read_bytes(), path.stat()
        path.write_bytes(content[: int(harness.rng.uniform(0.3, 0.8) * len(content))])
        status, output = workflow.run(str(RESULTS / made))
        lines = errors(output)
        require(status != 0, f"{name}: no error")
        require(any(name in line for line in lines), f"{name}: unclear: {lines} {output[-3000:]}")
        messages.append(lines[0])
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for name in HALVES:
        # Snakemake already removed some, as outputs of jobs that failed on another file.
        (workflow.folder / RESULTS / name).unlink(missing_ok=True)
    workflow.remove("evaluation")
    workflow.rerun(*TABLES, "figures")
    return f"{len(messages)} files, each named, such as {messages[0]}"


@case("truncated-input")
def truncated_input(harness: Harness, workflow: Workflow) -> str:
    """Truncate the user's own image after the checks at the start."""
    results = Path("results/own")
    own = {
        "experiment": "own",
        "phantom": None,
        "data_root": "own",
        "methods": {"bspline_1r": None, "regnet": None},
    }
    target = str(results / "evaluation" / "landmarks.csv")
    (workflow.folder / "own.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    shutil.copytree(workflow.folder / RESULTS / "cohort", workflow.folder / "own")
    user = Workflow(workflow.folder, "faults.yaml", "own.yaml")
    status, output = user.run(target)
    require(status == 0, output[-3000:])
    undisturbed = (workflow.folder / target).read_bytes()
    shutil.rmtree(workflow.folder / results)
    process = user.start(target, cores=1)
    user.wait_for_job(process)
    time.sleep(1)
    # Images without a mask: their jobs have not begun.
    names = ("test1_baseline", "test1_followup")
    waiting = [name for name in names if not (workflow.folder / results / "masks" / f"{name}.nii.gz").exists()]
    path = workflow.folder / "own" / f"{waiting[-1]}.nii.gz"
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[: len(content) // 2])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    require(process.wait() != 0, "no error")
    lines = errors(user.output())
    require(any(path.name in line for line in lines), f"unclear: {lines} {user.output()[-3000:]}")
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    user.rerun(target)
    require((workflow.folder / target).read_bytes() == undisturbed, "tables differ")
    return lines[0]


@case("deleted-intermediate")
def deleted_intermediate(harness: Harness, workflow: Workflow) -> str:
    deleted = [
        "images/1.75mm/test1_baseline.nii.gz",
        "synthetic/validation1_baseline/original_low/fixed.npy",
        "patches/validation1_baseline/original_low.npz",
        "models/regnet/model.safetensors",
        "registrations/affine/test1/transform.h5",
        "evaluation/landmarks/test1.csv",
    ]
    for name in deleted:
        (workflow.folder / RESULTS / name).unlink()
    _, output = workflow.run(*TABLES)
    nothing = "Nothing to be done" in output
    harness.check(workflow)
    shutil.rmtree(workflow.folder / RESULTS / "tables")
    shutil.rmtree(workflow.folder / RESULTS / "evaluation")
    workflow.rerun()
    return f"{'not missed while the tables exist' if nothing else 'made again'}; made again when a target needs them"


@case("clock-outputs-older")
def clock_outputs_older(harness: Harness, workflow: Workflow) -> str:
    """Make outputs of a stage a day older than their inputs."""
    for path in (workflow.folder / RESULTS / "registrations").rglob("*.h5"):
        os.utime(path, (path.stat().st_atime - 86400, path.stat().st_mtime - 86400))
    shutil.rmtree(workflow.folder / RESULTS / "tables")
    status, output = workflow.run(*TABLES)
    require(status == 0, output[-3000:])
    again = sorted(set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)))
    return f"made again: {', '.join(again)}"


@case("clock-inputs-in-the-future")
def clock_inputs_in_the_future(harness: Harness, workflow: Workflow) -> str:
    """Date an intermediate file a day ahead, as by a wrong clock."""
    path = workflow.folder / RESULTS / "images/1.75mm/test1_baseline.nii.gz"
    os.utime(path, (time.time() + 86400, time.time() + 86400))
    workflow.remove("registration")
    status, output = workflow.run(*TABLES)
    warnings = [line.strip() for line in output.splitlines() if "older modification time" in line]
    require(status == 0 or len(warnings) > 0, output[-3000:])
    if status:
        path.touch()
        workflow.rerun()
    return warnings[0] if warnings else "no warning"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=2017, help="seed of the random times")
    parser.add_argument("--kills", type=int, default=20, help="how many runs are killed")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all cases")
    parser.add_argument("--folder", type=Path, help="where to work; an undisturbed run in it is kept and reused")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="names or patterns such as 'disk-*'; default: all")
    arguments = parser.parse_args()
    kills(arguments.kills)
    chosen = [
        name for name in CASES if not arguments.cases or any(fnmatch.fnmatch(name, pattern) for pattern in arguments.cases)
    ]
    if not chosen:
        parser.error(f"no such case, expected some of {', '.join(CASES)}")
    scratch = arguments.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    scratch.mkdir(parents=True, exist_ok=True)
    harness = Harness(scratch, random.Random(arguments.seed))
    begun = time.monotonic()
    print(f"reference: {harness.prepare()} ({time.monotonic() - begun:.0f} s)", flush=True)
    failed = []
    for name in chosen:
        harness.rng = random.Random(f"{arguments.seed} {name}")
        begun = time.monotonic()
        workflow = harness.copy(name)
        try:
            details = CASES[name](harness, workflow)
            harness.check(workflow)
            verdict = "identical"
        except Skipped as reason:
            verdict, details = "skipped", str(reason)
        except Exception as reason:
            verdict, details = "FAILED", f"{type(reason).__name__}: {reason}"
            failed.append(name)
        print(f"{name}: {verdict} ({time.monotonic() - begun:.0f} s): {details}", flush=True)
        if verdict != "FAILED" and not arguments.keep:
            shutil.rmtree(workflow.folder, ignore_errors=True)
    print(f"{len(chosen) - len(failed)} of {len(chosen)} cases did not fail", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}; their folders are in {scratch}")
    elif not arguments.keep and not arguments.folder:
        shutil.rmtree(scratch)
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
