"""Names that are not UTF-8: one line and status 2 in place of an abort, and nothing is left.

Public report: swig issue 3541. SimpleITK ends the process (SIGABRT) over such a name, without a message.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series

from regnet.cli import main
from regnet.errors import InputError, OutputError
from regnet.images.transforms import read_field, read_transform, write_transform
from regnet.images.volumes import Grid, read_grid, read_image, write_image
from regnet.system.files import whole_file, whole_folder

if sys.platform != "linux":
    pytest.skip("other systems have no such names", allow_module_level=True)

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"

NAME = os.fsdecode(b"caf\xe9")
"""Latin-1, as old archives have it."""

GRID = Grid((6, 6, 6), (1.0, 1.0, 1.0))


@pytest.fixture
def folder(tmp_path):
    """A folder with files of such a name: an image, a transform, landmarks, a config."""
    sitk.WriteImage(GRID.image(np.full(GRID.shape, -800, np.int16)), tmp_path / "image.mha")
    sitk.WriteTransform(sitk.TranslationTransform(3), tmp_path / "identity.tfm")
    (tmp_path / "points.csv").write_text("x,y,z\n1,2,3\n", encoding="utf-8")
    (tmp_path / "config.yaml").write_text("experiment: mine\n", encoding="utf-8")
    for name in ("image.mha", "identity.tfm", "points.csv", "config.yaml"):
        (tmp_path / f"{NAME}{Path(name).suffix}").write_bytes((tmp_path / name).read_bytes())
    return tmp_path


COMMANDS = {
    "image": "register {bad}.mha {good}/image.mha --output {good}/out",
    "output": "register {good}/image.mha {good}/image.mha --output {bad}",
    "mask": "register {good}/image.mha {good}/image.mha --fixed-mask {bad}.mha --output {good}/out",
    "transform": "transform-points {good}/points.csv --transform {bad}.tfm",
    "landmarks": "evaluate {bad}.csv {good}/points.csv --transform {good}/identity.tfm",
    "table": "evaluate {good}/points.csv {good}/points.csv --transform {good}/identity.tfm --output {bad}_errors.csv",
    "points": "convert-points {good}/points.csv --kind point --output {bad}.txt",
    "config": "check --configfile {bad}.yaml",
    "entry": "plan --config data_root={bad}",
    "list": "dataset folder --source {bad}.csv --output {good}/cohort",
    "provenance": "provenance {bad}",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments(command, folder, capfd):
    before = sorted(os.listdir(folder))
    assert main(COMMANDS[command].format(good=folder, bad=f"{folder}/{NAME}").split()) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("regnet: error: ")
    assert printed.err.endswith("found a name that is not UTF-8, expected another name\n")
    assert r"caf\udce9" in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(os.listdir(folder)) == before


def test_functions_that_hand_names_to_compiled_libraries(folder):
    image, bad = sitk.ReadImage(folder / "image.mha"), folder / NAME
    for read, suffix in ((read_image, ".mha"), (read_grid, ".mha"), (read_transform, ".tfm"), (read_field, ".mha")):
        with pytest.raises(InputError, match=r"caf\\udce9\.\w+: found a name that is not UTF-8"):
            read(f"{bad}{suffix}")
    for write, content in ((write_image, image), (write_transform, sitk.TranslationTransform(3))):
        with pytest.raises(OutputError, match="found a name that is not UTF-8"):
            write(content, f"{bad}.h5")
    for context in (whole_file(bad), whole_folder(bad, [])):
        with pytest.raises(OutputError, match="found a name that is not UTF-8"), context:
            pytest.fail("the block must not run")
    assert not list(folder.glob(".partial-*"))


def test_a_slice_among_those_of_a_folder(tmp_path):
    write_series(tmp_path / "dicom", np.arange(4) * 2.5, "1.2.826.0.1.3680043.2.1125.1")
    assert read_grid(tmp_path / "dicom").size[2] == 4
    first = sorted((tmp_path / "dicom").iterdir())[0]
    first.rename(first.with_name(f"{NAME}.dcm"))
    with pytest.raises(InputError, match=r"caf\\udce9\.dcm: found a name that is not UTF-8"):
        read_grid(tmp_path / "dicom")


def test_the_current_folder(folder):
    """Results go to an absolute path, which has the name; reading by relative paths works."""
    (folder / NAME).mkdir()
    (folder / NAME / "points.csv").write_text("x,y,z\n1,2,3\n", encoding="utf-8")
    (folder / NAME / "identity.tfm").write_bytes((folder / "identity.tfm").read_bytes())
    command = [sys.executable, "-m", "regnet", "transform-points", "points.csv", "--transform", "identity.tfm"]
    process = subprocess.run(
        command, cwd=folder / NAME, env={"PYTHONPATH": str(SCRIPTS)}, capture_output=True, encoding="utf-8"
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "x,y,z\n1.0000,2.0000,3.0000\n", "")


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_umlauts_in_the_locale_c(locale, folder):
    """The content of files is UTF-8 in every locale. Where Python takes names for ASCII, the line says what to do."""
    table = "name,x,y,z\nLungenspitze über ä,1.0000,2.0000,3.0000\n"
    for name in ("points.csv", "pünkte.csv"):
        (folder / name).write_text(table, encoding="utf-8")
        command = [sys.executable, "-m", "regnet", "transform-points", name, "--transform", "identity.tfm"]
        process = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(SCRIPTS), **locale}, capture_output=True)
        if name == "pünkte.csv" and "PYTHONUTF8" in locale:
            assert (process.returncode, process.stdout) == (2, b"")
            assert process.stderr.endswith(
                b"found a name that is not ascii, as the locale says (PYTHONUTF8=1 for UTF-8), expected another name\n"
            )
        else:
            assert (process.returncode, process.stdout.decode(), process.stderr) == (0, table, b"")
