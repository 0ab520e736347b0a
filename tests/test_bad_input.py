"""Every mistake in users' files and arguments that we know of: the command prints one line and leaves no files."""

import gzip
import hashlib
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series

from regnet.cli import main
from regnet.images.landmarks import write_landmarks
from regnet.images.volumes import Grid

ROOT = Path(__file__).parents[1]

GRID = Grid((16, 16, 16), (8.0, 8.0, 8.0), (-60.0, -50.0, -40.0))
"""Large enough for the network in mm, and small on disk."""

POINTS = GRID.points(np.array([[4, 5, 6], [9, 8, 7], [10, 3, 12]]))

IMAGES = """\
image\tsubject\tsplit\tpath\tmask
a1\ta\ttrain\ta1.nii.gz\t
b1\tb\tvalidation\tb1.mha\t
c1\tc\ttest\tc1.nii.gz\tc1_lungs.nii.gz
c2\tc\ttest\tc2.nrrd\t
"""

PAIRS = """\
pair\tfixed\tmoving\tfixed_landmarks\tmoving_landmarks
c\tc1\tc2\tc1.txt\tc2.csv
"""

CONFIG = "experiment: mine\ncohort: {folder}\ndata_root: {folder}\nphantom: null\n"


def ct(seed, grid=GRID):
    """A block of tissue with lungs, in HU, different for each seed."""
    array = np.random.default_rng(seed).integers(-60, 60, grid.shape).astype(np.int16)
    array[3:-3, 3:-3, 3:-3] -= 800
    array[:, 0, 0] = -1000
    return array


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder without problems: a cohort, landmarks, a transform, and a list of pairs."""
    folder = tmp_path_factory.mktemp("good")
    for seed, name in enumerate(("a1.nii.gz", "b1.mha", "c1.nii.gz", "c2.nrrd")):
        sitk.WriteImage(GRID.image(ct(seed)), folder / name)
    mask = np.zeros(GRID.shape, np.uint8)
    mask[3:-3, 3:-3, 3:-3] = 1
    sitk.WriteImage(GRID.image(mask), folder / "c1_lungs.nii.gz")
    write_landmarks(POINTS, folder / "c1.txt")
    write_landmarks(POINTS + 2.5, folder / "c2.csv", "table")
    sitk.WriteTransform(sitk.TranslationTransform(3, (2.5, 2.5, 2.5)), folder / "shift.h5")
    for name, text in (("images.tsv", IMAGES), ("pairs.tsv", PAIRS), ("pairs.csv", "fixed,moving\na1.nii.gz,b1.mha\n")):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def rewrite(name, change):
    """Damage: change the bytes of a file; of a compressed file, the uncompressed bytes."""

    def damage(folder):
        path = folder / name
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
        else:
            path.write_bytes(change(path.read_bytes()))

    return damage


def replace(name, old, new):
    """Damage: replace text in a file."""
    assert old != new

    def change(data):
        assert old.encode() in data
        return data.replace(old.encode(), new.encode())

    return rewrite(name, change)


def image(name, array, grid=GRID):
    """Damage: replace an image."""
    return lambda folder: sitk.WriteImage(grid.image(array), folder / name)


def landmarks(name, points, kind="point"):
    """Damage: replace landmarks."""
    return lambda folder: write_landmarks(points, folder / name, kind)


def text(name, content):
    """Damage: write a text file."""
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def flat(folder):
    sitk.WriteImage(sitk.Image([16, 16], sitk.sitkInt16), folder / "a1.nii.gz")


def series_in_time(folder):
    volume = sitk.ReadImage(folder / "a1.nii.gz")
    sitk.WriteImage(sitk.JoinSeries([volume, volume]), folder / "a1.nii.gz")


def colours(folder):
    sitk.WriteImage(sitk.Image([16, 16, 16], sitk.sitkVectorUInt8, 3), folder / "a1.nii.gz")


def cut_off(folder):
    (folder / "a1.nii.gz").write_bytes((folder / "a1.nii.gz").read_bytes()[:900])


def copied(folder):
    shutil.copy(folder / "a1.nii.gz", folder / "again.nii.gz")
    replace("images.tsv", "c2.nrrd", "again.nii.gz")(folder)


def linked(folder):
    (folder / "link.nii.gz").symlink_to(folder / "c1.nii.gz")
    replace("images.tsv", "c2.nrrd", "link.nii.gz")(folder)


def dicom(positions, series=1):
    """Damage: replace an image by DICOM files."""

    def damage(folder):
        for number in range(series):
            write_series(folder / "dicom", positions, f"1.2.826.0.1.3680043.2.1125.{number + 1}", f"series {number + 1}")
        replace("images.tsv", "a1.nii.gz", "dicom")(folder)

    return damage


def flat_transform(folder):
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 1.0)), folder / "shift.h5")


def downloaded(*names, size=15360):
    """Damage: make a folder like that of DIR-Lab COPDgene, with these files."""

    def damage(folder):
        (folder / "copd").mkdir()
        for name in names:
            (folder / "copd" / name).write_bytes(bytes(size))

    return damage


def everything(*damages):
    def damage(folder):
        for part in damages:
            part(folder)

    return damage


@dataclass(frozen=True)
class Bad:
    """A damage, the command that meets it, and the lines that it prints, without the leading ``regnet: error: ``."""

    damage: Callable[[Path], object]
    lines: tuple[str, ...]
    command: str = "check --configfile {folder}/mine.yaml"


def bad(damage, *lines, command=Bad.command):
    return Bad(damage, lines, command)


def untouched(folder):
    """No damage: only the arguments are wrong."""


MOVE = "transform-points {folder}/%s --transform {folder}/shift.h5 --output {folder}/moved.txt"
MEASURE = "evaluate {folder}/c1.txt {folder}/%s --transform {folder}/%s --output {folder}/errors.csv"
CONVERT = "convert-points {folder}/c1.txt --output {folder}/%s"
DATASET = "dataset dirlab_copd --source {folder}/copd --output {folder}/cohort"
LISTED = "dataset folder --source {folder} --output {folder}/cohort"

SMALL = Grid((16, 16, 16), (8.0, 8.0, 4.0), GRID.origin)

MATRIX = {
    "no image": bad(
        lambda folder: (folder / "a1.nii.gz").unlink(),
        "{folder}/images.tsv, row 2: path: found 'a1.nii.gz', expected a file, and there is none at {folder}/a1.nii.gz",
    ),
    "a text for an image": bad(
        text("a1.nii.gz", "not an image"),
        '{folder}/a1.nii.gz: cannot be read as an image (Unable to determine ImageIO reader for "{folder}/a1.nii.gz")',
    ),
    "an image that is cut off": bad(
        cut_off,
        "{folder}/a1.nii.gz: cannot be read as an image (Compressed file ended before the end-of-stream marker was reached)",
    ),
    "voxels that are missing": bad(
        rewrite("a1.nii.gz", lambda data: data[:-100]),
        "{folder}/a1.nii.gz: cannot be read as an image (found 8444 bytes of header and voxels, expected 8544)",
    ),
    "2D": bad(flat, "{folder}/a1.nii.gz: found an image in 2D with 1 components, expected a scalar 3D image"),
    "4D": bad(series_in_time, "{folder}/a1.nii.gz: found an image in 4D with 1 components, expected a scalar 3D image"),
    "colours": bad(colours, "{folder}/a1.nii.gz: found an image in 3D with 3 components, expected a scalar 3D image"),
    "MR": bad(
        image("a1.nii.gz", ct(9) + 1200),
        "{folder}/a1.nii.gz: found intensities from 200 to 1259, expected a chest CT in HU (air -1000, lung about -800)",
    ),
    "8 bit": bad(
        image("b1.mha", (ct(9) // 8 + 126).astype(np.uint8)),
        "{folder}/b1.mha: found intensities from 1 to 133, expected a chest CT in HU (air -1000, lung about -800)",
    ),
    "nothing but air": bad(
        image("a1.nii.gz", np.full(GRID.shape, -1024, np.int16)),
        "{folder}/a1.nii.gz: found no voxel above -1024 HU, expected a CT image in HU",
        command=Bad.command + " --voxels",
    ),
    "not a number": bad(
        image("a1.nii.gz", np.where(ct(9) > 55, np.nan, ct(9)).astype(np.float32)),
        "{folder}/a1.nii.gz: cannot be read as an image (found voxels that are not finite numbers)",
        command=Bad.command + " --voxels",
    ),
    "zero spacing": bad(
        rewrite("a1.nii.gz", lambda data: data[:84] + struct.pack("<f", 0.0) + data[88:]),
        "{folder}/a1.nii.gz: cannot be read as an image (found a spacing of 8 x 0 x 8 mm, expected more than 0)",
    ),
    "negative spacing": bad(
        replace("b1.mha", "ElementSpacing = 8 8 8", "ElementSpacing = 8 -8 8"),
        "{folder}/b1.mha: found a spacing of 8 x -8 x 8 mm, expected more than 0",
    ),
    "axes that are skewed": bad(
        replace("b1.mha", "TransformMatrix = 1 0 0 0 1 0", "TransformMatrix = 1 0 0 1 1 0"),
        "{folder}/b1.mha: found the direction 1, 1, 0, 0, 1, 0, 0, 0, 1, expected axes of length 1 at right angles",
    ),
    "a small image": bad(
        image("a1.nii.gz", ct(9, SMALL), SMALL),
        "{folder}/a1.nii.gz: found an image of 128 x 128 x 64 mm, expected at least 108 mm along each axis, 54 voxels",
    ),
    "a mask on another grid": bad(
        image("c1_lungs.nii.gz", np.ones(SMALL.shape, np.uint8), SMALL),
        "{folder}/c1_lungs.nii.gz: found a mask with the spacing (8, 8, 4), expected (8, 8, 8) as in its image",
    ),
    "a mask of another place": bad(
        image("c1_lungs.nii.gz", np.ones(GRID.shape, np.uint8), Grid(GRID.size, GRID.spacing, (0.0, 0.0, 0.0))),
        "{folder}/c1_lungs.nii.gz: found a mask with the origin (0, 0, 0), expected (-60, -50, -40) as in its image",
    ),
    "an empty mask": bad(
        image("c1_lungs.nii.gz", np.zeros(GRID.shape, np.uint8)),
        "{folder}/c1_lungs.nii.gz: the mask is empty, expected voxels that are not 0",
    ),
    "a text for a mask": bad(
        text("c1_lungs.nii.gz", "not an image"),
        "{folder}/c1_lungs.nii.gz: cannot be read as an image (Unable to determine ImageIO reader for "
        '"{folder}/c1_lungs.nii.gz")',
    ),
    "an image twice": bad(
        replace("images.tsv", "c2.nrrd", "c1.nii.gz"),
        "{folder}/images.tsv, row 5: path: found 'c1.nii.gz', expected a file that is not the one in row 4",
    ),
    "an image twice, as a copy": bad(
        copied, "{folder}/again.nii.gz: found the same image as in {folder}/a1.nii.gz, expected each image once"
    ),
    "an image twice, by a link": bad(
        linked, "{folder}/link.nii.gz: found the same image as in {folder}/c1.nii.gz, expected each image once"
    ),
    "a test patient in training": bad(
        replace("images.tsv", "a1\ta\t", "a1\tc\t"),
        "{folder}/images.tsv, row 4: split: found 'test' for subject 'c', expected 'train' as in row 2: a subject "
        "belongs to one split",
        "{folder}/images.tsv, row 5: split: found 'test' for subject 'c', expected 'train' as in row 2: a subject "
        "belongs to one split",
    ),
    "fewer landmarks": bad(
        landmarks("c1.txt", POINTS[1:]), "{folder}/c2.csv: found 3 landmarks, expected 2 as in {folder}/c1.txt"
    ),
    "landmarks outside": bad(
        landmarks("c1.txt", POINTS * [-3, -3, 1]),
        "{folder}/c1.txt: found 2 of 3 landmarks outside {folder}/c1.nii.gz (rows 1, 3), row 1 by 20.0 mm, at (84, 30, "
        "8); expected points in that image, in mm (LPS), not voxels",
    ),
    "landmarks of the same image": bad(
        landmarks("c2.csv", POINTS, "table"),
        "{folder}/c2.csv: found the points of {folder}/c1.txt, expected those of the image c2",
    ),
    "no landmarks": bad(text("c1.txt", "point\n0\n"), "{folder}/c1.txt: found no points, expected at least one"),
    "landmarks in words": bad(
        text("c2.csv", "x,y,z\n1,2,three\n"),
        "{folder}/c2.csv: expected a number in each row of x, y and z (could not convert string to float: 'three')",
    ),
    "voxel numbers outside": bad(
        text("c1.txt", "index\n3\n1 1 1\n2 2 2\n3 3 16\n"),
        "{folder}/c1.txt: found landmark 3 at (3, 3, 16), expected voxel numbers in an image of (16, 16, 16) voxels "
        "(elastix point file, voxel numbers from 0)",
    ),
    "no axes in a file of 3D Slicer": bad(
        everything(text("c1.fcsv", "1,2,3,4\n"), replace("pairs.tsv", "c1.txt", "c1.fcsv")),
        "{folder}/c1.fcsv: found no line '# CoordinateSystem = ', expected one with LPS or RAS",
    ),
    "two DICOM series": bad(
        dicom(range(4), series=2),
        "{folder}/dicom: found 2 series, expected a folder with one DICOM series, or one of these files instead: "
        "1_00.dcm (4 slices, 'series 1'); 2_00.dcm (4 slices, 'series 2')",
    ),
    "a missing DICOM slice": bad(
        dicom((0, 2.5, 7.5, 10)),
        "{folder}/dicom: found 5.00 mm between the slices 1_01.dcm and 1_02.dcm, where 2.50 mm is usual, expected a "
        "DICOM series without missing, doubled or uneven slices",
    ),
    "a table with commas": bad(
        rewrite("images.tsv", lambda data: data.replace(b"\t", b",")),
        "{folder}/images.tsv, row 1: found 'image,subject,split,path,mask', expected a tab-separated table (UTF-8) with "
        "the columns image, subject, split, path, mask",
    ),
    "a table in another encoding": bad(
        rewrite("images.tsv", lambda data: data.replace(b"\tc1.n", b"\t\xe91.n")),
        "{folder}/images.tsv, row 4: found the byte 0xe9, expected a tab-separated table (UTF-8) with the columns image, "
        "subject, split, path, mask",
    ),
    "no tables": bad(
        lambda folder: (folder / "pairs.tsv").unlink(),
        "{folder}/pairs.tsv: cannot be read (No such file or directory), expected a tab-separated table (UTF-8) with the "
        "columns pair, fixed, moving, fixed_landmarks, moving_landmarks",
    ),
    "no epochs": bad(
        replace("mine.yaml", "phantom: null", "phantom: null\ntraining: {epochs: 0}"),
        "config: training.epochs: found the number 0, expected an integer of at least 1",
    ),
    "a misspelt key": bad(
        text("more.yaml", "traning: {}\n"),
        "config: unknown key 'traning', did you mean 'training'?",
        command=Bad.command + " {folder}/more.yaml",
    ),
    "a config that is no YAML": bad(
        text("more.yaml", "a: [\n"),
        "{folder}/more.yaml: cannot be read as a config (Config file is not valid JSON or YAML. In case of YAML, make "
        "sure to not mix whitespace and tab indentation.)",
        command=Bad.command + " {folder}/more.yaml",
    ),
    "a config that is a list": bad(
        text("more.yaml", "- a\n"),
        "{folder}/more.yaml: cannot be read as a config (Config file must be given as JSON or YAML with keys at top level.)",
        command=Bad.command + " {folder}/more.yaml",
    ),
    "no config": bad(
        untouched,
        "{folder}/more.yaml: cannot be read as a config ([Errno 2] No such file or directory: '{folder}/more.yaml')",
        command=Bad.command + " {folder}/more.yaml",
    ),
    "an entry without a value": bad(
        untouched,
        "--config: Invalid config definition: Config entries have to be defined as name=value pairs. "
        "(Unparsable value: 'data_root')",
        command=Bad.command + " --config data_root",
    ),
    "another data root": bad(
        untouched,
        "data_root: found '{folder}/nowhere', which is no folder, expected the folder of the images",
        command=Bad.command + " --config data_root={folder}/nowhere",
    ),
    "points without columns": bad(
        text("c2.csv", "a,b\n1,2\n"),
        "{folder}/c2.csv: lacks the columns x, y, z; found a, b, expected x, y and z in mm (LPS)",
        command=MOVE % "c2.csv",
    ),
    "points in voxels": bad(
        text("c1.txt", "index\n1\n1 1 1\n"),
        "{folder}/c1.txt: found voxel numbers (elastix point file, voxel numbers from 0), expected points in mm, as no "
        "image is given",
        command=MOVE % "c1.txt",
    ),
    "points that do not exist": bad(
        untouched,
        "{folder}/c3.txt: cannot be read as a landmark file ([Errno 2] No such file or directory: '{folder}/c3.txt')",
        command=MOVE % "c3.txt",
    ),
    "a transform in 2D": bad(
        flat_transform, "{folder}/shift.h5: found a transform in 2D, expected 3D", command=MOVE % "c1.txt"
    ),
    "an image for a transform": bad(
        untouched,
        "{folder}/b1.mha: cannot be read as an ITK transform, expected a file such as transform.h5",
        command=MEASURE % ("c2.csv", "b1.mha"),
    ),
    "no transform": bad(
        untouched, "{folder}/none.h5: no such file, expected an ITK transform", command=MEASURE % ("c2.csv", "none.h5")
    ),
    "landmarks of two lengths": bad(
        landmarks("c2.csv", POINTS[1:], "table"),
        "{folder}/c2.csv: found 2 landmarks, expected 3 as in {folder}/c1.txt",
        command=MEASURE % ("c2.csv", "shift.h5"),
    ),
    "no landmarks to measure": bad(
        everything(text("c1.txt", "point\n0\n"), text("c2.csv", "x,y,z\n")),
        "{folder}/c1.txt: found no points, expected at least one",
        command=MEASURE % ("c2.csv", "shift.h5"),
    ),
    "voxels without an image": bad(
        untouched,
        "--image: found none, expected that of the points: the kind index holds voxel numbers",
        command=CONVERT % "out.txt --kind index",
    ),
    "a name of another kind": bad(
        untouched,
        "--output: found '{folder}/out.txt', expected a name that ends in .mrk.json for the kind markups",
        command=CONVERT % "out.txt --kind markups",
    ),
    "RAS in an elastix file": bad(
        untouched,
        "--system: found RAS, expected LPS for the kind point, which has no other",
        command=CONVERT % "out.txt --kind point --system RAS",
    ),
    "a folder that is a file": bad(
        untouched,
        "{folder}/c2.csv/out.txt: cannot be written (File exists: {folder}/c2.csv)",
        command=CONVERT % "c2.csv/out.txt --kind point",
    ),
    "no downloaded folder": bad(
        untouched,
        "{folder}/copd: found no folder, expected that of DIR-Lab COPDgene (On request from https://med.emory.edu "
        "(Deformable Image Registration Laboratory); no redistribution.)",
        command=DATASET,
    ),
    "an empty downloaded folder": bad(
        downloaded(),
        "{folder}/copd: found no images of DIR-Lab COPDgene, expected files like copdCASE_iBHCT.img",
        command=DATASET,
    ),
    "half a case": bad(
        downloaded("copd1_iBHCT.img"),
        "{folder}/copd: found no moving image of case 01, expected a file like copdCASE_eBHCT.img",
        command=DATASET,
    ),
    "an image of another size": bad(
        downloaded(*(f"copd{case}_{breath}BHCT.img" for case in (1, 2, 3) for breath in "ie")),
        "{folder}/copd/copd1_iBHCT.img: found 15360 bytes, expected 63438848 for 512 x 512 x 121 voxels of int16",
        command=DATASET,
    ),
    "a case that does not exist": bad(
        downloaded(*(f"copd{case}_{breath}BHCT.img" for case in (11, 12, 13) for breath in "ie")),
        "{folder}/copd/copd11_iBHCT.img: found case 11, expected one of 01, 02, 03, 04, 05, 06, 07, 08, 09, 10",
        command=DATASET,
    ),
    "a listed file that does not exist": bad(
        replace("pairs.csv", "b1.mha", "b2.mha"),
        "{folder}/pairs.csv, row 2: moving: found 'b2.mha', expected a file",
        command=LISTED,
    ),
    "a list with other columns": bad(
        replace("pairs.csv", "fixed,moving", "fixed,mooving"),
        "{folder}/pairs.csv: found the columns fixed, mooving, expected fixed, moving and possibly fixed_landmarks, "
        "moving_landmarks, fixed_mask, moving_mask",
        command=LISTED,
    ),
    "one image to train on": bad(
        untouched,
        "--training: found 1 image, expected at least 2, to train and to validate with",
        command=LISTED + " --training {folder}/a1.nii.gz",
    ),
    "a cohort that already exists": bad(
        lambda folder: (folder / "cohort/mine").mkdir(parents=True),
        "{folder}/cohort: already exists, expected a new name, or --force to replace it",
        command=LISTED,
    ),
    "no cohort to check": bad(
        untouched, "{folder}/copd: found no folder, expected that of a cohort", command="dataset check {folder}/copd"
    ),
}


def digests(folder):
    """The digest of every file below a folder, and "" for its other entries."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


@pytest.fixture
def folder(good, tmp_path, monkeypatch):
    """A copy of the good folder, to be damaged; commands run in the folder of the workflow."""
    copy = tmp_path / "data"
    shutil.copytree(good, copy)
    (copy / "mine.yaml").write_text(CONFIG.format(folder=copy), encoding="utf-8")
    monkeypatch.chdir(ROOT)
    return copy


def refuse(command, folder, capfd):
    """Run a command that must fail and leave the folder unchanged; return its lines on stderr."""
    before = digests(folder)
    capfd.readouterr()
    status = main([word.format(folder=folder) for word in command.split()])
    printed = capfd.readouterr()
    assert (status, printed.out) == (2, "")
    assert digests(folder) == before
    return printed.err.splitlines()


@pytest.mark.parametrize("case", MATRIX)
def test_bad_input_is_one_line_and_leaves_nothing(case, folder, capfd):
    MATRIX[case].damage(folder)
    lines = refuse(MATRIX[case].command, folder, capfd)
    assert lines == [f"regnet: error: {line.format(folder=folder)}" for line in MATRIX[case].lines]


def test_good_input_passes(folder, capfd):
    assert main(["check", "--configfile", f"{folder}/mine.yaml", "--voxels"]) == 0
    expected = "nothing wrong: 4 images (1 train, 1 validation, 2 test); test pairs: 1, with landmarks: 1\n"
    assert capfd.readouterr() == (expected, "")
    # The files of a phantom do not exist yet.
    assert main(["check"]) == 0
    assert capfd.readouterr().out.startswith("nothing wrong: ")


COMBINED = ("MR", "negative spacing", "an empty mask", "landmarks outside", "a misspelt split")


@pytest.fixture
def damaged(folder):
    """The folder with several kinds of damage, in images, tables and landmarks, and the expected lines in order."""
    cases = {**MATRIX, "a misspelt split": bad(replace("images.tsv", "validation", "val"), "")}
    for name in COMBINED:
        cases[name].damage(folder)
    split = "{folder}/images.tsv, row 3: split: found the text 'val', expected one of train, validation, test"
    lines = [split, *(line for name in COMBINED[:-1] for line in MATRIX[name].lines)]
    return folder, [line.format(folder=folder) for line in lines]


def test_all_problems_are_listed_at_once(damaged, capfd):
    folder, expected = damaged
    assert refuse(Bad.command, folder, capfd) == [f"regnet: error: {line}" for line in expected]


@pytest.fixture
def snakemake(folder, tmp_path):
    """A function that runs Snakemake on the folder's cohort, in a copy of the workflow."""
    for name in ("workflow", "config", "profiles"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, tmp_path)

    def run(*arguments):
        command = [sys.executable, "-m", "snakemake", "--resources", "gpu=0", "--configfile", f"{folder}/mine.yaml", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")

    return run


def test_snakemake_refuses_before_the_first_job(damaged, snakemake, tmp_path):
    folder, expected = damaged
    before = digests(folder)
    process = snakemake("--cores", "1")
    output = process.stdout + process.stderr
    assert process.returncode != 0
    assert [line for line in output.splitlines() if " expected " in line] == expected
    assert "Traceback" not in output
    assert digests(folder) == before
    assert not (tmp_path / "results").exists()


def test_only_the_main_process_checks_files(folder, snakemake):
    """Otherwise each of a thousand jobs would check a thousand images."""
    MATRIX["MR"].damage(folder)
    assert snakemake("--dry-run", "--cores", "1").returncode != 0
    assert snakemake("--dry-run", "--cores", "1", "--mode", "subprocess").returncode == 0


def test_the_workflow_reads_a_dicom_folder(folder, snakemake, tmp_path):
    uid = "1.2.826.0.1.3680043.2.1125"
    write_series(folder / "dicom", np.arange(16) * 8.0, f"{uid}.1", slices=ct(7), spacing=8.0)
    write_series(folder / "dicom", (0.0, 8.0), f"{uid}.2", "Scout")
    grid = Grid(GRID.size, GRID.spacing, (-10.0, 5.0, 0.0))
    mask = np.zeros(grid.shape, np.uint8)
    mask[3:-3, 3:-3, 3:-3] = 1
    sitk.WriteImage(grid.image(mask), folder / "dicom_lungs.nii.gz")
    replace("images.tsv", "a1.nii.gz\t", "dicom/1_00.dcm\tdicom_lungs.nii.gz")(folder)
    process = snakemake("--cores", "1", "results/mine/images/2mm/a1.nii.gz")
    assert process.returncode == 0, process.stderr[-3000:]
    image = sitk.ReadImage(tmp_path / "results" / "mine" / "images" / "2mm" / "a1.nii.gz")
    assert (image.GetSize(), image.GetSpacing()) == ((64, 64, 64), (2.0, 2.0, 2.0))


@pytest.mark.parametrize("case", ["negative spacing", "a transform in 2D"])
def test_a_new_process_prints_the_same_lines(case, folder):
    """There pytest does not capture what libraries write to the terminal."""
    MATRIX[case].damage(folder)
    command = [sys.executable, "-m", "regnet", *(word.format(folder=folder) for word in MATRIX[case].command.split())]
    process = subprocess.run(command, env={"PYTHONPATH": "workflow/scripts"}, capture_output=True, encoding="utf-8")
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.splitlines() == [f"regnet: error: {line.format(folder=folder)}" for line in MATRIX[case].lines]
