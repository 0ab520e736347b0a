"""The figures: their content, that they can be drawn without data, and that their files are reproducible."""

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.contour import ContourSet
from matplotlib.text import Text

from regnet.errors import InputError
from regnet.evaluation import landmark_errors
from regnet.evaluation.long_tables import FREQUENCIES, collect, read_slices, save_slices
from regnet.evaluation.long_tables import LANDMARK_COLUMNS as LANDMARKS
from regnet.evaluation.summaries import accuracy, accurate_ranges, capture_curve
from regnet.images.volumes import Grid
from regnet.learning.training import COLUMNS
from regnet.presentation.comparison import comparison, costs
from regnet.presentation.figures import chapter, fields, overview, style, synthesis, training
from regnet.presentation.figures import comparison as compared_methods

MODULES = (chapter, fields, compared_methods, overview, synthesis, training)


def landmarks(count=60, methods=("bspline_1r", "bspline_3r", "regnet")):
    random = np.random.default_rng(1)
    fixed = random.uniform(-100, 100, (count, 3))
    moving = fixed + random.normal(0, 3.5, (count, 3))
    transforms = {"affine": sitk.TranslationTransform(3, [0.5, 0, 0])}
    transforms |= {method: sitk.TranslationTransform(3, [0.2, step, 0.0]) for step, method in enumerate(methods)}
    return landmark_errors.pair_errors("p1", transforms, fixed, moving, 8.0, Grid((9, 9, 9), (1.0, 1.0, 1.0)))


@pytest.fixture
def field_slices(tmp_path):
    rows, columns = np.mgrid[:40, :50]
    arrays = {name: np.hypot(rows - 20, columns - 25) / 5 for name in FREQUENCIES}
    ct = np.where(np.hypot(rows - 20, columns - 25) < 12, -800, 40)
    save_slices(tmp_path / "field_slices.npz", arrays | {"ct": ct, "spacing": np.array([2.0, 2.0])})
    return tmp_path / "field_slices.npz"


@pytest.fixture
def example_slices(tmp_path):
    rows, columns = np.mgrid[:60, :70]
    fixed = np.where(np.hypot(rows - 30, columns - 35) < 15, -800, 40).astype(np.int16)
    arrays = {"pair": np.array("patient_1"), "spacing": np.array([2.0, 2.0]), "fixed": fixed}
    arrays["mask"] = (fixed < 0).astype(np.uint8)
    arrays |= {method: np.roll(fixed, step, 0) for step, method in enumerate(("regnet", "bspline_3r", "affine"))}
    save_slices(tmp_path / "example_slices.npz", arrays)
    return tmp_path / "example_slices.npz"


def words(figure):
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("draw", [chapter.figure_2_3, chapter.figure_2_4])
def test_every_axis_of_numbers_has_its_unit(draw):
    for axes in draw(landmarks(), 8.0).axes:
        assert axes.get_xlabel().endswith("(mm)")
        assert axes.get_ylabel().endswith("(mm)") or axes.get_yticklabels()[0].get_text() == "Affine"


@pytest.mark.parametrize("draw", [chapter.figure_2_3, chapter.figure_2_4])
@pytest.mark.parametrize("table", [landmarks()[:0], landmarks(1), landmarks(3)])
def test_few_and_no_landmarks(draw, table, tmp_path):
    figure = draw(table, 8.0)
    style.save_figure(figure, tmp_path / "figure.png", tmp_path / "figure.pdf")
    assert ("no landmarks in this cohort" in words(figure)) == table.empty


def test_no_landmarks_in_the_capture_range():
    figure = chapter.figure_2_4(landmarks().assign(within_capture_range=False), 8.0)
    assert words(figure).count("no landmarks in the capture range") == 4


def test_without_regnet_its_panels_say_so():
    table = landmarks(methods=("bspline_3r",))
    assert words(chapter.figure_2_3(table, 8.0)).count("no results of RegNet") == 1
    assert words(chapter.figure_2_4(table, 8.0)).count("no results of RegNet") == 3


def test_errors_of_zero_are_drawn_on_logarithmic_axes(tmp_path):
    figure = chapter.figure_2_3(landmarks().assign(error=0.0), 8.0)
    style.save_figure(figure, tmp_path / "figure.png", tmp_path / "figure.pdf")


def test_a_method_keeps_its_colour_beside_any_other():
    def colours(figure):
        return {to_hex(line.get_color()) for axes in figure.axes for line in axes.get_lines()}

    for table in (landmarks(), landmarks(methods=("mine", "regnet"))):
        for draw in (chapter.figure_2_3, chapter.figure_2_4):
            assert "#d55e00" in colours(draw(table, 8.0))


def test_every_method_of_the_workflow_has_a_look_of_its_own():
    looks = [*style.METHOD_LOOKS.values(), *style.OTHER_LOOKS]
    for part in ("colour", "marker"):
        assert len({getattr(look, part) for look in looks}) == len(looks), part
    assert len({str(look.line) for look in style.METHOD_LOOKS.values()}) == len(style.METHOD_LOOKS)
    networks, elastix = {"regnet", "regnet_pyramid", "regnet_refined"}, {"affine", "bspline_1r", "bspline_3r", "bspline_best"}
    assert set(style.METHOD_LOOKS) == networks | elastix | {"demons", "syn", "greedy", "convexadam"}


def test_a_users_method_has_the_same_look_beside_any_other():
    alone = style.method_looks(["mine"])["mine"]
    assert alone in style.OTHER_LOOKS
    for others in (["affine", "regnet"], list(style.METHOD_LOOKS), ["syn"]):
        assert style.method_looks([*others, "mine"])["mine"] == alone
    many = style.method_looks([f"mine_{number}" for number in range(len(style.OTHER_LOOKS))])
    assert len(set(many.values())) == len(many)


def test_per_axis_errors_are_those_of_the_table():
    table = landmarks()
    inside = table[table["within_capture_range"] & (table["method"] == "regnet")]
    text = words(chapter.figure_2_4(table, 8.0))
    for axis in "xyz":
        assert f"mean |error| {inside[f'error_{axis}'].mean():.2f} mm" in text
    assert f"(n = {len(inside)})" in text


def test_heat_maps_share_one_scale_in_mm(field_slices):
    figure = chapter.figure_2_2(field_slices)
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert len(images) == 3
    assert len({(image.norm.vmin, image.norm.vmax) for image in images}) == 1
    assert len(figure.findobj(ContourSet)) == 3
    assert "displacement (mm)" in words(figure)
    assert "50 mm" in words(figure)


def test_examples_show_every_method_of_the_file_and_its_difference(example_slices):
    figure = chapter.figure_2_5(example_slices)
    images = [image for axes in figure.axes for image in axes.get_images()]
    assert len(images) == 7
    text = words(figure)
    for expected in ("RegNet", "B-spline 3R", "Affine", "patient_1", "image (HU)", "fixed − moving (HU)", "50 mm"):
        assert expected in text
    differences = [float(value) for value in re.findall(r"mean \|difference\| (\d+) HU", text)]
    assert differences[0] == 0
    assert differences[0] < differences[1] < differences[2]


def test_examples_are_cut_to_the_lungs_and_a_margin(example_slices):
    figure = chapter.figure_2_5(example_slices)
    # 29 voxels of lung and 8 (15 mm) on each side; 2 mm voxels, isotropic.
    assert figure.axes[0].get_images()[0].get_array().shape == (45, 45)


@pytest.mark.slow
def test_files_are_reproducible_and_carry_no_date(tmp_path, field_slices):
    draw = [lambda: chapter.figure_2_2(field_slices), lambda: chapter.figure_2_4(landmarks(), 8.0)]
    for number, draw_figure in enumerate(draw):
        for copy in "ab":
            style.save_figure(draw_figure(), tmp_path / f"{number}{copy}.png", tmp_path / f"{number}{copy}.pdf")
        for suffix in ("png", "pdf"):
            assert (tmp_path / f"{number}a.{suffix}").read_bytes() == (tmp_path / f"{number}b.{suffix}").read_bytes()
    pdf = (tmp_path / "1a.pdf").read_bytes()
    assert b"CreationDate" not in pdf
    # Type 42 is embedded TrueType, so text stays text in a paper. Type 3 fonts are drawings.
    assert b"/Type42" in pdf or b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf


def test_users_settings_do_not_change_the_figures_nor_the_figures_the_settings():
    with matplotlib.rc_context({"font.size": 30}):
        figure = chapter.figure_2_3(landmarks(), 8.0)
        assert matplotlib.rcParams["font.size"] == 30
    assert figure.axes[0].xaxis.label.get_size() == 7


def test_files_that_are_not_slices_are_refused(example_slices, field_slices):
    with pytest.raises(InputError, match="lacks the arrays low"):
        chapter.figure_2_2(example_slices)
    with pytest.raises(InputError, match="lacks the arrays pair"):
        chapter.figure_2_5(field_slices)


def test_training_curves_show_every_stage_and_axis_and_the_zero_field():
    rows = [
        {name: 1.0 + epoch for name in COLUMNS} | {"stage": stage, "patches": 64 * epoch, "seconds": 3600.0 * epoch}
        for epoch, stage in enumerate(("warmup", "training", "training", "training"), start=1)
    ]
    curves = pd.DataFrame(rows)
    curves.loc[0, [name for name in COLUMNS if name.startswith("validation")]] = np.nan
    figure = training.training_curves(curves)
    over_patches, over_time, along_axes = figure.axes
    labels = [line.get_label() for line in over_patches.get_lines()]
    assert labels == ["loss, warmup", "loss, training", "validation MAE", "zero field"]
    assert over_time.get_xlabel() == "training time (hours)"
    assert over_time.get_lines()[1].get_xdata().tolist() == [2, 3, 4]
    assert [line.get_label() for line in along_axes.get_lines()][::2] == ["x", "y", "z"]
    assert all("(mm)" in axes.get_ylabel() for axes in figure.axes)
    assert over_patches.get_xlabel() == "patches seen (thousand)"
    over_crops = training.training_curves(curves.assign(blocks=[4000, 5000, 6000, 7000]), counted="blocks").axes[0]
    assert over_crops.get_xlabel() == "crops seen (thousand)"
    assert over_crops.get_lines()[1].get_xdata().tolist() == [5, 6, 7]


def test_compared_trainings_are_drawn_where_they_were_validated():
    curves = pd.DataFrame({"patches": [100, 200, 300], "validation_mae": [np.nan, 3.0, 2.0], "validation_zero_field": 5.0})
    (axes,) = training.compared_trainings({"with": curves, "without": curves.assign(validation_mae=4.5)}).axes
    first, second, zero_field = axes.get_lines()
    assert [line.get_label() for line in (first, second, zero_field)] == ["with", "without", "zero field"]
    assert first.get_xdata().tolist() == [200, 300]
    assert second.get_ydata().tolist() == [4.5] * 3
    assert set(zero_field.get_ydata()) == {5.0}


def test_examples_without_a_method_are_refused(tmp_path):
    arrays = {"pair": np.array("p"), "spacing": np.ones(2), "fixed": np.zeros((3, 3)), "mask": np.ones((3, 3))}
    save_slices(tmp_path / "example_slices.npz", arrays)
    with pytest.raises(InputError, match="no method"):
        chapter.figure_2_5(tmp_path / "example_slices.npz")


def test_every_function_that_draws_has_the_style_of_the_package():
    drawing = [function for module in MODULES for name, function in vars(module).items() if _draws(module, name, function)]
    assert len(drawing) >= 12
    assert all(hasattr(function, "__wrapped__") for function in drawing)


def _draws(module, name, function):
    is_ours = not name.startswith("_") and getattr(function, "__module__", "") == module.__name__
    return is_ours and function.__annotations__.get("return") is style.Figure


METHODS = ("affine", "bspline_1r", "bspline_3r", "bspline_best", "demons", "syn", "greedy", "convexadam", "mine", "regnet")


def many_landmarks(count=80, methods=METHODS):
    table = landmarks(count)
    affine = table[table["method"] == "affine"]
    frames = [affine.assign(method=method, error=affine["error"] / rank) for rank, method in enumerate(methods, start=1)]
    return collect(frames, LANDMARKS)


def comparison_of(table, methods=METHODS):
    rows = [(method, "p1", 10.0 + rank, 500.0) for rank, method in enumerate(methods)]
    runs = pd.DataFrame(rows, columns=["method", "pair", "seconds", "memory_mb"])
    draws = {"samples": 100, "seed": 1}
    ranges = accurate_ranges(capture_curve(table, [4, 8], **draws))
    return comparison(accuracy(table, [8.0, 4.0], **draws), costs(runs, regularity(methods), None, ranges))


def regularity(methods=METHODS):
    rows = [
        {"method": method, "pair": pair, "voxels": 1000, "folded": 0.01, "sd_log": 0.2}
        | {"min": -0.1 - rank, "p1": 0.4, "p5": 0.6, "median": 1.0, "p95": 1.4, "p99": 1.6, "max": 3.0}
        for rank, method in enumerate(methods)
        for pair in ("p1", "p2")
    ]
    return pd.DataFrame(rows)


def field_errors(methods=METHODS):
    levels = {"p5": 0.0, "p25": 0.5, "median": 1.0, "p75": 2.0, "p95": 5.0, "p99": 9.0, "max": 12.0}
    rows = [
        {"method": method, "pair": "p1", "voxels": 1000, "mean": 1.5 + rank, "sd": 1.0} | levels
        for rank, method in enumerate(methods)
    ]
    return pd.DataFrame(rows)


def map_slices(tmp_path, values, methods=METHODS, spacing=(2.0, 2.0)):
    rows, columns = np.mgrid[:60, :70]
    fixed = np.where(np.hypot(rows - 30, columns - 35) < 15, -800, 40).astype(np.int16)
    arrays = {
        "pair": np.array("patient_1"),
        "spacing": np.array(spacing),
        "fixed": fixed,
        "mask": (fixed < 0).astype(np.uint8),
    }
    save_slices(tmp_path / "slices.npz", arrays | dict.fromkeys(methods, values))
    return tmp_path / "slices.npz"


def colours_of(figure):
    lines = [line for axes in figure.findobj(Axes) for line in axes.get_lines()]
    return {to_hex(line.get_color()) for line in lines} | {to_hex(line.get_markerfacecolor()) for line in lines}


@pytest.mark.slow
def test_a_method_has_one_colour_in_all_figures(tmp_path):
    table = many_landmarks()
    compared, curve = comparison_of(table), capture_curve(table, [2, 4, 8], samples=100, seed=1)
    values = np.full((60, 70), 1.2)
    for figure in (
        chapter.figure_2_3(table, 8.0),
        chapter.figure_2_4(table, 8.0),
        compared_methods.figure_comparison(table, compared, 8.0),
        compared_methods.figure_accuracy_time(compared, 8.0),
        compared_methods.figure_capture_range(curve, 8.0),
        fields.figure_jacobian(regularity(), map_slices(tmp_path, values)),
        fields.figure_field_error(field_errors(), map_slices(tmp_path, values)),
    ):
        expected = {look.colour.lower() for look in style.method_looks(METHODS).values()}
        assert expected <= colours_of(figure)
        for method in METHODS:
            assert style.method_name(method) in words(figure)


def test_the_capture_range_figure_marks_bins_of_few_landmarks():
    table = many_landmarks()
    curve = capture_curve(table, [2, 4, 6, 8, 10], samples=100, seed=1)
    affine = curve[curve["method"] == "affine"]
    assert affine["few"].any()
    assert not affine["few"].all()
    text = words(compared_methods.figure_capture_range(curve, 8.0)).splitlines()
    for _, row in affine.iterrows():
        assert f"{row['n']}†" in text if row["few"] else f"{row['n']}" in text
    ranges = accurate_ranges(curve)
    assert any(line.startswith(f"B-spline 1R: {ranges.loc['bspline_1r', 'held_to']:g} mm") for line in text)
    assert "RegNet: ≥ 6 mm" in text or "RegNet: ≥ 8 mm" in text


def test_axes_of_the_comparison_have_units():
    table = many_landmarks()
    compared = comparison_of(table)
    curve = capture_curve(table, [2, 4, 8], samples=100, seed=1)
    axes = [
        *compared_methods.figure_comparison(table, compared, 8.0).axes,
        *compared_methods.figure_accuracy_time(compared, 8.0).axes,
        *compared_methods.figure_capture_range(curve, 8.0).axes,
    ]
    for panel in axes:
        assert not panel.get_xlabel() or re.search(r"\((mm|s)\)", panel.get_xlabel())
    labels = [panel.get_xlabel() for panel in axes] + [panel.get_ylabel() for panel in axes]
    assert {label for label in labels if label and "(" not in label} == {"landmarks"}


@pytest.mark.slow
def test_the_comparison_says_that_there_are_no_landmarks(tmp_path):
    nothing = many_landmarks()[:0]
    compared = comparison_of(nothing)
    drawn = [
        compared_methods.figure_comparison(nothing, compared, 8.0),
        compared_methods.figure_accuracy_time(compared, 8.0),
        compared_methods.figure_capture_range(capture_curve(nothing, [2], samples=100, seed=1), 8.0),
    ]
    for number, figure in enumerate(drawn):
        style.save_figure(figure, tmp_path / f"{number}.png", tmp_path / f"{number}.pdf")
        assert "no landmarks" in words(figure)


@pytest.mark.parametrize("count", [1, 2])
def test_one_landmark_has_no_interval_to_draw(count, tmp_path):
    table = many_landmarks(count)
    compared, curve = comparison_of(table), capture_curve(table, [2, 4, 8], samples=100, seed=1)
    for number, figure in enumerate(
        (
            compared_methods.figure_comparison(table, compared, 8.0),
            compared_methods.figure_accuracy_time(compared, 8.0),
            compared_methods.figure_capture_range(curve, 8.0),
        )
    ):
        style.save_figure(figure, tmp_path / f"{number}.png")


def test_folded_voxels_are_red_and_outlined(tmp_path):
    values = np.full((60, 70), 0.9)
    whole = fields.figure_jacobian(regularity(("affine",)), map_slices(tmp_path, values, ("affine",)))
    values[28:32, 30:40] = -0.2
    folded = fields.figure_jacobian(regularity(("affine",)), map_slices(tmp_path, values, ("affine",)))
    assert len(folded.findobj(ContourSet)) == len(whole.findobj(ContourSet)) + 1
    assert "Affine, min. −0.20" in words(folded)
    assert "min. −0.10, 1 % folded, sd log J 0.20" in words(folded)


def test_the_title_of_the_maps_stands_above_those_of_the_methods_where_a_lung_is_tall(tmp_path):
    path = map_slices(tmp_path, np.full((60, 70), 1.2), spacing=(4.0, 2.0))
    figure = fields.figure_jacobian(regularity(), path)
    figure.canvas.draw()
    title = next(text for text in figure.findobj(Text) if "coronal slice" in text.get_text())
    names = [text for text in figure.findobj(Text) if ", min. " in text.get_text()]
    assert len(names) == len(METHODS)
    assert title.get_window_extent().y0 >= max(name.get_window_extent().y1 for name in names)


def test_maps_are_coloured_in_the_lungs_alone_and_to_one_scale(tmp_path):
    path = map_slices(tmp_path, np.full((60, 70), 3.0))
    figure = fields.figure_field_error(field_errors(), path)
    maps = [image for axes in figure.findobj(Axes) for image in axes.get_images() if image.get_cmap().name == "viridis"]
    assert len(maps) == len(METHODS)
    assert len({(image.norm.vmin, image.norm.vmax) for image in maps}) == 1
    crop = style.crop_around(read_slices(path, ["mask"])["mask"], np.array([2.0, 2.0]))
    inside = read_slices(path, ["mask"])["mask"][crop] != 0
    for image in maps:
        np.testing.assert_array_equal(~np.ma.getmaskarray(image.get_array()), inside)
    assert "distance to the true displacement (mm)" in words(figure)


def test_many_methods_take_several_rows(tmp_path):
    arrays = read_slices(map_slices(tmp_path, np.full((60, 70), 3.0)), ["fixed"])
    save_slices(tmp_path / "example.npz", arrays | {method: arrays["fixed"] for method in METHODS})
    figure = chapter.figure_2_5(tmp_path / "example.npz")
    assert sum(len(axes.get_images()) for axes in figure.axes) == 1 + 2 * len(METHODS)
    assert style.grid_of(5) == (5, 1)
    assert style.grid_of(6) == (3, 2)
    assert style.grid_of(11) == (4, 3)
