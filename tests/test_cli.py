"""The command line: its files agree with each other and with ITK, and each problem with the input is one line."""

import gzip
import hashlib
import json
import os
import pickle
import pty
import re
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dicom_files import write_series
from safetensors.torch import save_file

from regnet.api import RESULTS
from regnet.cli import main
from regnet.images.landmarks import read_landmarks, write_landmarks
from regnet.images.transforms import read_transform, transform_points
from regnet.images.volumes import Grid, read_image, write_image
from regnet.learning.networks.regnet import RegNet
from regnet.learning.textures import random_texture
from regnet.learning.weight_files import save_network

ROOT = Path(__file__).parents[1]
SPACING = 2.0
"""Working spacing of the network under test, in mm; it differs from those of the images."""

LANDMARK_SHIFT = np.array([1.0, -2.0, 0.5])
"""Displacement from each fixed landmark to the corresponding moving landmark, in mm."""


def texture(grid: Grid, seed: int) -> np.ndarray:
    """Blobs of a few mm, -1000 to 200 HU (air to tissue)."""
    noise = np.random.default_rng(seed).normal(size=grid.shape).astype(np.float32)
    smooth = sitk.Normalize(sitk.SmoothingRecursiveGaussian(grid.image(noise), 4.0))
    return np.clip(sitk.GetArrayFromImage(smooth) * 200 - 600, -1000, 200).astype(np.int16)


def random_network() -> RegNet:
    """A network that predicts displacements of about a voxel, which vary in space and between axes."""
    torch.manual_seed(1)
    network = RegNet()
    # Batch normalization gets statistics of textures; with zeros and ones the signal would fade from layer to layer.
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.momentum = None
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        network.train()(*(random_texture(60, 1.5, generator) for _ in range(2)))
        network.joint[-1].bias += torch.tensor([0.8, -0.6, 0.4])
    return network


@pytest.fixture(scope="module")
def scans(tmp_path_factory, oblique_grid):
    """A folder with two anisotropic, oblique images on different grids, masks, landmarks and random weights."""
    folder = tmp_path_factory.mktemp("scans")
    direction = oblique_grid.direction
    fixed = Grid((36, 32, 18), (1.6, 1.7, 3.0), (-31.0, 12.5, 88.0), direction)
    moving = Grid((48, 46, 30), (1.5, 1.5, 2.5), tuple(fixed.points([-4.5, -4.0, -3.0]).tolist()), direction)
    fixed_mask = np.zeros(fixed.shape, np.uint8)
    fixed_mask[3:-3, 5:-5, 5:-5] = 1
    moving_mask = np.zeros(moving.shape, np.uint8)
    moving_mask[4:-4, 6:-6, 6:-6] = 1
    for name, array, grid in (
        ("fixed.nii.gz", texture(fixed, 1), fixed),
        ("fixed_mask.nii.gz", fixed_mask, fixed),
        ("moving.nrrd", texture(moving, 2), moving),
        ("moving_mask.mha", moving_mask, moving),
    ):
        write_image(grid.image(array), folder / name)
    points = fixed.points(np.random.default_rng(3).uniform(0.3, 0.7, (8, 3)) * fixed.size)
    write_landmarks(points, folder / "fixed.txt")
    rows = "".join(f"{number},{x},{y},{z}\n" for number, (x, y, z) in enumerate(points + LANDMARK_SHIFT))
    (folder / "moving.csv").write_text(f"name,x,y,z\n{rows}", encoding="utf-8")
    save_network(random_network(), folder / "weights.safetensors", spacing=SPACING, window=(-1000, 400))
    return folder


def register_arguments(folder: Path, output: Path) -> dict[str, str]:
    """The arguments that register the two scans, by name; tests replace single ones."""
    return {
        "fixed": f"{folder}/fixed.nii.gz",
        "moving": f"{folder}/moving.nrrd",
        "--fixed-mask": f"{folder}/fixed_mask.nii.gz",
        "--moving-mask": f"{folder}/moving_mask.mha",
        "--fixed-landmarks": f"{folder}/fixed.txt",
        "--moving-landmarks": f"{folder}/moving.csv",
        "--weights": f"{folder}/weights.safetensors",
        "--passes": "1",
        "--mirrors": "2",
        "--smoothing": "0",
        "--device": "cpu",
        "--threads": "1",
        "--output": f"{output}",
    }


def command_line(options: dict[str, str | None], *flags: str) -> list[str]:
    named = [word for name, value in options.items() if name.startswith("--") and value is not None for word in (name, value)]
    return ["register", *(options[name] for name in ("fixed", "moving")), *named, *flags]


@pytest.fixture(scope="module")
def registered(scans, tmp_path_factory):
    """The results of a registration without an affine registration, and the output on its terminal."""
    output = tmp_path_factory.mktemp("results") / "deep" / "out"
    master, slave = pty.openpty()
    saved = os.dup(2)
    os.dup2(slave, 2)
    try:
        status = main(command_line(register_arguments(scans, output), "--no-affine"))
    finally:
        os.dup2(saved, 2)
        for descriptor in (saved, slave):
            os.close(descriptor)
    assert status == 0
    terminal = os.read(master, 10_000).decode()
    os.close(master)
    return output, terminal


def inner_points(grid: Grid, count: int = 200) -> np.ndarray:
    """Random voxel centres away from the border, in mm."""
    return grid.points(np.random.default_rng(5).integers(4, np.array(grid.size) - 4, (count, 3)))


def test_the_results_are_complete_and_nothing_else(registered):
    output, _ = registered
    assert {path.name for path in output.iterdir()} == set(RESULTS) - {"inverse.h5"}
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert [path.name for path in output.parent.parent.iterdir()] == ["deep"]
    assert (output / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_transform_and_dense_field_move_points_alike(scans, registered):
    output, _ = registered
    transform, dvf = read_transform(output / "transform.h5"), sitk.ReadImage(output / "dvf.nii.gz")
    grid = Grid.of(read_image(scans / "fixed.nii.gz"))
    assert Grid.of(dvf).size == grid.size
    np.testing.assert_allclose(Grid.of(dvf).points(np.eye(3) * 30), grid.points(np.eye(3) * 30), atol=1e-3)
    points = inner_points(grid)
    moved = transform_points(transform, points)
    assert 0.5 < np.linalg.norm(moved - points, axis=1).mean() < 20
    index = np.rint(grid.indices(points)).astype(int)
    displacement = np.array([dvf[voxel] for voxel in index.tolist()])
    np.testing.assert_allclose(points + displacement, moved, atol=1e-3)
    # Also between the voxels, where the two interpolate between different nodes.
    between = grid.points(index + 0.4)
    field = sitk.DisplacementFieldTransform(sitk.Cast(dvf, sitk.sitkVectorFloat64))
    error = np.linalg.norm(transform_points(field, between) - transform_points(transform, between), axis=1)
    assert error.mean() < 0.3


def test_the_transform_is_one_composite_of_an_affine_and_a_field(registered):
    composite = sitk.ReadTransform(registered[0] / "transform.h5").Downcast()
    parts = [composite.GetNthTransform(number) for number in range(composite.GetNumberOfTransforms())]
    assert [part.GetName() for part in parts] == ["AffineTransform", "DisplacementFieldTransform"]


def test_the_warped_image_is_the_moving_one_under_the_field(scans, registered):
    output, _ = registered
    fixed, moving = sitk.ReadImage(scans / "fixed.nii.gz"), sitk.ReadImage(scans / "moving.nrrd")
    dvf = sitk.ReadImage(output / "dvf.nii.gz", sitk.sitkVectorFloat64)
    warped = sitk.ReadImage(output / "warped.nii.gz")
    assert warped.GetPixelID() == sitk.sitkInt16
    expected = sitk.Resample(moving, fixed, sitk.DisplacementFieldTransform(dvf), sitk.sitkLinear, -1024, sitk.sitkFloat32)
    inner = (slice(3, -3),) * 3
    arrays = [sitk.GetArrayFromImage(image)[inner] for image in (warped, expected)]
    assert np.abs(arrays[0] - arrays[1]).max() <= 1.5
    plain = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, sitk.Transform(), sitk.sitkLinear, -1024))[inner]
    assert np.abs(arrays[0] - plain).mean() > 10


def test_the_report_agrees_with_the_results(scans, registered):
    report = json.loads((registered[0] / "report.json").read_text(encoding="utf-8"))
    mask = sitk.ReadImage(scans / "fixed_mask.nii.gz")
    litres = sitk.GetArrayFromImage(mask).sum() * np.prod(mask.GetSpacing()) / 1e6
    assert report["lungs"]["fixed_litres"] == pytest.approx(litres, abs=1e-4)
    assert report["stages"][0]["sha256"] == hashlib.sha256((scans / "weights.safetensors").read_bytes()).hexdigest()
    assert (report["passes"], report["mirrors"], report["smoothing"]) == (1, 2, 0)
    assert report["seeds"] == {"seed": 2017}
    assert set(report["seconds"]) == {"reading", "lungs", "resampling", "regnet", "writing"}
    assert report["landmarks_mm"]["before"]["mean"] == pytest.approx(np.linalg.norm(LANDMARK_SHIFT), abs=1e-4)
    fixed, moving = read_landmarks(scans / "fixed.txt"), read_landmarks(scans / "moving.csv")
    errors = np.linalg.norm(transform_points(read_transform(registered[0] / "transform.h5"), fixed) - moving, axis=1)
    assert report["landmarks_mm"]["regnet"]["mean"] == pytest.approx(errors.mean(), abs=1e-4)
    # The determinant of dT/dx, by differences between neighbours along the axes of the grid.
    dvf = sitk.ReadImage(registered[0] / "dvf.nii.gz")
    along_axes = sitk.GetArrayFromImage(dvf) @ np.reshape(dvf.GetDirection(), (3, 3))
    columns = [np.gradient(along_axes, dvf.GetSpacing()[axis], axis=2 - axis) for axis in range(3)]
    determinants = np.linalg.det(np.eye(3) + np.stack(columns, axis=-1))[sitk.GetArrayFromImage(mask) != 0]
    assert determinants.min() < 0.9 < 1.1 < determinants.max()
    assert report["jacobian_in_lungs"]["min"] == pytest.approx(determinants.min(), abs=2e-3)
    assert report["jacobian_in_lungs"]["max"] == pytest.approx(determinants.max(), abs=2e-3)
    assert report["jacobian_in_lungs"]["folded_fraction"] == pytest.approx(np.mean(determinants <= 0), abs=1e-3)


@pytest.mark.slow
def test_progress_is_for_terminals_only_and_force_replaces_results(scans, registered, tmp_path, capfd):
    _, terminal = registered
    assert "regnet ..." in terminal
    output = tmp_path / "out"
    output.mkdir()
    (output / "warped.nii.gz").write_text("old", encoding="utf-8")
    options = register_arguments(scans, output)
    assert main(command_line(options, "--no-affine", "--force")) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[0] == "TRE in mm"
    assert [line.split()[0] for line in printed.out.splitlines()[2:]] == ["before", "regnet"]
    assert {path.name for path in output.iterdir()} == set(RESULTS) - {"inverse.h5"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_affine_brings_together_scans_that_do_not_overlap(scans, tmp_path):
    far, shift = sitk.ReadImage(scans / "fixed.nii.gz"), np.array([300.0, -200.0, 100.0])
    far.SetOrigin((np.array(far.GetOrigin()) + shift).tolist())
    write_image(far, tmp_path / "far.nii.gz")
    write_image(Grid.of(far).image(array_of(scans, "fixed_mask.nii.gz")), tmp_path / "far_mask.nii.gz")
    options = register_arguments(scans, tmp_path / "out")
    options |= {"moving": f"{tmp_path}/far.nii.gz", "--moving-mask": f"{tmp_path}/far_mask.nii.gz"}
    assert main(command_line(options | dict.fromkeys(("--fixed-landmarks", "--moving-landmarks")))) == 0
    transform = read_transform(tmp_path / "out" / "transform.h5")
    points = inner_points(Grid.of(far)) - shift
    np.testing.assert_allclose(transform_points(transform.GetNthTransform(0), points), points + shift, atol=0.5)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["lungs"]["dice"]["before"] == 0
    assert report["lungs"]["dice"]["affine"] > 0.9
    assert report["affine"] == "fast"
    assert set(report["seeds"]) == {"seed", "affine"}


@pytest.mark.slow
def test_the_feature_pyramid_starts_from_a_given_transform(scans, tmp_path, capfd):
    """By default the released pyramid registers; a shift that is undone by the initial transform, it has nothing to add to."""
    shift = np.array([30.0, -20.0, 10.0])
    shifted = sitk.ReadImage(scans / "fixed.nii.gz")
    shifted.SetOrigin((np.array(shifted.GetOrigin()) + shift).tolist())
    write_image(shifted, tmp_path / "shifted.nii.gz")
    write_image(Grid.of(shifted).image(array_of(scans, "fixed_mask.nii.gz")), tmp_path / "shifted_mask.nii.gz")
    write_landmarks(read_landmarks(scans / "fixed.txt") + shift, tmp_path / "shifted.txt")
    sitk.WriteTransform(sitk.TranslationTransform(3, shift.tolist()), tmp_path / "initial.tfm")
    options = register_arguments(scans, tmp_path / "out")
    options |= {"moving": f"{tmp_path}/shifted.nii.gz", "--moving-mask": f"{tmp_path}/shifted_mask.nii.gz"}
    options |= {"--moving-landmarks": f"{tmp_path}/shifted.txt", "--initial": f"{tmp_path}/initial.tfm"}
    options |= dict.fromkeys(("--weights", "--passes", "--mirrors", "--smoothing"))
    assert main(command_line(options)) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["before", "initial", "regnet"]
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["stages"][0]["variant"] == "regnet_pyramid"
    assert (report["affine"], report["passes"], report["mirrors"]) == (None, 1, 1)
    assert report["landmarks_mm"]["initial"]["mean"] == pytest.approx(0, abs=1e-3)
    assert report["landmarks_mm"]["regnet"]["mean"] < 0.3
    transform = read_transform(tmp_path / "out" / "transform.h5")
    assert transform.GetNthTransform(0).TransformPoint((0.0, 0.0, 0.0)) == pytest.approx(shift)


def test_points_are_written_to_a_file_or_the_terminal(scans, registered, tmp_path, capfd):
    transform = read_transform(registered[0] / "transform.h5")
    options = ["--transform", f"{registered[0]}/transform.h5"]
    assert main(["transform-points", f"{scans}/fixed.txt", "--output", f"{tmp_path}/moved.txt", *options]) == 0
    moved = transform_points(transform, read_landmarks(scans / "fixed.txt"))
    np.testing.assert_allclose(read_landmarks(tmp_path / "moved.txt"), moved, atol=1e-4)
    # Other columns remain unchanged, and a byte order mark does no harm.
    x, y, z = read_landmarks(scans / "fixed.txt")[0]
    (tmp_path / "points.csv").write_text(f"\ufeffz,name,x,y\n{z},007,{x},{y}\n{z},NA,{x},{y}\n", encoding="utf-8")
    assert main(["transform-points", f"{tmp_path}/points.csv", *options]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "z,name,x,y"
    assert [line.split(",")[1] for line in lines[1:]] == ["007", "NA"]
    assert lines[1].split(",")[2] == f"{moved[0][0]:.4f}"


def test_evaluate_measures_each_transform(scans, registered, tmp_path, capfd):
    transform = f"{registered[0]}/transform.h5"
    arguments = [f"{scans}/fixed.txt", f"{scans}/moving.csv", "--transform", transform]
    assert main(["evaluate", *arguments, "--output", f"{tmp_path}/errors.csv"]) == 0
    before, after = (line.split() for line in capfd.readouterr().out.splitlines()[2:])
    report = json.loads((registered[0] / "report.json").read_text(encoding="utf-8"))
    assert before[2] == f"{np.linalg.norm(LANDMARK_SHIFT):.2f}"
    assert after[2] == f"{report['landmarks_mm']['regnet']['mean']:.2f}"
    assert len((tmp_path / "errors.csv").read_text(encoding="utf-8").splitlines()) == 1 + 2 * 8


def rewritten(source: Path, target: Path, change) -> str:
    """Write the changed bytes of a file to another file; return its path."""
    target.write_bytes(change(source.read_bytes()))
    return str(target)


def image_file(folder: Path, name: str, array: np.ndarray, like: str = "fixed.nii.gz") -> str:
    """Write an array on the grid of one of the scans; return the path."""
    reference = sitk.ReadImage(folder / like)
    write_image(Grid.of(reference).image(array), folder / name)
    return str(folder / name)


def array_of(folder: Path, name: str = "fixed.nii.gz") -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(folder / name))


def missing(folder):
    return {"fixed": f"{folder}/none.nii.gz"}


def text(folder):
    return {"fixed": rewritten(folder / "fixed.txt", folder / "text.nii.gz", bytes)}


def truncated_gzip(folder):
    return {"fixed": rewritten(folder / "fixed.nii.gz", folder / "cut.nii.gz", lambda data: data[: len(data) // 2])}


def truncated_nifti(folder):
    return {"fixed": rewritten(folder / "fixed.nii.gz", folder / "cut.nii", lambda data: gzip.decompress(data)[:-100])}


def truncated_metaimage(folder):
    mask = folder / "moving_mask.mha"
    return {"moving": rewritten(mask, folder / "cut.mha", lambda data: data[:-20])}


def flat(folder):
    sitk.WriteImage(sitk.Image([8, 8], sitk.sitkInt16), folder / "2d.nii.gz")
    return {"fixed": f"{folder}/2d.nii.gz"}


def series_in_time(folder):
    image = sitk.ReadImage(folder / "fixed.nii.gz")
    sitk.WriteImage(sitk.JoinSeries([image, image]), folder / "4d.nii.gz")
    return {"fixed": f"{folder}/4d.nii.gz"}


def colour(folder):
    sitk.WriteImage(sitk.Image([8, 8, 8], sitk.sitkVectorUInt8, 3), folder / "rgb.nii.gz")
    return {"moving": f"{folder}/rgb.nii.gz"}


def not_a_number(folder):
    array = array_of(folder).astype(np.float32)
    array[5, 5, 5] = np.nan
    sitk.WriteImage(Grid.of(sitk.ReadImage(folder / "fixed.nii.gz")).image(array), folder / "nan.nii.gz")
    return {"fixed": f"{folder}/nan.nii.gz"}


def infinite(folder):
    array = array_of(folder).astype(np.float32)
    array[5, 5, 5] = np.inf
    return {"fixed": image_file(folder, "infinite.mha", array)}


def all_zero(folder):
    return {"fixed": image_file(folder, "zero.nii.gz", 0 * array_of(folder))}


def mri(folder):
    return {"fixed": image_file(folder, "mri.nii.gz", array_of(folder) + 1500)}


def zero_spacing(folder):
    def change(data):
        return data[:88] + struct.pack("<f", 0.0) + data[92:]

    return {"fixed": rewritten(folder / "fixed.nii.gz", folder / "zero.nii", lambda data: change(gzip.decompress(data)))}


def no_overlap(folder):
    image = sitk.ReadImage(folder / "moving.nrrd")
    image.SetOrigin((1000.0, 0.0, 0.0))
    write_image(image, folder / "far.nrrd")
    return {"moving": f"{folder}/far.nrrd", **dict.fromkeys(("--moving-mask", "--fixed-landmarks", "--moving-landmarks"))}


def mask_of_other_image(folder):
    return {"--fixed-mask": f"{folder}/moving_mask.mha"}


def empty_mask(folder):
    return {"--fixed-mask": image_file(folder, "empty.nii.gz", 0 * array_of(folder))}


def no_lungs(folder):
    return {"--fixed-mask": None}


def landmarks_outside(folder):
    write_landmarks(read_landmarks(folder / "fixed.txt") + 500.0, folder / "outside.txt")
    return {"--fixed-landmarks": f"{folder}/outside.txt"}


def unequal_landmarks(folder):
    write_landmarks(read_landmarks(folder / "fixed.txt")[1:], folder / "fewer.txt")
    return {"--fixed-landmarks": f"{folder}/fewer.txt"}


def one_landmark_file(folder):
    return {"--moving-landmarks": None}


def table_without_coordinates(folder):
    (folder / "points.csv").write_text("a;b;c\n1;2;3\n", encoding="utf-8")
    return {"--moving-landmarks": f"{folder}/points.csv"}


def table_of_long_rows(folder):
    (folder / "points.csv").write_text("x,y,z\n" + 8 * "1,2,3,\n", encoding="utf-8")
    return {"--moving-landmarks": f"{folder}/points.csv"}


def unwritable(folder):
    return {"--output": f"{folder}/fixed.txt/out"}


def output_is_a_file(folder):
    (folder / "file").write_text("mine", encoding="utf-8")
    return {"--output": f"{folder}/file"}


def output_of_the_inputs(folder):
    return {"--output": f"{folder}"}


def output_is_current_folder(folder):
    return {"--output": os.getcwd()}


def output_exists(folder):
    (folder / "there").mkdir()
    (folder / "there" / "notes.txt").write_text("mine", encoding="utf-8")
    return {"--output": f"{folder}/there"}


def output_with_other_files(folder):
    return output_exists(folder) | {"--force": ""}


def other_architecture(folder):
    save_file({"layer.weight": torch.zeros(3)}, folder / "other.safetensors")
    return {"--weights": f"{folder}/other.safetensors"}


def other_layers(folder):
    network = RegNet("regnet_early")
    network.variant = "regnet"
    save_network(network, folder / "layers.safetensors", spacing=SPACING, window=(-1000, 400))
    return {"--weights": f"{folder}/layers.safetensors"}


def pickled_weights(folder):
    (folder / "pickle.safetensors").write_bytes(pickle.dumps({"layer.weight": [0.0]}))
    return {"--weights": f"{folder}/pickle.safetensors"}


def unknown_weights(folder):
    return {"--weights": "regnet_3mm"}


def pyramid_at_every_voxel(folder):
    return {"--weights": "regnet_pyramid", "--stride": "1"}


def missing_initial(folder):
    return {"--initial": f"{folder}/nowhere.h5"}


def no_dicom(folder):
    (folder / "empty").mkdir()
    return {"fixed": f"{folder}/empty"}


def two_series(folder):
    for number in (1, 2):
        write_series(folder / "two", np.arange(4) * 2.5, f"1.2.826.0.1.3680043.2.1125.{number}")
    return {"fixed": f"{folder}/two"}


def missing_slice(folder):
    write_series(folder / "gap", np.array([0, 2.5, 5, 10, 12.5]), "1.2.826.0.1.3680043.2.1125.3")
    return {"fixed": f"{folder}/gap"}


def seed_in_words(folder):
    return {"--seed": "random"}


def smoothing_below_zero(folder):
    return {"--smoothing": "-1"}


REFUSED = {
    missing: "none.nii.gz: no such file",
    text: "text.nii.gz: cannot be read as an image (Unable to determine ImageIO reader",
    truncated_gzip: "cut.nii.gz: cannot be read as an image (Compressed file ended before the end",
    truncated_nifti: "cut.nii: cannot be read as an image (found 41724 bytes of header and voxels, expected 41824)",
    truncated_metaimage: "cut.mha: cannot be read as an image",
    flat: "2d.nii.gz: found an image in 2D with 1 components, expected a scalar 3D image",
    series_in_time: "4d.nii.gz: found an image in 4D",
    colour: "rgb.nii.gz: found an image in 3D with 3 components",
    infinite: "infinite.mha: found voxels that are not finite numbers, expected HU",
    not_a_number: "nan.nii.gz: cannot be read as an image (found voxels that are not finite numbers)",
    all_zero: "zero.nii.gz: found intensities from 0 to 0, expected a chest CT in HU",
    mri: "mri.nii.gz: found intensities from ",
    zero_spacing: "zero.nii: cannot be read as an image (found a spacing of 1.6 x 1.7 x 0 mm, expected more than 0)",
    no_overlap: "found 0% of the lungs of",
    mask_of_other_image: "moving_mask.mha: found a mask with the size (48, 46, 30), expected (36, 32, 18) as in its image",
    empty_mask: "empty.nii.gz: the mask is empty",
    no_lungs: "fixed.nii.gz: found ",
    landmarks_outside: "outside.txt: found 8 of 8 landmarks outside ",
    unequal_landmarks: "moving.csv: found 8 landmarks, expected 7 as in",
    one_landmark_file: "--fixed-landmarks, --moving-landmarks: found one of them, expected both or neither",
    table_without_coordinates: "points.csv: lacks the columns x, y, z; found a;b;c",
    table_of_long_rows: "points.csv: found rows with more cells than the header, expected 3",
    unwritable: "fixed.txt/out: cannot be made (Not a directory)",
    output_is_a_file: "file: found a file, expected a folder or a new name",
    output_of_the_inputs: "fixed.nii.gz: lies in ",
    output_is_current_folder: "found the current folder or one above it",
    output_exists: "there: already exists, expected a new name, or --force to replace it",
    output_with_other_files: "there: holds notes.txt, expected nothing but earlier results",
    other_architecture: "other.safetensors: found the variant None, expected one of regnet",
    other_layers: "layers.safetensors: the weights do not fit the variant regnet",
    pickled_weights: "pickle.safetensors: cannot be read as weights of RegNet in safetensors",
    pyramid_at_every_voxel: "stride: found 1, expected 2 for regnet_pyramid",
    missing_initial: "nowhere.h5",
    unknown_weights: "regnet_3mm: found no such weights, expected a safetensors file or a released name",
    no_dicom: "empty: found no DICOM files, expected a folder with one DICOM series",
    two_series: "two: found 2 series, expected a folder with one DICOM series, or one of these files instead: ",
    missing_slice: "gap: found 5.00 mm between the slices 3_02.dcm and 3_03.dcm, where 2.50 mm is usual",
    seed_in_words: "argument --seed: found 'random', expected an integer of at least 0",
    smoothing_below_zero: "argument --smoothing: found '-1', expected a length of at least 0 mm",
}


def digests(folder: Path) -> dict[str, str]:
    """The content of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_unusable_input_is_one_line_and_leaves_nothing(make, scans, tmp_path, capfd):
    for path in scans.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    options = register_arguments(tmp_path, tmp_path / "out") | make(tmp_path)
    flags = ["--force"] if "--force" in options else []
    options.pop("--force", None)
    capfd.readouterr()
    before = digests(tmp_path)
    try:
        start = [] if "--initial" in options else ["--no-affine"]
        status = main(command_line(options, *start, *flags))
    except SystemExit as error:
        status = error.code
    printed = capfd.readouterr()
    assert status == 2
    assert printed.out == ""
    assert REFUSED[make] in printed.err
    assert printed.err.startswith("regnet")
    assert printed.err.count("\n") == 1
    assert digests(tmp_path) == before


def run(*arguments: str, largest_file: int | None = None) -> subprocess.CompletedProcess:
    """Run Python in a new process. `largest_file` (bytes) limits the size of files, which has the effect of a full disk."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        preexec_fn=limit if largest_file else None,
    )


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(scans, tmp_path):
    options = register_arguments(scans, tmp_path / "out")
    process = run("-m", "regnet", *command_line(options, "--no-affine"), largest_file=60_000)
    assert process.returncode == 2
    assert f"regnet: error: {tmp_path}/out/dvf.nii.gz: cannot be written completely, is the disk full? (" in process.stderr
    assert process.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_transform_that_does_not_fit_on_the_disk_does_not_crash_the_process(registered, tmp_path):
    code = (
        "import sys; from regnet.errors import OutputError\n"
        "from regnet.images.transforms import read_transform, write_transform\n"
        "try: write_transform(read_transform(sys.argv[1]), sys.argv[2])\n"
        "except OutputError as error: sys.exit(str(error))"
    )
    process = run("-c", code, f"{registered[0]}/transform.h5", f"{tmp_path}/copy.h5", largest_file=20_000)
    assert process.returncode == 1
    assert "copy.h5: cannot be written ([Errno 27] File too large" in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_help_has_examples():
    process = run("-m", "regnet", "register", "--help")
    assert process.returncode == 0
    assert "examples:\n  regnet register baseline.nii.gz followup.nii.gz --output out" in process.stdout


def test_an_inverse_takes_points_back(scans, registered, tmp_path, capfd):
    output, _ = registered
    options = ("--fixed", f"{scans}/fixed.nii.gz", "--mask", f"{scans}/fixed_mask.nii.gz", "--output", f"{tmp_path}/inverse.h5")
    assert main(["invert", f"{output}/transform.h5", *options]) == 0
    assert re.fullmatch(r"round trip in mm: mean 0\.0\d, largest 0\.\d\d\n", capfd.readouterr().out)
    points = inner_points(Grid.of(read_image(scans / "fixed.nii.gz")), 50)
    there = transform_points(read_transform(output / "transform.h5"), points)
    # The field of a network with random weights is rough.
    np.testing.assert_allclose(transform_points(read_transform(tmp_path / "inverse.h5"), there), points, atol=0.5)
    assert main(["invert", f"{output}/transform.h5", *options[:-1], f"{tmp_path}/inverse.txt"]) == 2
    assert "expected a name that ends in .h5" in capfd.readouterr().err


def test_images_and_segmentations_are_warped_as_the_registration_does(scans, registered, tmp_path, capfd):
    output, _ = registered
    options = ("--transform", f"{output}/transform.h5", "--like", f"{scans}/fixed.nii.gz", "--output", f"{tmp_path}/warped")
    assert main(["apply", f"{scans}/moving.nrrd", *options]) == 0
    warped, expected = read_image(tmp_path / "warped" / "moving.nii.gz"), read_image(output / "warped.nii.gz")
    assert Grid.of(warped) == Grid.of(expected)
    inside = sitk.GetArrayFromImage(expected) > -1024
    np.testing.assert_array_equal(sitk.GetArrayFromImage(warped)[inside], sitk.GetArrayFromImage(expected)[inside])
    assert main(["apply", f"{scans}/moving_mask.mha", "--labels", *options, "--force"]) == 2
    assert "holds moving.nii.gz, expected nothing but earlier results" in capfd.readouterr().err
    options = (*options[:-1], f"{tmp_path}/labels")
    assert main(["apply", f"{scans}/moving_mask.mha", "--labels", *options]) == 0
    assert set(np.unique(sitk.GetArrayFromImage(read_image(tmp_path / "labels" / "moving_mask.nii.gz")))) == {0, 1}


def test_images_that_the_transform_does_not_reach_are_refused(scans, registered, tmp_path, capfd):
    output, _ = registered
    image = read_image(scans / "moving.nrrd")
    image.SetOrigin((9000, 0, 0))
    write_image(image, tmp_path / "far.nii.gz")
    options = ("--transform", f"{output}/transform.h5", "--like", f"{scans}/fixed.nii.gz", "--output", f"{tmp_path}/warped")
    assert main(["apply", f"{tmp_path}/far.nii.gz", *options]) == 2
    assert "far.nii.gz: found nothing of it on the grid of the result" in capfd.readouterr().err
    assert not (tmp_path / "warped").exists()
    assert main(["apply", f"{scans}/moving.nrrd", f"{scans}/moving.nrrd", *options]) == 2
    assert "found two images whose result would be moving.nii.gz" in capfd.readouterr().err
