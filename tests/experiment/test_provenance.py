"""Provenance: what it records about a table, and whether two tables should be equal."""

import copy
import json

import pandas as pd
import pytest

from regnet.cli import main
from regnet.errors import InputError
from regnet.experiment.cohort import Cohort
from regnet.experiment.provenance import (
    collect,
    compare,
    find_provenance,
    read_facts,
    read_provenance,
    write_facts,
    write_provenance,
)
from regnet.system.machine import machine, write_machine

CONFIG = {"experiment": "e", "data_root": "d", "cohort": "c", "seed": 3, "training": {"batch": 8, "checkpoint_minutes": 10}}


def cohort_in(folder):
    for name in ("a.nii.gz", "b.nii.gz", "a.txt", "b.txt"):
        (folder / name).write_text(name, encoding="utf-8")
    paths = [str(folder / "a.nii.gz"), str(folder / "b.nii.gz")]
    images = pd.DataFrame({"subject": "s", "split": "test", "path": paths, "mask": ""}, index=["a", "b"])
    points = {"fixed_landmarks": str(folder / "a.txt"), "moving_landmarks": str(folder / "b.txt")}
    return Cohort(images, pd.DataFrame({"fixed": "a", "moving": "b", **points}, index=["p"]))


@pytest.fixture
def run(tmp_path):
    """The folder of a run: a table, and its provenance beside it."""
    (tmp_path / "data").mkdir()
    for name, device in (("train", "CPU, 2 threads"), ("register", "")):
        write_machine(tmp_path / f"{name}.json", device)
    (tmp_path / "code.py").write_text("pass", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"w")
    machines = [("train", tmp_path / "train.json"), ("register affine", tmp_path / "register.json")]
    parts = {"code": [tmp_path / "code.py"], "files": [], "weights": [tmp_path / "model.safetensors"], "machines": machines}
    write_facts(collect(CONFIG, cohort_in(tmp_path / "data"), **parts), tmp_path / "facts.json")
    table = tmp_path / "tables" / "table_2_1.csv"
    table.parent.mkdir()
    table.write_text("a\n1\n", encoding="utf-8")
    write_provenance(read_facts(tmp_path / "facts.json"), [table], table.parent / "table_2_1.provenance.json")
    return tmp_path


def test_the_provenance_of_a_table_lists_its_inputs(run, capsys):
    for path in ("tables/table_2_1.csv", "tables/table_2_1.provenance.json", ""):
        assert find_provenance(run / path) == run / "tables" / "table_2_1.provenance.json"
    facts = read_provenance(find_provenance(run))
    assert [(each.get("device"), each["jobs"]) for each in facts["machines"]] == [
        ("CPU, 2 threads", {"train": 1}),
        (None, {"register affine": 1, "tables": 1}),
    ]
    assert main(["provenance", str(run)]) == 0
    text = capsys.readouterr().out
    for part in ("seed        3", "image a (test, subject s), path", "pair p (a, b), moving_landmarks", "training.batch: 8"):
        assert part in text
    assert f"torch {machine()['torch']}" in text
    assert "changed" not in text


def test_a_changed_table_is_reported(run, capsys):
    table = run / "tables" / "table_2_1.csv"
    table.write_text("a\n2\n", encoding="utf-8")
    assert main(["provenance", str(table)]) == 0
    assert capsys.readouterr().out.startswith(f"changed since the run: {table}\n")


def test_a_table_without_provenance_is_refused(run, capsys):
    (run / "other.csv").write_text("a\n", encoding="utf-8")
    assert main(["provenance", str(run / "other.csv")]) == 2
    assert "other.csv: found no" in capsys.readouterr().err
    (run / "other.provenance.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="lacks experiment, config"):
        read_provenance(run / "other.provenance.json")
    (run / "other.provenance.json").write_text("text", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_provenance(run / "other.provenance.json")


CHANGES = {
    "another place": (lambda facts: facts["config"].update(experiment="f", data_root="elsewhere"), "equal", None),
    "another batch": (lambda facts: facts["config"]["training"].update(batch=4), "different", "config training.batch: 8, 4"),
    "another seed": (lambda facts: facts["config"].update(seed=4), "different", "config seed: 3, 4"),
    "other code": (lambda facts: facts.update(code="0" * 64), "different", "code: "),
    "another image": (
        lambda facts: facts["inputs"].update({"image a (test, subject s), path": "0" * 64}),
        "different",
        "input image a (test, subject s), path: ",
    ),
    "another torch": (lambda facts: facts["machines"][0].update(torch="2.11.0"), "close", "torch: "),
    "another processor": (lambda facts: [each.update(processor="Z80") for each in facts["machines"]], "close", "processor: "),
    "a GPU": (lambda facts: facts["machines"][0].update(device="NVIDIA H100"), "close", "device: CPU, 2 threads; NVIDIA H100"),
    "other threads": (lambda facts: facts["machines"][0].update(device="CPU, 1 thread"), "close", "device: "),
}


@pytest.mark.parametrize("case", CHANGES)
def test_two_provenances_say_whether_tables_should_be_equal(run, case):
    change, expected, line = CHANGES[case]
    first = read_provenance(find_provenance(run))
    second = copy.deepcopy(first)
    change(second)
    verdict, differences = compare(first, second)
    assert verdict == expected
    assert any(difference.startswith(line) for difference in differences) if line else not differences


def test_two_equal_runs_on_a_gpu_are_only_close(run):
    facts = read_provenance(find_provenance(run))
    facts["machines"][0]["device"] = "NVIDIA H100"
    assert compare(facts, facts)[0] == "close"


def test_the_command_compares_the_expectation_with_the_tables(run, capsys):
    path = find_provenance(run)
    other = run / "other.provenance.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    other.write_text(json.dumps(facts), encoding="utf-8")
    assert main(["provenance", str(path), str(other)]) == 0
    assert capsys.readouterr().out == "the tables should be equal, byte for byte; they are equal\n"
    facts["tables"]["table_2_1.csv"] = "0" * 64
    other.write_text(json.dumps(facts), encoding="utf-8")
    assert main(["provenance", str(path), str(other)]) == 0
    assert capsys.readouterr().out == "the tables should be equal, byte for byte; they are not equal\n"
