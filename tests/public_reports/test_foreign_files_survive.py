"""What a run did not write survives it: in output folders, beside them, and behind links that somebody put there.

From public reports of tools that check an output folder only at the start, that take files of another machine on a shared file
system for leftovers, and that follow links in a folder that everybody may write to.
"""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from regnet.datasets.adapters import make_cohort
from regnet.errors import OutputError, RegistrationError, RegNetError
from regnet.images.volumes import Grid
from regnet.learning.checkpoints import Checkpoints
from regnet.registration.elastix import register_with_file
from regnet.system.files import whole_file, whole_folder
from regnet.system.resources import shipped

NAMES = ("transform.h5", "report.json")


def texts(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    }


def make_results(output, during=lambda: None, **options):
    with whole_folder(output, NAMES, **options) as folder:
        (folder / "transform.h5").write_text("new", encoding="utf-8")
        during()


@pytest.mark.parametrize("existed", ["not", "empty", "with results"])
def test_a_file_that_came_during_the_run_survives(existed, tmp_path):
    output = tmp_path / "out"
    earlier = {"out/report.json": "earlier"} if existed == "with results" else {}
    if existed != "not":
        output.mkdir()
    if earlier:
        (output / "report.json").write_text("earlier", encoding="utf-8")

    def somebody_writes():
        output.mkdir(exist_ok=True)
        (output / "notes.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(OutputError) as error:
        make_results(output, somebody_writes, replace=bool(earlier))
    assert str(error.value).endswith(f"; it came there during the run, whose results are in {output}-2")
    assert texts(tmp_path) == {**earlier, "out/notes.txt": "mine", "out-2/transform.h5": "new"}
    assert sorted(os.listdir(tmp_path)) == ["out", "out-2"]


def test_earlier_results_that_came_during_the_run_survive_without_force(tmp_path):
    output = tmp_path / "out"
    with pytest.raises(OutputError, match="already exists, expected a new name, or --force to replace it; it came there"):
        make_results(output, lambda: make_results(output))
    assert texts(tmp_path) == {"out/transform.h5": "new", "out-2/transform.h5": "new"}
    make_results(output, replace=True)
    assert texts(output) == {"transform.h5": "new"}


def test_a_file_in_a_folder_with_the_name_of_a_result_survives_force(tmp_path):
    output = tmp_path / "out"
    (output / "report.json").mkdir(parents=True)
    (output / "report.json" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"holds report\.json/mine\.txt, expected nothing but earlier results"):
        make_results(output, replace=True)
    assert texts(tmp_path) == {"out/report.json/mine.txt": "mine"}


@pytest.fixture
def scans(tmp_path):
    """A list of three pairs of images."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        image = sitk.GetImageFromArray(rng.integers(-900, 0, (8, 8, 8)).astype(np.int16))
        sitk.WriteImage(image, folder / f"{number}.mha")
    (folder / "pairs.csv").write_text("0.mha,1.mha\n2.mha,3.mha\n4.mha,5.mha\n", encoding="utf-8")
    return folder


def test_only_files_of_the_earlier_cohort_are_replaced(scans, tmp_path):
    output = tmp_path / "cohort"
    make_cohort("folder", scans, output)
    make_cohort("folder", scans, output, replace=True)
    images = pd.read_csv(output / "images.tsv", sep="\t")["path"]
    (output / "images" / "mine.nii.gz").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"holds images/mine\.nii\.gz, expected nothing but earlier results"):
        make_cohort("folder", scans, output, replace=True)
    assert (output / "images" / "mine.nii.gz").read_text(encoding="utf-8") == "mine"
    assert all((output / path).is_file() for path in images)


@pytest.fixture
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_partial_files_of_other_machines_survive(ended, tmp_path):
    names = [
        f".partial-{ended}-a.csv",  # as an earlier version named it, which says no machine
        f".partial-0badcafe-{ended}-0a1b2c3d-a.csv",
        f".partial-0badcafe-{ended}-0a1b2c3d-out",
        f".replaced-0badcafe-{ended}-0a1b2c3d-out",
        f".partial-{'9' * 30}-a.csv",
    ]
    for name in names:
        (tmp_path / name).touch()
    with whole_file(tmp_path / "a.csv") as partial:
        partial.touch()
    make_results(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "a.csv", "out"])


def test_a_link_at_a_guessed_temporary_name_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine", encoding="utf-8")
    seen = []
    for _ in range(2):
        with whole_file(tmp_path / "a.csv") as partial:
            partial.write_text("table", encoding="utf-8")
            seen.append(partial.name)
        (tmp_path / partial.name).symlink_to(secret)
    assert seen[0] != seen[1]
    assert (secret.read_text(encoding="utf-8"), (tmp_path / "a.csv").read_text(encoding="utf-8")) == ("mine", "table")


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with (
        pytest.raises(OutputError, match="found a pipe or a device, expected a file or a new name"),
        whole_file(path) as partial,
    ):
        partial.touch()
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


GRID = Grid((16, 16, 16), (8.0, 8.0, 8.0))


def register(folder, **options):
    rng = np.random.default_rng(0)
    images = [GRID.image(rng.integers(-900, 0, GRID.shape).astype(np.int16)) for _ in range(2)]
    return register_with_file(*images, shipped("elastix") / "affine.txt", log=folder / "a.log", **options)


def test_elastix_leaves_folders_that_only_look_like_its_own(ended, tmp_path):
    names = [".a.log-notes", f".elastix-0badcafe-{ended}-0a1b2c3d-a.log"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine", encoding="utf-8")
    register(tmp_path, overrides={"NumberOfResolutions": 1, "MaximumNumberOfIterations": 1})
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "a.log"])
    assert all((tmp_path / name / "mine.txt").exists() for name in names)


def test_the_log_of_elastix_is_in_a_folder_of_its_own(tmp_path, monkeypatch):
    """With its name known and the folder open to all, anybody could put a link there before elastix opens it."""
    from regnet.api import _register_affine

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = GRID.image(np.zeros(GRID.shape, np.int16))
    with pytest.raises(RegistrationError, match=r"more in (.*)\)") as error:
        _register_affine(image, image, image, {}, threads=1, seed=0)
    log = Path(str(error.value).rpartition("more in ")[2].removesuffix(")"))
    assert log.is_file()
    assert log.parent.parent == tmp_path
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_a_finished_training_removes_its_checkpoints_and_nothing_else(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, {"settings": "a"}, minutes=10)
    with checkpoints.locked():
        checkpoints.save({"step": 1})
        (folder / "notes.txt").write_text("mine", encoding="utf-8")
        checkpoints.remove()
    assert texts(tmp_path) == {"checkpoints/notes.txt": "mine"}
    (folder / "notes.txt").unlink()
    with checkpoints.locked():
        checkpoints.save({"step": 1})
        checkpoints.remove()
    assert not folder.exists()


LOCKED = """
import sys, time
from regnet.learning.checkpoints import Checkpoints
with Checkpoints(sys.argv[1], {}, 10).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_locked_while_another_process_trains_and_no_longer(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2] / 'workflow' / 'scripts'}"}
    command = [sys.executable, "-c", LOCKED, str(tmp_path / "checkpoints")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout.readline() == "locked\n"
        checkpoints = Checkpoints(tmp_path / "checkpoints", {}, minutes=10)
        with pytest.raises(RegNetError, match="another process is still training"), checkpoints.locked():
            pass
        process.kill()
    with checkpoints.locked():
        checkpoints.save({"step": 1})


NO_LINUX = """
import sys
sys.modules["fcntl"] = None
import os
for name in ("sched_getaffinity", "sched_setaffinity"):
    if hasattr(os, name):
        delattr(os, name)
import regnet.cli, regnet.learning.checkpoints, regnet.system.jobs
from regnet.system.machine import machine
assert machine()["processor"]
"""


def test_no_module_needs_what_only_linux_has():
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2] / 'workflow' / 'scripts'}"}
    process = subprocess.run([sys.executable, "-c", NO_LINUX], env=environment, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr
