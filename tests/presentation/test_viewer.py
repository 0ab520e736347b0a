"""The viewer: the content of its page, and what a browser shows of it offline."""

import base64
import gzip
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk
from browser import needs_chromium, opened

from regnet.images.transforms import compose, field_transform, warp
from regnet.images.volumes import Grid
from regnet.presentation import viewer
from regnet.presentation.viewer import HU_STEP, write_viewer
from regnet.system.resources import shipped

pytestmark = pytest.mark.slow

PAIR = "pair_<b>1</b>"
METHOD = "</script><b>mine"


def balls(grid, centres):
    """Soft tissue around a big air-filled ball, with bright balls of radius 3 mm at `centres`."""
    index = np.moveaxis(np.indices(grid.shape)[::-1], 0, -1)
    points = grid.points(index)
    middle = grid.points((np.array(grid.size) - 1) / 2)
    ct = np.where(np.linalg.norm(points - middle, axis=-1) < 42, -850, 30)
    for centre in centres:
        ct[np.linalg.norm(points - centre, axis=-1) < 3] = 300
    return grid.image(ct.astype(np.int16))


@pytest.fixture(scope="module")
def pair(oblique_grid):
    """Arguments of `write_viewer`: a pair on an oblique grid whose landmarks are bright balls, and three transforms."""
    grid = oblique_grid
    fixed_points = grid.points(np.array([[22, 20, 25], [40, 33, 15], [35, 20, 30.0]]))
    moving_points = fixed_points + np.array([6.0, -3, 4])
    index = np.moveaxis(np.indices(grid.shape)[::-1], 0, -1)
    bump = 6 * np.exp(-(((index - np.array(grid.size) / 2) / 9) ** 2).sum(axis=-1))
    folding = np.stack([np.zeros(grid.shape), np.zeros(grid.shape), -30 * bump / 6 * np.sin(index[..., 2] / 2)], axis=-1)
    affine = compose(sitk.TranslationTransform(3, [5.0, -3, 4]))
    images = balls(grid, fixed_points), sitk.Cast(balls(grid, []) < -500, sitk.sitkUInt8), balls(grid, moving_points)
    transforms = {
        "affine": affine,
        "regnet": compose(affine, field_transform(np.stack([bump / 6, 0 * bump, 0 * bump], axis=-1), grid)),
        METHOD: compose(affine, field_transform(folding, grid)),
    }
    return PAIR, *images, transforms, (fixed_points, moving_points)


@pytest.fixture(scope="module")
def path(pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("viewer") / "pair.html"
    write_viewer(path, *pair, experiment="test & more")
    return path


@pytest.fixture(scope="module")
def opened_page(path):
    with opened(path) as page:
        page.wait_for("document.body.dataset.ready === 'true'")
        yield page


@pytest.fixture
def page(opened_page):
    """The page in the state after opening."""
    opened_page.run("change({mode: 'side', method: 'regnet', plane: 'all', window: 'lung', landmarks: true, chosen: null})")
    opened_page.run("goTo(data.start)")
    return opened_page


def content(path):
    """The data of a page, and its volumes by name."""
    text = path.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    packed = dict(re.findall(r'<script type="text/plain" data-volume="(.*?)">(.*?)</script>', text))
    data = json.loads(data)
    scales = {viewer.html.escape(name): volume["scale"] for name, volume in data["volumes"].items()}
    shape = np.array(data["grid"]["size"][::-1])
    rows = {name: np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8) for name, text in packed.items()}
    codes = {name: np.cumsum(array.reshape(shape // scales[name]), axis=2, dtype=np.uint8) for name, array in rows.items()}
    return data, codes


def values(path, name):
    data, codes = content(path)
    coding = data["volumes"][name]
    return coding["intercept"] + coding["slope"] * codes[name].astype(float)


def grid_of(path):
    grid = content(path)[0]["grid"]
    return Grid(*(tuple(grid[name]) for name in ("size", "spacing", "origin", "direction")))


def test_the_images_are_those_of_the_pair_under_each_transform(pair, path):
    _, fixed, _, moving, transforms, _ = pair
    grid = grid_of(path)
    for name, transform in {"moving": sitk.Transform(3, sitk.sitkIdentity), **transforms}.items():
        if name == METHOD:
            continue
        expected = np.clip(sitk.GetArrayFromImage(warp(moving, transform, grid)), -1024, 506)
        assert np.abs(values(path, name) - expected).max() <= HU_STEP / 2
    assert np.abs(values(path, "fixed") - sitk.GetArrayFromImage(warp(fixed, sitk.Transform(), grid))).mean() < HU_STEP


def test_the_fields_are_in_mm_and_folding_is_marked(path):
    _, codes = content(path)
    assert np.allclose(values(path, "affine/displacement"), 50**0.5, atol=0.1)
    assert 0.9 < values(path, "regnet/nonrigid").max() < 1.1
    assert np.allclose(values(path, "affine/jacobian"), 1)
    assert (codes["regnet/jacobian"] > 0).all()
    assert (codes[viewer.html.escape(METHOD) + "/jacobian"] == 0).any()


def test_landmarks_lie_on_the_bright_balls_with_their_errors(pair, path):
    *_, (fixed_points, moving_points) = pair
    data, codes = content(path)
    for index in data["landmarks"]:
        assert codes["fixed"][tuple(np.rint(index[::-1]).astype(int))] > 180
    errors = {method["id"]: method["errors"] for method in data["methods"]}
    assert np.allclose(errors["moving"]["length"], 61**0.5)
    assert np.allclose(errors["affine"]["length"], 1)
    vectors = grid_of(path).to_physical(np.array(errors["affine"]["vector"]) * grid_of(path).spacing)
    assert np.allclose(vectors, moving_points - fixed_points - [5, -3, 4])


def test_a_pair_without_landmarks_and_a_page_that_would_be_too_large(pair, path, tmp_path, monkeypatch):
    volumes = sum(map(len, re.findall(r'<script type="text/plain".*</script>', path.read_text(encoding="utf-8"))))
    monkeypatch.setattr(viewer, "LARGEST_PAGE", path.stat().st_size - volumes // 2)
    small = tmp_path / "small.html"
    write_viewer(small, *pair[:-1])
    assert small.stat().st_size <= viewer.LARGEST_PAGE
    data, _ = content(small)
    assert data["landmarks"] == []
    assert data["grid"]["spacing"][0] > 2


def test_the_page_contains_the_licence_of_the_library(path):
    licence = (shipped("viewer") / "LICENSE.niivue").read_text(encoding="utf-8")
    assert "BSD 2-Clause" in licence
    assert licence in path.read_text(encoding="utf-8")


@needs_chromium
def test_the_page_is_silent_and_asks_nothing_of_the_network(page):
    for mode in page.run("Object.keys(MODES)"):
        for method in ("moving", METHOD):
            page.run(f"change({{mode: '{mode}', method: {json.dumps(method)}}})")
    assert page.messages() == []
    assert page.requests() == []


@needs_chromium
def test_names_are_text_and_never_markup(page):
    assert PAIR in page.run("document.getElementById('title').textContent")
    assert METHOD in page.run("document.getElementById('methods').textContent")
    assert page.run("document.querySelectorAll('b b, h1 b, button > b ~ b').length") == 0
    assert page.run("document.title") == f"{PAIR} - test & more"


@needs_chromium
@pytest.mark.parametrize("mode", ["overlay", "checkerboard", "difference", "displacement", "nonrigid", "jacobian"])
def test_the_slider_and_the_image_change_the_picture(page, mode):
    page.run(f"change({{mode: '{mode}', method: {json.dumps(METHOD)}, landmarks: false}})")
    before = page.picture("#main")
    slide = "slider.value = slider.min; slider.dispatchEvent(new Event('input')); await refreshing"
    page.run(f"(async () => {{ const slider = element('slider'); {slide}; }})()")
    slid = page.picture("#main")
    assert np.abs(slid - before).max() > 0.1
    page.run("moveSlider(MODES[state.mode].slider.max)")
    page.run("change({})")
    before = page.picture("#main")
    page.run("change({method: 'affine'})")
    assert np.abs(page.picture("#main") - before).max() > 0.1


@needs_chromium
def test_methods_planes_and_windows_change_the_picture_by_key(page):
    pictures = [page.picture("#main")]
    for key in ("1", "2", "p", "p", "p", "w", "w", "arrowup", "+"):
        page.press(key)
        page.run("change({})")
        pictures.append(page.picture("#main"))
    for before, after in pairwise(pictures):
        assert np.abs(after - before).max() > 0.1


@needs_chromium
def test_landmarks_appear_and_vanish_with_their_list(page):
    page.press(".")
    assert (page.canvas("#main .marks")[..., 1] > 0.5).any()
    order = [float(text) for text in page.run("[...document.querySelectorAll('#landmarks-list b')].map((b) => b.textContent)")]
    assert order == sorted(order, reverse=True)
    with_landmarks = page.canvas("#main .marks")
    page.press("l")
    without = page.canvas("#main .marks")
    assert (with_landmarks != without).any()
    page.press("l")
    assert np.array_equal(page.canvas("#main .marks"), with_landmarks)


@needs_chromium
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_landmark_is_drawn_on_the_ball_that_it_marks(page, plane):
    page.run(f"change({{plane: '{plane}', landmarks: false, window: 'full'}})")
    for number in range(3):
        page.run(f"goTo(data.landmarks[{number}])")
        page.run("toggleLandmarks(false)")
        picture = page.picture("#reference")
        drawn = page.run(
            f"(() => {{ const {{ nv, pane }} = panes.reference; const slice = nv.screenSlices[0];"
            f" const axes = [0, 1, 2].filter((axis) => axis !== PLANES[state.plane].across);"
            f" const unit = nv.canvas.width / pane.clientWidth;"
            f" return place(slice, data.landmarks[{number}], axes).map((value) => value / unit); }})()"
        )
        column, row = np.rint(drawn).astype(int)
        scale = page.run(
            "panes.reference.nv.screenSlices[0].leftTopWidthHeight[2] / panes.reference.nv.screenSlices[0].fovMM[0]"
        )
        radius = abs(int(7 * scale))
        patch = picture[row - radius : row + radius + 1, column - radius : column + radius + 1].mean(axis=-1)
        bright = np.argwhere(patch > 0.8) - radius
        assert len(bright) > 20
        assert np.abs(bright.mean(axis=0)).max() < 1.2 * abs(scale)
