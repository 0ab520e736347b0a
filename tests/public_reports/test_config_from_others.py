"""Configs and tables from others: checking them runs no code, waits for nothing, and lets no path leave its folder.

From public reports of Snakemake configs that run code as templates (``__use_yte__``), of ``find_spec`` that imports parent
packages, of ``$`` in patterns that allows a newline at the end, and of named pipes that hang a reader.
"""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from made_cohorts import IMAGES, PAIRS, write_tables
from working_copy import ROOT, copy_of_the_workflow

from regnet.errors import ConfigError, InputError
from regnet.experiment.checking import checked_cohort, read_config
from regnet.experiment.cohort import read_cohort
from regnet.experiment.schemas import check_config
from regnet.registration.methods import check_methods, method_files

pytestmark = pytest.mark.slow

TEMPLATE = "__use_yte__: true\nseed: ?__import__('pathlib').Path({touched!r}).touch() or 5\n"


@pytest.fixture(autouse=True)
def _in_the_workflow(monkeypatch):
    monkeypatch.chdir(ROOT)


def regnet(*arguments, cwd=ROOT, timeout=60):
    """Run the command as a user does; its status and its output on stderr."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'workflow' / 'scripts'}"}
    command = [sys.executable, "-m", "regnet", *map(str, arguments)]
    process = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=timeout)
    return process.returncode, process.stderr


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_template_is_refused_and_not_run(command, tmp_path):
    path, touched = tmp_path / "template.yaml", tmp_path / "touched"
    path.write_text(TEMPLATE.format(touched=str(touched)), encoding="utf-8")
    line = f"regnet: error: {path}: found the key __use_yte__, with which a config runs code, expected values alone\n"
    assert regnet(command, "--configfile", path) == (2, line)
    assert not touched.exists()


def test_snakemake_stops_at_a_template(tmp_path):
    folder = copy_of_the_workflow(tmp_path / "workflow")
    (folder / "template.yaml").write_text("__use_yte__: true\nseed: ?2 + 3\n", encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--configfile", "template.yaml"]
    process = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")
    assert process.returncode != 0
    assert "template.yaml: found the key __use_yte__, with which a config runs code" in process.stdout + process.stderr


def test_a_config_that_is_no_template_is_read_as_before(tmp_path):
    (tmp_path / "plain.yaml").write_text("__use_yte__: false\nseed: 5\n", encoding="utf-8")
    (tmp_path / "plain.json").write_text(json.dumps({"data_root": "results/x"}), encoding="utf-8")
    config = read_config([tmp_path / "plain.yaml", tmp_path / "plain.json"])
    assert (config["seed"], config["data_root"], "__use_yte__" in config) == (5, "results/x", False)
    assert config["experiment"] == "phantom"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]\n",
        "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40)),
        "a: " + "[" * 5000 + "\n",
        '{"a": ' + "[" * 200_000,
    ],
    ids=["a list in itself", "billions of values", "deep YAML", "deep JSON"],
)
def test_a_config_without_end_is_one_line(text, tmp_path):
    (tmp_path / "endless.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"endless\.yaml: cannot be read as a config"):
        read_config([tmp_path / "endless.yaml"])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose import touches a file, with a method in a module and one in a folder without __init__.py."""
    touch = f"import pathlib\npathlib.Path({str(tmp_path / 'touched')!r}).touch()\n"
    method = "def register(fixed, moving, fixed_mask, moving_mask, initial, settings):\n    pass\n"
    for name, text in (
        ("noisy/__init__.py", touch),
        ("noisy/inner/__init__.py", touch),
        ("noisy/inner/method.py", touch + method),
        ("bare/inner/method.py", method),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("module", ["noisy.inner.method", "bare.inner.method"])
def test_a_module_is_found_without_its_packages_being_imported(module, package):
    check_methods({"affine": None, "mine": {"module": module}})
    assert os.path.abspath(method_files({"module": module})[-1]) == f"{package / module.replace('.', '/')}.py"
    assert not (package / "touched").exists()
    assert module.partition(".")[0] not in sys.modules


@pytest.mark.parametrize("module", ["__main__", "noisy.absent", "noisy.absent.method", "json.decoder.x", "sys.x", "absent.x"])
def test_a_module_that_is_no_file_is_one_line(module, package):
    with pytest.raises(ConfigError, match=f"methods.mine.module: found {module}, which does not exist"):
        check_methods({"mine": {"module": module}})
    assert not (package / "touched").exists()


@pytest.mark.parametrize("source", ["a = 1\0\n", "a = " + "(" * 5000], ids=["a zero byte", "deep brackets"])
def test_a_module_that_python_cannot_parse_is_one_line(source, tmp_path):
    (tmp_path / "method.py").write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError, match="without a function register"):
        check_methods({"mine": {"module": f"{tmp_path / 'method.py'}"}})


@pytest.mark.parametrize("root", ["results/../../x", "results/../x", "results/a/../../data", "./../results"])
def test_a_phantom_is_written_only_to_results(root):
    with pytest.raises(ConfigError, match=r"data_root: found .*, expected a folder in results/"):
        check_config({**read_config([]), "data_root": root})


@pytest.mark.parametrize("root", ["results/phantom/cohort", "./results/a", "results/a/../b", "results//a/"])
def test_a_phantom_may_be_anywhere_in_results(root):
    check_config({**read_config([]), "data_root": root})


@pytest.mark.parametrize("key", ["experiment", "method", "module", "data_root"])
def test_no_name_of_a_config_ends_in_a_newline(key):
    config = read_config([])
    if key == "method":
        config["methods"] = {**config["methods"], "mine\n": {"module": "syn", "iterations": [1]}}
    elif key == "module":
        config["methods"] = {**config["methods"], "mine": {"module": "syn\n", "iterations": [1]}}
    else:
        config[key] += "\n" if key == "experiment" else "{a}"
    with pytest.raises(ConfigError, match=r"\\n|found the text .*cohort{a}"):
        check_config(config)


@pytest.mark.parametrize("path", ["a{1}.nii.gz", "a}1.nii.gz"])
@pytest.mark.parametrize("column", ["path", "mask", "landmarks"])
def test_a_path_with_braces_which_snakemake_cannot_read_is_refused(column, path, tmp_path):
    old = {"path": "b1.nii.gz", "mask": "a1_lungs.nii.gz", "landmarks": "c1.txt"}[column]
    write_tables(tmp_path, IMAGES.replace(old, path), PAIRS.replace(old, path))
    expected = re.escape(
        f"{column}: found the text '{path}', expected the path of a file, without spaces around it, without {{ and }}"
    )
    with pytest.raises(InputError, match=expected):
        read_cohort(tmp_path, tmp_path, made_by_workflow=True)


@pytest.fixture
def cohort(tmp_path):
    """The config of a cohort of five CT images."""
    array = np.random.default_rng(0).integers(-900, 0, (5, 16, 16, 16)).astype(np.int16)
    (tmp_path / "c").mkdir()
    for voxels, name in zip(array, ("a1.nii.gz", "b1.nii.gz", "c/c1.mha", "c/c2.mha", "d1.mha"), strict=True):
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing((8.0, 8.0, 8.0))
        sitk.WriteImage(image, tmp_path / name)
    mask = sitk.GetImageFromArray(np.ones((16, 16, 16), np.uint8))
    mask.SetSpacing((8.0, 8.0, 8.0))
    sitk.WriteImage(mask, tmp_path / "a1_lungs.nii.gz")
    for name in ("c1.txt", "c2.txt"):
        (tmp_path / name).write_text(f"point\n1\n1{name[1]} 20 30\n", encoding="utf-8")
    write_tables(tmp_path)
    return {**read_config([]), "cohort": str(tmp_path), "data_root": str(tmp_path), "phantom": None, "experiment": "mine"}


def test_the_cohort_of_these_tests_is_valid(cohort):
    assert len(checked_cohort(cohort).images) == 5


@pytest.mark.parametrize("names", [["images.tsv", "pairs.tsv"], ["b1.nii.gz", "a1_lungs.nii.gz", "d1.mha", "c1.txt"]])
def test_a_named_pipe_is_refused_and_not_waited_for(names, cohort, tmp_path):
    for name in names:
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    text = f"experiment: mine\ncohort: {tmp_path}\ndata_root: {tmp_path}\nphantom: null\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    status, output = regnet("check", "--configfile", tmp_path / "mine.yaml")
    lines = output.splitlines()
    assert (status, len(lines)) == (2, len(names))
    for name in names:
        assert any(line.startswith("regnet: error: ") and name in line for line in lines)


def test_an_image_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.nii.gz")
    lines = f"regnet: error: {tmp_path}/a.nii.gz: found a pipe or a device, expected a file, or a folder with a DICOM series\n"
    assert regnet("register", tmp_path / "a.nii.gz", tmp_path / "a.nii.gz", "--output", tmp_path / "out") == (2, lines)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
