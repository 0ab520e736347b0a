"""JSON from outside that is no JSON, too deep, or of another form: one line, without words of a library alone.

Public report: files that hold valid JSON of another form, or nested so deeply that Python's parser gives up, end in a
traceback.
"""

import json

import pytest
import torch
from safetensors.torch import save_file

from regnet.cli import main
from regnet.errors import InputError
from regnet.images.landmarks import read_landmarks
from regnet.learning.weight_files import METADATA, load_network
from regnet.system.files import read_json

DEEP = 100_000 * "["

POINT = {"label": "a", "position": [1, 2, 3]}


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        "",
        "[]",
        "3",
        "null",
        '{"markups": 3}',
        '{"markups": {"a": 1}}',
        json.dumps({"markups": 2 * [{"coordinateSystem": "LPS", "controlPoints": [POINT]}]}),
        json.dumps({"markups": [{"coordinateSystem": "LPS", "controlPoints": [3]}]}),
        json.dumps({"markups": [{"coordinateSystem": ["LPS"], "controlPoints": [POINT]}]}),
        json.dumps({"markups": [{"coordinateSystem": "LPS", "controlPoints": {"a": POINT}}]}),
        json.dumps({"markups": ["LPS"]}),
    ],
)
def test_markups(content, tmp_path):
    (tmp_path / "points.mrk.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"points\.mrk\.json: .*(, expected )") as caught:
        read_landmarks(tmp_path / "points.mrk.json")
    assert "\n" not in str(caught.value)


VALID = {
    "experiment": "mine",
    "config": {"seed": 1},
    "seed": 1,
    "commit": "0.2.0",
    "code": "0a",
    "inputs": {"a.mha": "0b", "none": None},
    "weights": {},
    "machines": [{"processor": "x86", "jobs": {"tables": 1}}],
    "tables": {"table.csv": "0c"},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": []},
        {"inputs": {"a.mha": 3}},
        {"config": 3},
        {"machines": {}},
        {"machines": [3]},
        {"machines": [{"processor": "x86", "jobs": 3}]},
        {"machines": [{"jobs": {}}]},
        {"machines": [{"processor": ["x86"], "jobs": {}}]},
        {"tables": "table.csv"},
        {"weights": None},
    ],
    ids=json.dumps,
)
def test_provenance(changes, tmp_path, capfd):
    path, other = tmp_path / "table.provenance.json", tmp_path / "other.provenance.json"
    other.write_text(json.dumps(VALID), encoding="utf-8")
    path.write_text(json.dumps(VALID | changes), encoding="utf-8")
    for arguments in ([str(path)], [str(path), str(other)], [str(other), str(path)]):
        assert main(["provenance", *arguments]) == 2
        printed = capfd.readouterr()
        (name,) = changes
        assert printed.out == ""
        assert printed.err.startswith(f"regnet: error: {path}: {name}")
        assert printed.err.endswith("expected a provenance file of a run\n")
        assert printed.err.count("\n") == 1
    assert main(["provenance", str(other), str(other)]) == 0


def test_json_that_is_too_deep(tmp_path):
    (tmp_path / "facts.json").write_text(DEEP, encoding="utf-8")
    with pytest.raises(InputError, match=r"facts\.json: cannot be read as JSON"):
        read_json(tmp_path / "facts.json")


@pytest.mark.parametrize("metadata", ["[]", "3", '{"variant": ["regnet"]}', DEEP, "{"])
def test_metadata_of_weights(metadata, tmp_path):
    save_file({"layer.weight": torch.zeros(3)}, tmp_path / "model.safetensors", metadata={METADATA: metadata})
    with pytest.raises(InputError, match=r"model\.safetensors: ") as caught:
        load_network(tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)
