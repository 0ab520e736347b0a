"""What a job ran on: the machine, the versions of the packages that affect numbers, and the commit of this package."""

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from regnet import __version__
from regnet.system.files import write_json

PACKAGES = ("snakemake", "torch", "SimpleITK", "itk-elastix", "numpy", "scipy", "pandas", "matplotlib", "safetensors")
"""Packages that results depend on, apart from this one."""


def versions() -> dict[str, str]:
    """What this process runs on: this package and its commit, Python, the packages `PACKAGES`, and the machine."""
    return {"regnet": f"{__version__} ({commit()})", **machine()}


def machine(device: str = "") -> dict[str, str]:
    """What the numbers of a job may depend on besides code and input: Python, the packages `PACKAGES`, system and processor.

    Parameters
    ----------
    device
        What the network ran on, as `regnet.learning.devices.device_name` returns it; left out if empty.
    """
    return {
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": _processor(),
        **({"device": device} if device else {}),
    }


def usable_cores(root: str | Path = "/") -> int:
    """How many processors this process may use: those it is bound to, and no more than the quota of its control group.

    A batch system or a container gives a job some of the cores of a machine; ``os.cpu_count()`` counts all.

    Parameters
    ----------
    root
        The folder with ``proc/self/cgroup`` and ``sys/fs/cgroup``.
    """
    try:
        bound = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        # macOS and Windows do not have it.
        bound = os.cpu_count() or 1
    return max(1, min([bound, *map(int, _quotas(Path(root)))]))


def _quotas(root: Path) -> Iterator[float]:
    """The limits, in processors, of the control groups of this process (Linux, man 7 cgroups), as far as they can be read."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one tree and no controllers here. In a container the group may lie above what is mounted.
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        folder = top / group.strip("/")
        for place in (folder, *folder.parents[: len(folder.parts) - len(top.parts)]):
            with suppress(OSError, ValueError, ZeroDivisionError):
                if controllers:
                    quota, period = ((place / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
                else:
                    quota, period = (place / "cpu.max").read_text(encoding="utf-8").split()
                if float(quota) > 0:
                    yield float(quota) / float(period)


def write_machine(path: str | Path, device: str = "") -> None:
    """Write the result of `machine` as JSON, beside the output of a job; never leaves half a file."""
    write_json(path, machine(device))


def commit() -> str:
    """The commit of the checkout that holds this package, with a mark if files have changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        process = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not in a git checkout"
    return f"commit {process.stdout.strip()}"


def _processor() -> str:
    """The name of the processor where Linux provides it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} processors" if names else platform.machine()
