"""Shared by all benchmarks: runs several ways of one thing in turns, each in its own process, and compares their medians."""

import multiprocessing
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"


def machine() -> str:
    """The machine in a few words: processor, cores, memory, Python and torch."""
    import torch

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    processor = models[0] if models else platform.machine()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB{gpu}; {versions}"


def compare(ways: Mapping[str, Callable[[], float]], repeats: int = 5) -> pd.DataFrame:
    """Run every way `repeats` times, in turns, each run in a fresh process.

    Parameters
    ----------
    ways
        Functions at the top level of a module, by name, the direct way first. Each does its work once and returns the seconds
        it took, without preparation and imports.
    repeats
        Runs of each.

    Returns
    -------
    pandas.DataFrame
        One row per way: ``way``, ``seconds`` (median), ``fastest``, ``slowest``, ``speedup`` (the first way's median over this
        one's) and ``peak_mib`` (largest resident memory of a run, imports included).
    """
    runs = [
        {"way": name, **_in_fresh_process(function)} for _ in range(repeats) for name, function in ways.items()
    ]  # in turns, so that a slow minute of the machine affects all alike
    grouped = pd.DataFrame(runs).groupby("way", sort=False)
    table = grouped["seconds"].agg(seconds="median", fastest="min", slowest="max")
    table["speedup"] = table["seconds"].iloc[0] / table["seconds"]
    table["peak_mib"] = grouped["peak_mib"].max()
    return table.reset_index()


def timed(function: Callable[[], object]) -> float:
    """The seconds that one call takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def save(name: str, table: pd.DataFrame) -> None:
    """Write ``results/benchmarks/<name>.csv`` with the machine in every row, and print the table."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.assign(machine=machine()).to_csv(RESULTS / f"{name}.csv", index=False)
    print(f"{name}\n{table.to_string(index=False, float_format=lambda value: f'{value:.3g}')}\n")


def _in_fresh_process(function: Callable[[], float]) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (function,))


def _measure(function: Callable[[], float]) -> dict[str, float]:
    seconds = function()
    # Not ru_maxrss: after a fork it starts at the memory of the parent.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {"seconds": seconds, "peak_mib": int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024}
