"""A full disk, truncated files, too little memory, a killed Snakemake: one line, and nothing half-written."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from matplotlib.figure import Figure

from regnet.errors import InputError, OutputError
from regnet.evaluation.long_tables import read_benchmark, read_errors, read_slices, read_table, save_slices, write_errors
from regnet.images.landmarks import read_landmarks, write_landmarks
from regnet.images.transforms import field_transform, read_field, read_transform, write_transform
from regnet.images.volumes import Grid, read_image, write_image
from regnet.learning.checkpoints import Checkpoints
from regnet.learning.networks.regnet import RegNet
from regnet.learning.training import COLUMNS
from regnet.learning.training_job import write_curves
from regnet.learning.weight_files import load_network, save_network
from regnet.presentation.figures.style import save_figure
from regnet.presentation.figures.training import CURVES as DRAWN
from regnet.presentation.report import write_page
from regnet.synthesis.pairs import SyntheticDVF
from regnet.synthesis.random_fields import RandomField
from regnet.synthesis.samples import MappedVolumes, Samples, save_volume
from regnet.system.files import temporary_prefix, whole_file, whole_folder
from regnet.system.jobs import STARTED_BY

PACKAGE = Path(__file__).parents[1] / "workflow" / "scripts"

GRID = Grid((12, 11, 10), (2.0, 2.0, 2.0), (1.0, 2.0, 3.0))

NOISE = np.random.default_rng(0).normal(size=(*GRID.shape, 3))

VOLUME = GRID.image((1000 * NOISE[..., 0]).astype(np.int16))

FIELD = RandomField(torch.from_numpy(NOISE[0, 0]), torch.from_numpy(NOISE[1, 1]), 20.0, torch.ones(3, 2, dtype=torch.float64))

DVF = SyntheticDVF(FIELD, GRID)

ERRORS = pd.DataFrame({"method": ["affine"] * 99, "error": NOISE.ravel()[:99]})

CURVES = [dict.fromkeys(COLUMNS, 0.5)] * 9


def write_numbers(path):
    with whole_file(path) as partial:
        partial.write_text("s\tmax_rss\tcpu_time\n12.5\t512.25\t20.5\n", encoding="utf-8")


WRITERS = {
    "image.nii.gz": lambda path: write_image(VOLUME, path),
    "dvf.nii.gz": lambda path: write_image(sitk.Cast(GRID.image(NOISE), sitk.sitkVectorFloat32), path),
    "volume.npy": lambda path: save_volume(sitk.GetArrayViewFromImage(VOLUME), path),
    "dvf.npz": DVF.save,
    "samples.npz": Samples(np.zeros((200, 3), np.int32), np.zeros((200, 1, 1, 1, 3), np.float32)).save,
    "slices.npz": lambda path: save_slices(path, {"a": NOISE}),
    "transform.h5": lambda path: write_transform(field_transform(NOISE, GRID), path),
    "model.safetensors": lambda path: save_network(RegNet("regnet_1scale"), path, spacing=2.0, window=(-1000, 400)),
    "errors.csv": lambda path: write_errors(ERRORS, path),
    "training.csv": lambda path: write_curves(CURVES, path),
    "landmarks.txt": lambda path: write_landmarks(NOISE.reshape(-1, 3), path),
    "figure.png": lambda path: save_figure(Figure(), path),
    "page.html": lambda path: write_page(path, "title", "text " * 400),
    "000001.checkpoint": lambda path: Checkpoints(path.parent, {}, minutes=1).save({"numbers": list(range(2000))}),
}

READERS = {
    "image.nii.gz": read_image,
    "dvf.nii.gz": read_field,
    "volume.npy": lambda path: MappedVolumes([path]),
    "dvf.npz": SyntheticDVF.load,
    "samples.npz": Samples.load,
    "slices.npz": lambda path: read_slices(path, ["a"]),
    "transform.h5": read_transform,
    "model.safetensors": load_network,
    "errors.csv": lambda path: read_errors(path, {"method": str, "error": float}),
    "training.csv": lambda path: read_table(path, DRAWN),
    "landmarks.txt": read_landmarks,
    "table.csv": lambda path: read_table(path, ["method", "error"]),
    "benchmark.tsv": read_benchmark,
}

WRITERS_OF_READ_FILES = WRITERS | {"table.csv": WRITERS["errors.csv"], "benchmark.tsv": write_numbers}


@contextlib.contextmanager
def no_room_beyond(size):
    """Files cannot grow beyond `size` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_a_writer_names_its_file_and_leaves_nothing(name, tmp_path):
    path = tmp_path / name
    for share in (0.0, 0.6, 0.999):
        path.unlink(missing_ok=True)
        WRITERS[name](path)
        size = path.stat().st_size
        path.unlink()
        with no_room_beyond(int(share * size)), pytest.raises(OutputError) as error:
            WRITERS[name](path)
        assert str(error.value).startswith(f"{path}: cannot be written")
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", READERS)
def test_a_truncated_file_is_named(name, tmp_path, rng):
    path = tmp_path / name
    WRITERS_OF_READ_FILES[name](path)
    READERS[name](path)
    content = path.read_bytes()
    if name == "landmarks.txt":
        # Users' landmark files may lack the last line end: a cut within the last number goes unnoticed.
        content = content[: content.rindex(b" ") + 1]
    ends = [end for end in (0, 1, *rng.integers(2, len(content), 10), len(content) - 1) if content[end - 1 : end] != b"\n"]
    for end in ends:
        path.write_bytes(content[:end])
        with pytest.raises(InputError) as error:
            READERS[name](path)
        assert str(error.value).startswith(f"{path}: "), end


def test_the_next_writer_removes_what_killed_processes_left(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = temporary_prefix("partial").removesuffix(f"{os.getpid()}-")
    names = [
        f"{here}{process}-0a1b2c3d-{name}.csv" for process, name in ((ended.pid, "a"), (os.getppid(), "a"), (ended.pid, "b"))
    ]
    for name in names:
        (tmp_path / name).touch()
    with whole_file(tmp_path / "a.csv") as partial:
        partial.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", *names[1:]}
    (tmp_path / f"{here}{ended.pid}-0a1b2c3d-out").mkdir()
    with whole_folder(tmp_path / "out", ()):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "out", *names[1:]}


def job(body, log="job.log"):
    return [sys.executable, "-c", f"from regnet.system.jobs import log_to\nwith log_to({log!r}):\n    {body}"]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            "raise MemoryError('Unable to allocate 9 GiB')",
            "job.log: the job needs more memory than it may have (Unable to allocate",
        ),
        ("raise RuntimeError('std::bad_alloc')", "job.log: the job needs more memory than it may have (std::bad_alloc)"),
        ("open('nowhere/scan.nii')", "nowhere/scan.nii: No such file or directory"),
        ("import errno; raise OSError(errno.ENOSPC, 'No space left on device')", "job.log: No space left on device"),
        ("raise KeyboardInterrupt", "job.log: the job was interrupted"),
    ],
)
def test_an_error_of_the_machine_or_the_user_is_one_line(body, line, tmp_path):
    process = subprocess.run(job(body), cwd=tmp_path, env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, encoding="utf-8")
    assert process.returncode == 1
    assert process.stderr.startswith(f"error: {line}")
    assert process.stderr.count("\n") == 1
    assert line in (tmp_path / "job.log").read_text(encoding="utf-8")


def test_a_log_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "logs").touch()
    command = job("pass", "logs/job.log")
    process = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, encoding="utf-8")
    assert (process.returncode, process.stderr.startswith("error: logs/job.log: cannot be written (")) == (1, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_for_logs_does_not_stop_the_job(tmp_path):
    body = "import logging; print('text'); logging.info('more'); open('done', 'w', encoding='utf-8').close()"
    process = subprocess.run(job(body, "/dev/full"), cwd=tmp_path, env={"PYTHONPATH": str(PACKAGE)}, capture_output=True)
    assert process.returncode == 0
    assert (tmp_path / "done").exists()


def test_a_job_ends_with_its_snakemake(tmp_path):
    snakemake = subprocess.Popen(["sleep", "60"])
    environment = {"PYTHONPATH": str(PACKAGE), STARTED_BY: str(snakemake.pid)}
    running = subprocess.Popen(job("import time; print(1, flush=True); time.sleep(60)"), cwd=tmp_path, env=environment)
    while not (tmp_path / "job.log").exists():
        time.sleep(0.05)
    time.sleep(1.5)
    assert running.poll() is None
    snakemake.kill()
    snakemake.wait()
    assert running.wait(timeout=30) == -signal.SIGKILL
