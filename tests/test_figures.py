"""The figures: what they show and say, that nothing crashes without data, and that files are reproducible."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.text import Text

from regnet import evaluation, figures
from regnet.errors import InputError
from regnet.training import COLUMNS


def landmarks(count=60, methods=("bspline_1r", "bspline_3r", "regnet")):
    random = np.random.default_rng(1)
    fixed = random.uniform(-100, 100, (count, 3))
    moving = fixed + random.normal(0, 3.5, (count, 3))
    transforms = {"affine": sitk.TranslationTransform(3, [0.5, 0, 0])}
    transforms |= {method: sitk.TranslationTransform(3, [0.2, step, 0.0]) for step, method in enumerate(methods)}
    return evaluation.pair_errors("p1", transforms, fixed, moving, 8.0)


@pytest.fixture
def field_slices(tmp_path):
    rows, columns = np.mgrid[:40, :50]
    arrays = {name: np.hypot(rows - 20, columns - 25) / 5 for name in evaluation.FREQUENCIES}
    ct = np.where(np.hypot(rows - 20, columns - 25) < 12, -800, 40)
    evaluation.save_slices(tmp_path / "field_slices.npz", arrays | {"ct": ct, "spacing": np.array([2.0, 2.0])})
    return tmp_path / "field_slices.npz"


@pytest.fixture
def example_slices(tmp_path):
    rows, columns = np.mgrid[:60, :70]
    fixed = np.where(np.hypot(rows - 30, columns - 35) < 15, -800, 40).astype(np.int16)
    arrays = {"pair": np.array("patient_1"), "spacing": np.array([2.0, 2.0]), "fixed": fixed}
    arrays["mask"] = (fixed < 0).astype(np.uint8)
    arrays |= {method: np.roll(fixed, step, 0) for step, method in enumerate(("regnet", "bspline_3r", "affine"))}
    evaluation.save_slices(tmp_path / "example_slices.npz", arrays)
    return tmp_path / "example_slices.npz"


def words(figure):
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("draw", [figures.figure_2_3, figures.figure_2_4])
def test_every_axis_of_numbers_has_its_unit(draw):
    for axes in draw(landmarks(), 8.0).axes:
        assert axes.get_xlabel().endswith("(mm)")
        assert axes.get_ylabel().endswith("(mm)") or axes.get_yticklabels()[0].get_text() == "Affine"


@pytest.mark.parametrize("draw", [figures.figure_2_3, figures.figure_2_4])
@pytest.mark.parametrize("table", [landmarks()[:0], landmarks(1), landmarks(3)])
def test_few_and_no_landmarks(draw, table, tmp_path):
    figure = draw(table, 8.0)
    figures.save_figure(figure, tmp_path / "figure.png", tmp_path / "figure.pdf")
    assert ("no landmarks in this cohort" in words(figure)) == table.empty


def test_no_landmarks_in_the_capture_range():
    figure = figures.figure_2_4(landmarks().assign(within_capture_range=False), 8.0)
    assert words(figure).count("no landmarks in the capture range") == 4


def test_without_regnet_its_panels_say_so():
    table = landmarks(methods=("bspline_3r",))
    assert words(figures.figure_2_3(table, 8.0)).count("no results of RegNet") == 1
    assert words(figures.figure_2_4(table, 8.0)).count("no results of RegNet") == 3


def test_errors_of_zero_are_drawn_on_logarithmic_axes(tmp_path):
    figure = figures.figure_2_3(landmarks().assign(error=0.0), 8.0)
    figures.save_figure(figure, tmp_path / "figure.png", tmp_path / "figure.pdf")


def test_a_method_keeps_its_colour_whoever_is_beside_it():
    def colours(figure):
        return {to_hex(line.get_color()) for axes in figure.axes for line in axes.get_lines()}

    for table in (landmarks(), landmarks(methods=("mine", "regnet"))):
        for draw in (figures.figure_2_3, figures.figure_2_4):
            assert "#d55e00" in colours(draw(table, 8.0))
    assert "#009e73" in colours(figures.figure_2_3(landmarks(methods=("mine", "regnet")), 8.0))


def test_per_axis_errors_are_those_of_the_table():
    table = landmarks()
    inside = table[table["within_capture_range"] & (table["method"] == "regnet")]
    text = words(figures.figure_2_4(table, 8.0))
    for axis in "xyz":
        assert f"mean |error| {inside[f'error_{axis}'].mean():.2f} mm" in text
    assert f"(n = {len(inside)})" in text


def test_heat_maps_share_one_scale_in_mm(field_slices):
    figure = figures.figure_2_2(field_slices)
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert len(images) == 3
    assert len({(image.norm.vmin, image.norm.vmax) for image in images}) == 1
    assert len(figure.findobj(ContourSet)) == 3
    assert "displacement (mm)" in words(figure)
    assert "50 mm" in words(figure)


def test_examples_show_every_method_of_the_file_and_its_difference(example_slices):
    figure = figures.figure_2_5(example_slices)
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert len(images) == 7
    text = words(figure)
    for expected in ("RegNet", "B-spline 3R", "Affine", "patient_1", "image (HU)", "difference (HU)", "50 mm"):
        assert expected in text
    differences = [float(value) for value in re.findall(r"mean \|difference\| (\d+) HU", text)]
    assert differences[0] == 0
    assert differences[0] < differences[1] < differences[2]


def test_examples_are_cut_to_the_lungs_and_a_margin(example_slices):
    figure = figures.figure_2_5(example_slices)
    # 29 voxels of lung and 8 (15 mm) on each side; 2 mm voxels, isotropic.
    assert figure.axes[0].get_images()[0].get_array().shape == (45, 45)


def test_files_are_reproducible_and_carry_no_date(tmp_path, field_slices):
    draw = [lambda: figures.figure_2_2(field_slices), lambda: figures.figure_2_4(landmarks(), 8.0)]
    for number, each in enumerate(draw):
        for copy in "ab":
            figures.save_figure(each(), tmp_path / f"{number}{copy}.png", tmp_path / f"{number}{copy}.pdf")
        for suffix in ("png", "pdf"):
            assert (tmp_path / f"{number}a.{suffix}").read_bytes() == (tmp_path / f"{number}b.{suffix}").read_bytes()
    pdf = (tmp_path / "1a.pdf").read_bytes()
    assert b"CreationDate" not in pdf
    # Type 42 is TrueType, embedded whole: text stays text in a paper. Type 3 would be drawings.
    assert b"/Type42" in pdf or b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf


def test_users_settings_do_not_change_the_figures_nor_the_figures_the_settings():
    with matplotlib.rc_context({"font.size": 30}):
        figure = figures.figure_2_3(landmarks(), 8.0)
        assert matplotlib.rcParams["font.size"] == 30
    assert figure.axes[0].xaxis.label.get_size() == 7


def test_files_that_are_not_slices_are_refused(example_slices, field_slices):
    with pytest.raises(InputError, match="lacks the arrays low"):
        figures.figure_2_2(example_slices)
    with pytest.raises(InputError, match="lacks the arrays pair"):
        figures.figure_2_5(field_slices)


def test_training_curves_show_every_stage_and_axis_and_the_zero_field():
    rows = [
        {name: 1.0 + epoch for name in COLUMNS} | {"stage": stage, "patches": 64 * epoch, "seconds": 3600.0 * epoch}
        for epoch, stage in enumerate(("warmup", "training", "training", "training"), start=1)
    ]
    curves = pd.DataFrame(rows)
    curves.loc[0, [name for name in COLUMNS if name.startswith("validation")]] = np.nan
    figure = figures.training_curves(curves)
    over_patches, over_time, along_axes = figure.axes
    labels = [line.get_label() for line in over_patches.get_lines()]
    assert labels == ["loss, warmup", "loss, training", "validation MAE", "zero field"]
    assert over_time.get_xlabel() == "training time (hours)"
    assert over_time.get_lines()[1].get_xdata().tolist() == [2, 3, 4]
    assert [line.get_label() for line in along_axes.get_lines()][::2] == ["x", "y", "z"]
    assert all("(mm)" in axes.get_ylabel() for axes in figure.axes)


def test_compared_trainings_are_drawn_where_they_were_validated():
    curves = pd.DataFrame({"patches": [100, 200, 300], "validation_mae": [np.nan, 3.0, 2.0], "validation_zero_field": 5.0})
    (axes,) = figures.compared_trainings({"with": curves, "without": curves.assign(validation_mae=4.5)}).axes
    first, second, zero_field = axes.get_lines()
    assert [line.get_label() for line in (first, second, zero_field)] == ["with", "without", "zero field"]
    assert first.get_xdata().tolist() == [200, 300]
    assert second.get_ydata().tolist() == [4.5] * 3
    assert set(zero_field.get_ydata()) == {5.0}


def test_examples_without_a_method_are_refused(tmp_path):
    arrays = {"pair": np.array("p"), "spacing": np.ones(2), "fixed": np.zeros((3, 3)), "mask": np.ones((3, 3))}
    evaluation.save_slices(tmp_path / "example_slices.npz", arrays)
    with pytest.raises(InputError, match="no method"):
        figures.figure_2_5(tmp_path / "example_slices.npz")


def test_every_function_that_draws_has_the_style_of_the_module():
    drawing = [function for name, function in vars(figures).items() if not name.startswith("_") and _draws(function)]
    assert len(drawing) >= 7
    assert all(hasattr(function, "__wrapped__") for function in drawing)


def _draws(function):
    return getattr(function, "__module__", "") == figures.__name__ and function.__annotations__.get("return") is figures.Figure
