"""Weights and transforms from others: every number is checked before it is used, and none that is not finite is written.

From public reports of networks that predict NaN or fill the memory because a weights file says a wrong spacing, intensity range
or weight, and of transforms with NaN that move points to nowhere without an error.
"""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from working_copy import ROOT

from regnet.cli import main
from regnet.errors import ConfigError, InputError, OutputError, RegistrationError
from regnet.experiment.checking import read_config
from regnet.experiment.schemas import check_config
from regnet.images.transforms import compose, field_transform, is_finite, read_field, read_transform, write_transform
from regnet.images.volumes import Grid, write_image
from regnet.learning.networks.pyramid import RegNetPyramid
from regnet.learning.networks.regnet import RegNet
from regnet.learning.weight_files import METADATA, load_network
from regnet.registration.run import register_pair

FACTS = {"variant": "regnet_1scale", "spacing": 2.0, "window": [-1000, 400]}
NETWORK = RegNet("regnet_1scale")
GRID = Grid((6, 5, 4), (2.0, 2.0, 2.0))


def write_weights(path, facts=FACTS, weights=None, metadata=None):
    state = {name: value.clone() for name, value in NETWORK.state_dict().items()} | (weights or {})
    save_file(state, path, {METADATA: json.dumps(facts) if metadata is None else metadata})
    return path


def test_right_weights_are_read_as_they_are(tmp_path):
    network, facts = load_network(write_weights(tmp_path / "a.safetensors"))
    assert facts == FACTS
    assert all(torch.equal(value, NETWORK.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("spacing", [0, 0.0, -2.0, 0.01, 1e9, "two", "2", None, True, [2.0], {}, float("nan"), float("inf")])
def test_a_spacing_that_cannot_be_is_one_line(spacing, tmp_path):
    path = write_weights(tmp_path / "a.safetensors", {**FACTS, "spacing": spacing})
    with pytest.raises(InputError) as error:
        load_network(path)
    assert str(error.value) == f"{path}: spacing: found {str(spacing)!r}, expected a number from 0.1 to 20 (mm)"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"spacing": 0.05}, "regnet.spacing: found 0.05 mm, expected 0.1 to 20, as weights are used only at these"),
        ({"stages": [32, 2]}, r"regnet\.stages\[0\]: found the number 32, expected a number of at least 0.1 and of at most 20"),
    ],
)
def test_no_config_trains_at_a_spacing_that_weights_cannot_have(changes, line, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = read_config([])
    config["resampling"] = {"spacing": 2.0}
    check_config({**config, "regnet": {**config["regnet"], "stages": None}})
    with pytest.raises(ConfigError, match=line):
        check_config({**config, "regnet": {**config["regnet"], "stages": None, **changes}})


@pytest.mark.parametrize(
    "window",
    [[400, -1000], [0, 0], [-1000], [-1000, 400, 5], "wide", None, {}, ["a", 400], [None, 400], [float("nan"), 400], [-1e9, 0]],
)
def test_a_window_that_cannot_be_is_one_line(window, tmp_path):
    path = write_weights(tmp_path / "a.safetensors", {**FACTS, "window": window})
    with pytest.raises(InputError) as error:
        load_network(path)
    expected = "expected the lowest HU, then the highest, from -32768 to 32767"
    assert str(error.value) == f"{path}: window: found {str(window)!r}, {expected}"


@pytest.mark.parametrize(
    "metadata", ["[]", "5", "null", '"regnet"', "[" * 100_000, "{", '{"variant": ["regnet"]}', '{"variant": {}}']
)
def test_metadata_that_are_no_facts_are_one_line(metadata, tmp_path):
    path = write_weights(tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(
        InputError, match=r"a\.safetensors: (cannot be read as weights|found the variant|found \w+ as metadata)"
    ):
        load_network(path)


def test_a_feature_pyramid_states_no_spacing(tmp_path):
    path = tmp_path / "a.safetensors"
    facts = {"variant": "regnet_pyramid", "spacing": 2.0, "window": [-1000, 400]}
    save_file(RegNetPyramid().state_dict(), path, {METADATA: json.dumps(facts)})
    with pytest.raises(InputError, match=r"spacing: found '2\.0', expected none: regnet_pyramid works at any"):
        load_network(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_refused(value, tmp_path):
    tensors = {name: tensor for name, tensor in NETWORK.state_dict().items() if tensor.numel() > 1}
    for name in list(tensors)[:: len(tensors) // 6]:
        wrong = tensors[name].clone()
        wrong.view(-1)[-1] = value
        path = write_weights(tmp_path / "a.safetensors", weights={name: wrong})
        with pytest.raises(InputError) as error:
            load_network(path)
        assert str(error.value) == f"{path}: {name}: found numbers that are not finite, expected finite weights"


def test_a_negative_variance_and_another_shape_are_refused(tmp_path):
    name = next(name for name in NETWORK.state_dict() if name.endswith("running_var"))
    variances = torch.full_like(NETWORK.state_dict()[name], -1.0)
    with pytest.raises(InputError, match=f"{name}: found variances below 0"):
        load_network(write_weights(tmp_path / "a.safetensors", weights={name: variances}))
    with pytest.raises(InputError, match="the weights do not fit the variant regnet_1scale"):
        load_network(write_weights(tmp_path / "a.safetensors", weights={name: variances[:-1].abs()}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(key=st.sampled_from(["variant", "spacing", "window"]), value=JSON)
def test_any_fact_is_right_or_refused(key, value, tmp_path_factory):
    path = write_weights(tmp_path_factory.mktemp("weights") / "a.safetensors", {**FACTS, key: value})
    try:
        _, facts = load_network(path)
    except InputError:
        return
    assert 0.1 <= facts["spacing"] <= 20
    assert facts["window"][0] < facts["window"][1]


def test_register_refuses_such_weights_before_it_reads_the_scans(tmp_path, capfd):
    path = write_weights(tmp_path / "a.safetensors", {**FACTS, "spacing": 0.01})
    (tmp_path / "scan.nii").touch()
    scan = f"{tmp_path}/scan.nii"
    assert main(["register", scan, scan, "--weights", str(path), "--output", f"{tmp_path}/out"]) == 2
    assert capfd.readouterr().err.splitlines() == [
        f"regnet: error: {path}: spacing: found '0.01', expected a number from 0.1 to 20 (mm)"
    ]
    assert not (tmp_path / "out").exists()


def transforms(value):
    """Transforms of all kinds that are written, each with one number replaced by `value`; at no corner of `GRID`."""
    field = np.zeros((*GRID.shape, 3))
    field[2, 2, 3, 1] = value
    image = GRID.image(np.zeros(GRID.shape, np.int16))
    spline = sitk.BSplineTransformInitializer(image, [2, 2, 2])
    coefficients = list(spline.GetParameters())
    coefficients[40] = value
    spline.SetParameters(coefficients)
    affine = sitk.AffineTransform(3)
    affine.SetTranslation((0.0, value, 0.0))
    shift = sitk.TranslationTransform(3, (1.0, 0.0, 0.0))
    return {
        "field": field_transform(field, GRID),
        "B-spline": spline,
        "affine": affine,
        "composite": compose(shift, field_transform(field, GRID), sitk.Euler3DTransform()),
    }


@pytest.mark.parametrize("kind", ["field", "B-spline", "affine", "composite"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_transform_that_is_not_finite_is_neither_written_nor_read(kind, value, tmp_path):
    wrong, right = transforms(value)[kind], transforms(0.5)[kind]
    assert (is_finite(wrong), is_finite(right)) == (False, True)
    path = tmp_path / "transform.h5"
    with pytest.raises(OutputError, match=r"transform\.h5: not written, found a transform with numbers that are not finite"):
        write_transform(wrong, path)
    assert not list(tmp_path.iterdir())
    write_transform(right, path)
    point = (6.0, 4.0, 4.0)
    np.testing.assert_allclose(read_transform(path).TransformPoint(point), right.TransformPoint(point))
    sitk.WriteTransform(wrong, path)
    with pytest.raises(InputError, match=r"transform\.h5: found a transform with numbers that are not finite"):
        read_transform(path)


def test_a_method_whose_field_is_not_finite_in_one_voxel_fails(tmp_path):
    (tmp_path / "method.py").write_text("def register(*images):\n    return images[5]['answer']\n", encoding="utf-8")
    image = GRID.image(np.zeros(GRID.shape, np.int16))
    settings = {"module": f"{tmp_path / 'method.py'}", "answer": transforms(float("nan"))["field"]}
    with pytest.raises(RegistrationError, match="found a transform with numbers that are not finite"):
        register_pair(image, image, settings)


def test_a_field_that_is_not_finite_is_refused(tmp_path):
    field = np.zeros((*GRID.shape, 3), np.float32)
    field[2, 2, 3, 1] = np.nan
    sitk.WriteImage(GRID.image(field), tmp_path / "dvf.mha")
    with pytest.raises(InputError, match=r"dvf\.mha: found vectors that are not finite"):
        read_field(tmp_path / "dvf.mha")
    write_image(GRID.image(np.zeros((*GRID.shape, 3), np.float32)), tmp_path / "right.nii.gz")
    assert read_field(tmp_path / "right.nii.gz").TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
