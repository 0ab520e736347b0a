"""Seeds, whole files, logs of jobs, landmark files, and which modules use which."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from regnet.conventions import job_seed
from regnet.errors import InputError
from regnet.images.landmarks import read_landmark_pair, read_landmarks, write_landmarks
from regnet.system.files import whole_file
from regnet.system.source_files import source_files

PACKAGE = Path(__file__).parents[1] / "workflow" / "scripts"


def test_a_job_seed_is_a_fact_of_its_name():
    seeds = {
        job_seed(2017, "train", "regnet"),
        job_seed(2018, "train", "regnet"),
        job_seed(2017, "trainregnet"),
        job_seed(2017),
    }
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "folder" / "table.csv"
    with whole_file(path) as partial:
        partial.write_text("old", encoding="utf-8")

    def fail():
        with whole_file(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(path.parent.iterdir()) == [path]


def run_job(tmp_path, body):
    code = f"from regnet.system.jobs import log_to\nfrom regnet.errors import InputError\nwith log_to('job.log'):\n    {body}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, encoding="utf-8")


def test_a_job_logs_what_python_and_compiled_code_print(tmp_path):
    body = "import os, logging; print('printed'); os.system('echo from a child'); logging.info('logged')"
    process = run_job(tmp_path, body)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    log = (tmp_path / "job.log").read_text(encoding="utf-8")
    assert all(text in log for text in ("printed", "from a child", "logged"))


def test_a_known_error_is_one_line_on_the_terminal(tmp_path):
    process = run_job(tmp_path, "raise InputError('scan.mha: empty')")
    assert process.returncode == 1
    assert process.stderr == "error: scan.mha: empty\n"
    assert "scan.mha: empty" in (tmp_path / "job.log").read_text(encoding="utf-8")


def test_an_unknown_error_keeps_its_traceback_in_the_log(tmp_path):
    process = run_job(tmp_path, "1 / 0")
    assert process.returncode == 1
    assert "ZeroDivisionError" in (tmp_path / "job.log").read_text(encoding="utf-8")


def test_landmarks_survive_the_disk(tmp_path, rng):
    points = rng.normal(0, 100, (7, 3))
    write_landmarks(points, tmp_path / "points.txt")
    np.testing.assert_allclose(read_landmarks(tmp_path / "points.txt"), points, atol=5e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an empty file"),
        ("indices\n1\n1 2 3\n", "starts with 'indices'"),
        ("point\n2\n1 2 3\n", "expected 2 finite points"),
        ("point\n1\n1 2 x\n", "three numbers"),
        ("point\n1\n1 2\n", "expected 1 finite points"),
        ("point\n1\n1 2 nan\n", "expected 1 finite points"),
    ],
)
def test_other_text_is_refused_as_landmarks(text, reason, tmp_path):
    (tmp_path / "points.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"points\.txt: .*{reason}"):
        read_landmarks(tmp_path / "points.txt")


def test_landmarks_of_a_pair_are_equally_many(tmp_path):
    write_landmarks(np.zeros((3, 3)), tmp_path / "fixed.txt")
    write_landmarks(np.zeros((4, 3)), tmp_path / "moving.txt")
    with pytest.raises(InputError, match=r"moving\.txt: found 4 landmarks, expected 3"):
        read_landmark_pair(tmp_path / "fixed.txt", tmp_path / "moving.txt")


def test_source_files_follow_imports():
    names = {Path(path).stem for path in source_files("registration.regnet")}
    assert {"regnet", "inference", "network", "patches", "transforms", "volumes", "errors"} <= names
    assert "style" not in names
    inside = source_files("figures.chapter")
    assert {Path(path).stem for path in inside} >= {"chapter", "style", "records", "summaries"}
    assert not {"training", "volumes", "patches"} & {Path(path).stem for path in inside}


@pytest.mark.parametrize("module", ["figures.chapter", "figures.comparison", "figures.fields", "tables", "comparison"])
def test_tables_and_figures_need_neither_torch_nor_itk(module):
    """They take seconds to import, and every figure is a process of its own."""
    heavy = ("torch", "SimpleITK", "itk", "scipy.stats")
    code = f"import regnet.{module}, sys; print([name for name in {heavy} if name in sys.modules])"
    process = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, encoding="utf-8"
    )
    assert process.stdout == "[]\n", process.stderr


@pytest.mark.parametrize("module", ["training", "inference"])
def test_training_and_inference_need_torch_and_numpy_only(module):
    """A GPU node may have nothing else."""
    code = (
        f"import regnet.{module}, sys; print([name for name in ('SimpleITK', 'itk', 'pandas', 'scipy') if name in sys.modules])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, encoding="utf-8"
    )
    assert process.stdout == "[]\n", process.stderr
