"""JSON files from others, provenance and landmarks: read as they are, or refused in one line.

From public reports of tools that end in a traceback over JSON of another shape, that let a listed name lead out of its folder,
and that print text of a file with the control characters of terminals.
"""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.cli import main
from regnet.errors import InputError, printable
from regnet.experiment.provenance import changed_tables, compare, describe, read_facts, read_provenance
from regnet.images.landmarks import read_landmarks
from regnet.system.files import checksum, read_json

DIGEST = "0" * 64

FACTS = {
    "experiment": "mine",
    "config": {"seed": 5, "training": {"batch": 8}},
    "seed": 5,
    "commit": "0.3.0 (commit 0123456789ab)",
    "code": DIGEST,
    "inputs": {"image a (test, subject a), path": DIGEST, "image a (test, subject a), mask": None},
    "weights": {"model.safetensors": DIGEST},
    "machines": [{"Python": "3.11.2", "processor": "a", "device": "CPU, 2 threads", "jobs": {"train": 1}}],
    "tables": {"table_2_1.csv": DIGEST},
}


def written(folder, facts, name="table_2_1.provenance.json"):
    path = folder / name
    path.write_text(json.dumps(facts), encoding="utf-8")
    return path


def test_a_right_provenance_is_described_and_compared(tmp_path, capsys):
    path = written(tmp_path, FACTS)
    assert read_provenance(path) == FACTS
    assert main(["provenance", str(path), str(path)]) == 0
    assert capsys.readouterr().out.startswith("the tables should be equal, byte for byte; they are equal")
    assert "seed        5\n" in describe(FACTS)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("experiment", 5, "experiment: 5 is not of type 'string'"),
        ("config", [1], "config: [1] is not of type 'object'"),
        ("seed", "5", "seed: '5' is not of type 'integer'"),
        ("inputs", {"a": 5}, "inputs.a: 5 is not of type 'string', 'null'"),
        ("weights", {"a": None}, "weights.a: None is not of type 'string'"),
        ("machines", {}, "machines: {} is not of type 'array'"),
        ("machines", ["a"], "machines.0: 'a' is not of type 'object'"),
        ("machines", [{"jobs": {}}], "machines.0: 'processor' is a required property"),
        ("machines", [{"processor": "a", "jobs": {"train": "x"}}], "machines.0.jobs.train: 'x' is not of type 'integer'"),
        ("machines", [{"processor": "a", "jobs": {}, "device": 5}], "machines.0.device: 5 is not of type 'string'"),
        ("tables", [], "tables: [] is not of type 'object'"),
        ("tables", {"a.csv": 1}, "tables.a.csv: 1 is not of type 'string'"),
    ],
)
def test_a_provenance_of_another_shape_is_one_line(key, value, line, tmp_path, capsys):
    path = written(tmp_path, {**FACTS, key: value})
    assert main(["provenance", str(path)]) == 2
    expected = f"regnet: error: {path}: {line}, expected a provenance file of a run\n"
    assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "a/b.csv", "..", "a\\b.csv", "a.csv\n"])
def test_a_provenance_names_only_files_beside_it(name, tmp_path):
    (tmp_path / "secret.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "tables").mkdir()
    path = written(tmp_path / "tables", {**FACTS, "tables": {name: DIGEST}})
    with pytest.raises(InputError, match=r"table_2_1\.provenance\.json: tables"):
        changed_tables(path)


def test_a_changed_table_beside_it_is_found(tmp_path):
    (tmp_path / "table_2_1.csv").write_text("a\n1\n", encoding="utf-8")
    assert changed_tables(written(tmp_path, FACTS)) == ["table_2_1.csv"]
    right = {**FACTS, "tables": {"table_2_1.csv": checksum(tmp_path / "table_2_1.csv")}}
    assert changed_tables(written(tmp_path, right)) == []


def test_a_provenance_does_not_steer_the_terminal(tmp_path, capsys):
    facts = copy.deepcopy(FACTS)
    facts["experiment"] = "a\x1b]0;title\x07\nseed        7"
    facts["config"]["seed"] = "\x1b[2J"
    first, second = written(tmp_path, facts), written(tmp_path, FACTS, "b.provenance.json")
    assert main(["provenance", str(first)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == r"experiment  a\x1b]0;title\x07\nseed        7"
    assert main(["provenance", str(first), str(second)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert printable("ä µm – 肺") == "ä µm – 肺"


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "\0"])
def test_json_without_end_is_one_line(text, tmp_path):
    path = tmp_path / "points.mrk.json"
    path.write_text(text, encoding="utf-8")
    for read in (read_json, read_provenance, read_facts, read_landmarks):
        with pytest.raises(InputError, match=r"points\.mrk\.json: cannot be read as"):
            read(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(list(FACTS)), JSON, max_size=3), other=st.booleans())
def test_any_provenance_is_described_and_compared_or_refused(changes, other, tmp_path_factory):
    path = written(tmp_path_factory.mktemp("provenance"), {**FACTS, **changes})
    try:
        facts = read_provenance(path)
    except InputError:
        return
    assert describe(facts).endswith("\n")
    pair = (facts, FACTS) if other else (FACTS, facts)
    assert compare(*pair)[0] in ("equal", "close", "different")
