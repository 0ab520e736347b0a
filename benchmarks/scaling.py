"""How the cost of a run grows with pairs, voxels, landmarks and methods, and the time of a dry run with the size of the cohort.

It varies one thing at a time in the reduced config of the tests; each run executes all rules, in its own folder. Seconds are
those of the jobs, from Snakemake's own records. An exponent is the power of the size with which a cost grows, without the
constant part: 1 is linear, more is worse.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml
from harness import save
from made_cohorts import CHAPTER_MM3, cohort_of
from working_copy import copy_of_the_workflow

from regnet.experiment.checking import read_config
from regnet.experiment.plan import CORE_FLOPS, image_volumes, plan_run

ROOT = Path(__file__).parents[1]

PAIRS = (1, 2, 4, 8)
SPACINGS = (2.5, 1.75, 1.25)
LANDMARKS = (15, 30, 60)
METHODS = (2, 4, 8)
PLANNED = (125, 250, 500, 1000)

SCANS = ("baseline", "followup")
IMAGES = "image\tsubject\tsplit\tpath\tmask"
COLUMNS = "pair\tfixed\tmoving\tfixed_landmarks\tmoving_landmarks"


def cohort(folder: Path, tested: int) -> None:
    """Tables of an embedded cohort with a training subject, a validation subject and `tested` test pairs."""
    splits = {"train1": "train", "validation1": "validation", **{f"test{number}": "test" for number in range(1, tested + 1)}}
    rows = [f"{name}_{scan}\t{name}\t{split}\t{name}_{scan}.nii.gz\t" for name, split in splits.items() for scan in SCANS]
    pairs = ["\t".join([name, *(f"{name}_{scan}{end}" for end in ("", ".txt") for scan in SCANS)]) for name in splits]
    folder.mkdir()
    for table, header, lines in (("images", IMAGES, rows), ("pairs", COLUMNS, pairs)):
        (folder / f"{table}.tsv").write_text("\n".join([header, *lines, ""]), encoding="utf-8")


def prepared(folder: Path, tested: int, changes: dict) -> list[str]:
    """Copy the workflow to a folder, with a config; returns the command that runs it."""
    copy_of_the_workflow(folder)
    cohort(folder / "cohort", tested)
    text = yaml.safe_dump({"cohort": "cohort", "training": {"variants": ["regnet"]}, **changes})
    (folder / "changes.yaml").write_text(text, encoding="utf-8")
    return [sys.executable, "-m", "snakemake", "--cores", "all", "--configfile", "config/test.yaml", "changes.yaml"]


def jobs(folder: Path) -> Iterator[tuple[str, float]]:
    """Rule and seconds of each job that ran in a folder."""
    counted = set()
    for path in (folder / ".snakemake" / "metadata").rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            # There is a record for each output of a job; its log identifies the job.
            job = record["rule"], *record["log"]
            if job not in counted:
                counted.add(job)
                yield record["rule"], record["endtime"] - record["starttime"]


def run(tested: int = 1, **changes: object) -> pd.Series:
    """Seconds by rule of a whole run."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "run"
        folder.mkdir()
        subprocess.run(prepared(folder, tested, changes), cwd=folder, check=True, capture_output=True)
        return pd.DataFrame(jobs(folder), columns=["rule", "seconds"]).groupby("rule")["seconds"].sum()


def planned(tested: int) -> dict[str, float]:
    """Seconds and memory of a dry run."""
    with TemporaryDirectory() as name:
        folder = Path(name) / "run"
        folder.mkdir()
        command = [*prepared(folder, tested, {}), "--dry-run", "--quiet"]
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"the dry run of {tested} pairs failed")
        return {"seconds": time.perf_counter() - begun, "peak_gib": usage.ru_maxrss / 2**20}


def plans() -> Iterator[dict[str, object]]:
    """Estimates of `regnet plan` for the default run, the chapter's cohort, and a thousand test pairs."""
    chapter = read_config([ROOT / "config" / "chapter.yaml"])
    for name, config, splits, volume in (
        ("the default run", read_config([]), (3, 4, 1), None),
        ("the chapter's cohort", chapter, (7, 10, 2), CHAPTER_MM3),
        ("1,000 test pairs", read_config([]), (1000, 4, 1), None),
    ):
        tables = cohort_of(*splits)
        volumes = dict.fromkeys(tables.images.index, volume) if volume else image_volumes(config, tables)
        plan = plan_run(config, tables, volumes, {})
        cores, kept = sum(plan.core_hours.values()), sum(plan.kept.values())
        without = cores + sum(plan.gpu_flop.values()) / CORE_FLOPS / 3600
        disk = {"gb_at_most": (kept + sum(plan.removed.values())) / 1e9, "gb_in_the_end": kept / 1e9}
        yield {"of": name, "core_hours_with_gpu": cores, "core_hours_without": without, **disk}


def exponent(sizes: np.ndarray, seconds: np.ndarray) -> float:
    """The power of `sizes` with which `seconds` grow, from the first two and the last two of three or more."""
    early, late = np.diff(seconds)[[0, -1]] / np.diff(sizes)[[0, -1]]
    middles = (sizes[1:] + sizes[:-1])[[0, -1]] / 2
    return 1 + np.log(late / early) / np.log(middles[1] / middles[0]) if early > 0 < late else np.nan


def table(name: str, sizes: dict[float, pd.Series]) -> pd.DataFrame:
    """One row per rule that grows, and the sum."""
    frame = pd.DataFrame(sizes).fillna(0)
    frame.loc["all"] = frame.sum()
    kept = frame[(frame.iloc[:, -1] - frame.iloc[:, 0] > 1) | (frame.index == "all")]
    exponents = [exponent(np.array(list(sizes)), row.to_numpy()) for _, row in kept.iterrows()]
    kept = kept.rename(columns=lambda size: f"seconds at {size:g}").assign(exponent=exponents)
    return kept.reset_index().assign(grows_with=name)


def main() -> None:
    bspline = {"module": "elastix", "parameters": "config/elastix/bspline_3r.txt", "iterations": 20, "grid_spacing": 20}
    further = {count: {f"more{number}": bspline for number in range(count - 4)} for count in METHODS}
    fewer = {"bspline_1r": None, "bspline_3r": None}
    scaled = {
        "pairs": {count: run(count) for count in PAIRS},
        "million voxels": {
            15.3 / 8 / spacing**3: run(resampling={"spacing": spacing}, regnet={"spacing": 1.75}) for spacing in SPACINGS
        },
        "landmarks": {count: run(phantom={"landmarks": count}) for count in LANDMARKS},
        "methods": {count: run(methods=fewer if count == 2 else further[count]) for count in METHODS},
    }
    for name, sizes in scaled.items():
        save(f"scaling_{name.replace(' ', '_')}", table(name, sizes))
    save("scaling_plans", pd.DataFrame(plans()))
    save("scaling_dry_run", pd.DataFrame([{"pairs": count, **planned(count)} for count in PLANNED]))


if __name__ == "__main__":
    main()
