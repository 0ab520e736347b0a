"""What all methods have in common: cropping, their arguments, their results, and how they fail."""

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from regnet.errors import ConfigError, RegistrationError
from regnet.images.transforms import transform_points
from regnet.images.volumes import Grid, mask_corners
from regnet.registration.loading import load
from regnet.registration.methods import check_methods, configured, method_files, starts_from
from regnet.registration.run import register_pair

ROOT = Path(__file__).resolve().parents[2]

RECORDER = """
import os
import SimpleITK as sitk

ARGUMENTS = {}

def register(fixed, moving, fixed_mask, moving_mask, initial, settings):
    ARGUMENTS.update(locals())
    os.system("echo printed by the method")
    if settings.get("fail"):
        raise settings["fail"]
    return settings.get("answer", sitk.TranslationTransform(3, (1.0, 2.0, 3.0)))
"""


@pytest.fixture
def recorder(tmp_path):
    """A user's method that records its arguments: its path, and the mapping of its arguments."""
    path = tmp_path / "recorder.py"
    path.write_text(RECORDER, encoding="utf-8")
    return str(path), load(str(path)).__globals__["ARGUMENTS"]


@pytest.fixture
def pair(oblique_grid):
    """Fixed and moving image and their masks: a box in the middle, the same in both, the moving grid 10 mm further."""
    array = np.full(oblique_grid.shape, -800, np.int16)
    mask = np.zeros(oblique_grid.shape, np.uint8)
    mask[20:28, 22:32, 25:37] = 1
    further = Grid(
        oblique_grid.size, oblique_grid.spacing, tuple(np.add(oblique_grid.origin, 10).tolist()), oblique_grid.direction
    )
    return {
        "fixed": oblique_grid.image(array),
        "moving": further.image(array),
        "fixed_mask": oblique_grid.image(mask),
        "moving_mask": further.image(mask),
    }


def run(pair, settings, log, **options):
    masks = {name: pair[name] for name in ("fixed_mask", "moving_mask")} | options
    return register_pair(pair["fixed"], pair["moving"], settings, tool_log=log, **masks)


def same_grid(image, expected):
    return Grid.of(image) == Grid.of(expected)


def test_a_method_gets_its_settings_and_those_of_all_methods(recorder, pair, tmp_path):
    path, arguments = recorder
    initial = sitk.TranslationTransform(3, (10.0, 10.0, 10.0))
    log = tmp_path / "logs" / "tool.log"
    transform = run(pair, {"module": path, "depth": 3}, log, initial=initial, seed=11, threads=2)
    assert arguments["settings"] == {"depth": 3, "seed": 11, "threads": 2, "gpus": 0, "log": str(log)}
    assert arguments["initial"] is initial
    assert all(same_grid(arguments[name], pair[name]) for name in pair)
    assert isinstance(transform, sitk.CompositeTransform)
    np.testing.assert_allclose(transform.TransformPoint((5.0, 5.0, 5.0)), (6.0, 7.0, 8.0))
    assert log.read_text(encoding="utf-8") == "printed by the method\n"


@pytest.mark.parametrize("with_initial", [False, True])
def test_images_are_cropped_to_the_lungs_and_a_margin(recorder, pair, with_initial, tmp_path):
    path, arguments = recorder
    # To the end of the moving image, where a margin is cut short.
    shift = pair["moving"].TransformIndexToPhysicalPoint((51, 30, 24))
    shift = np.subtract(shift, mask_corners(pair["fixed_mask"]).mean(axis=0))
    initial = sitk.TranslationTransform(3, shift.tolist()) if with_initial else None
    run(pair, {"module": path}, tmp_path / "log", initial=initial, margin=6.0)
    # Voxels of 2 mm: three more on each side of 12 x 10 x 8, twice as many in the moving image.
    assert arguments["fixed"].GetSize() == arguments["fixed_mask"].GetSize() == (18, 16, 14)
    assert arguments["fixed"].GetOrigin() == pytest.approx(pair["fixed"].TransformIndexToPhysicalPoint((22, 19, 17)))
    assert same_grid(arguments["moving"], arguments["moving_mask"])
    # Half a voxel off by `initial`, which takes one more.
    assert arguments["moving"].GetSize() == ((60 - 39, 23, 21) if with_initial else (24, 22, 20))
    where = pair["moving"].TransformPhysicalPointToIndex(arguments["moving"].GetOrigin())
    assert where == ((39, 19, 14) if with_initial else (19, 16, 14))
    # The mask keeps its voxels.
    assert sitk.GetArrayFromImage(arguments["fixed_mask"]).sum() == 12 * 10 * 8


def test_images_without_masks_stay_whole(recorder, pair, tmp_path):
    path, arguments = recorder
    for masks in ({"fixed_mask": None}, {"moving_mask": None}):
        run(pair, {"module": path}, tmp_path / "log", margin=6.0, **masks)
        assert same_grid(arguments["fixed"], pair["fixed"])
        assert same_grid(arguments["moving"], pair["moving"])


def test_a_field_found_around_the_lungs_continues_in_the_whole_image(recorder, pair, tmp_path):
    path, arguments = recorder
    run(pair, {"module": path}, tmp_path / "log", margin=6.0)
    field = Grid.of(arguments["fixed"]).image(np.tile((4.0, -3.0, 2.0), (*Grid.of(arguments["fixed"]).shape, 1)))
    transform = run(pair, {"module": path, "answer": sitk.DisplacementFieldTransform(field)}, tmp_path / "log", margin=6.0)
    corners = Grid.of(pair["fixed"]).corners()
    np.testing.assert_allclose(transform_points(transform, corners) - corners, np.tile((4.0, -3.0, 2.0), (8, 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fail": RuntimeError("first line\nlast line")}, r"^last line \(more in .*log\)$"),
        ({"answer": None}, "^found NoneType, expected a SimpleITK transform in 3D"),
        ({"answer": sitk.TranslationTransform(2)}, "^found TranslationTransform, expected a SimpleITK transform in 3D"),
        ({"answer": sitk.TranslationTransform(3, (np.nan, 0, 0))}, "^found a transform with numbers that are not finite$"),
    ],
)
def test_a_failure_is_one_line(settings, message, recorder, pair, tmp_path):
    with pytest.raises(RegistrationError, match=message):
        run(pair, {"module": recorder[0], **settings}, tmp_path / "log")


def test_images_that_do_not_overlap_are_refused_for_every_method(recorder, pair, tmp_path):
    away = sitk.TranslationTransform(3, (0.0, 0.0, 500.0))
    with pytest.raises(RegistrationError, match=r"^no overlap: after the affine registration none of \d+ points"):
        run(pair, {"module": recorder[0]}, tmp_path / "log", initial=away, margin=20.0)
    assert not recorder[1]


def test_rows_of_an_overlay_come_after_those_of_the_default_config():
    default = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))["methods"]
    assert list(configured({"zebra": {}, "ant": {}} | default)) == [*default, "zebra", "ant"]


def test_a_null_drops_a_method():
    methods = {"affine": {"module": "elastix"}, "regnet": None}
    assert list(configured(methods)) == ["affine"]
    check_methods({"regnet": None})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"module": "nowhere/mine.py"},
            "module: found nowhere/mine.py, which does not exist, expected one of elastix, .* or the path",
        ),
        ({"module": "elastiks"}, "module: found elastiks, which does not exist, .* or a module that Python can import"),
        ({"module": "no_such_package.mine"}, "module: found no_such_package.mine, which does not exist"),
        ({"module": "empty.py"}, "module: found empty.py without a function register, expected one: register(fixed, moving, "),
        (
            {"module": "elastix", "parameters": "no.txt"},
            "parameters: found no.txt, which is not a file, expected an elastix parameter",
        ),
    ],
)
def test_a_method_that_does_not_exist_is_one_line(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.py").write_text("def registr():\n    pass\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        check_methods({"row": settings})
    text, (start, *rest) = str(caught.value), message.split(".* ")
    assert text.startswith(f"config: methods.row.{start}")
    assert all(part in text for part in rest)
    assert "\n" not in text


AFFINE = {"module": "elastix", "parameters": str(ROOT / "config" / "elastix" / "affine.txt")}


def test_a_method_starts_from_the_affine_one_or_another():
    methods = {"affine": AFFINE, "regnet": {"module": "regnet"}, "fine": {"module": "demons", "initial": "regnet"}}
    check_methods(methods)
    assert [starts_from(name, methods) for name in methods] == [None, "affine", "regnet"]


@pytest.mark.parametrize(
    ("name", "initial", "message"),
    [
        ("affine", "one", "affine.initial: found one, expected none: the affine registration starts from nothing"),
        ("one", "regnet", "one.initial: found regnet, expected one of affine, other"),
        ("one", "other", "one.initial: found other, which starts from one itself (one <- other <- one)"),
        ("one", "one", "one.initial: found one, which starts from one itself (one <- one)"),
    ],
)
def test_a_method_that_cannot_start_is_named(name, initial, message):
    methods = {"affine": AFFINE, "one": {"module": "demons"}, "other": {"module": "demons", "initial": "one"}, "regnet": None}
    methods[name] = {**methods[name], "initial": initial}
    with pytest.raises(ConfigError) as caught:
        check_methods(methods)
    assert str(caught.value).splitlines()[0] == f"config: methods.{message}"


def test_a_method_does_not_see_where_it_starts_from(recorder, pair, tmp_path):
    path, seen = recorder
    run(pair, {"module": path, "initial": "regnet", "own": 1}, tmp_path / "log", initial=sitk.AffineTransform(3))
    assert "initial" not in seen["settings"]
    assert seen["settings"]["own"] == 1


@pytest.mark.parametrize("module", ["syn", "greedy", "convexadam"])
def test_a_missing_package_is_one_line(module, monkeypatch):
    for name in ("ants", "picsl_greedy", "convexAdam"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=rf"^config: methods.row.module: found {module}, whose package \S+ is not installed; .*make"
    ):
        check_methods({"row": {"module": module}})


def test_a_change_of_any_file_of_a_method_counts(recorder):
    files = method_files({"module": "elastix", "parameters": "config/elastix/affine.txt"})
    assert {Path(path).name for path in files} >= {"run.py", "elastix.py", "transforms.py", "affine.txt"}
    assert not [path for path in files if path.endswith("demons.py")]
    assert Path(recorder[0]).samefile(
        next(path for path in method_files({"module": recorder[0]}) if path.endswith("recorder.py"))
    )
