"""Adapters of public data sets, each tested on a folder that imitates the download byte by byte, up to the TRE."""

import functools
import re
import shlex
import subprocess
import sys
import threading
from contextlib import chdir
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from regnet.cli import main
from regnet.datasets.adapters import check_cohort, fetch, make_cohort, workflow_command
from regnet.datasets.public_sets import DATASETS, Download
from regnet.errors import InputError, OutputError
from regnet.evaluation.landmark_errors import transform_errors
from regnet.experiment.checking import read_config
from regnet.experiment.cohort import read_cohort
from regnet.experiment.schemas import check_config
from regnet.images.landmarks import read_landmark_pair
from regnet.images.volumes import Grid, read_image

ROOT = Path(__file__).parents[2]

SIZE, SPACING = (24, 20, 16), (1.5, 1.25, 2.5)

MATRIX = np.array([[0.9, 0.05, 0.0], [0.0, 1.1, -0.08], [0.06, 0.0, 0.85]])
"""Matrix of the known deformation ``T(x) = MATRIX x + SHIFT`` in mm; so far from 1 that a wrong voxel changes the error."""

SHIFT = np.array([1.0, -2.5, 4.0])

TRANSFORM = sitk.AffineTransform(MATRIX.ravel().tolist(), SHIFT.tolist())

GRID = Grid(SIZE, SPACING)

VOXELS = np.array([[4, 5, 3], [18, 6, 4], [7, 14, 12], [12, 9, 8], [15, 11, 5]])
"""Landmarks of the fixed images: indices x, y, z, the lowest slice is 0."""


def corresponding(grid=GRID):
    """The landmarks in the moving image, as indices."""
    return grid.indices(grid.points(VOXELS) @ MATRIX.T + SHIFT)


def marked(voxels):
    """HU ``(z, y, x)``: a dark lung with a bright voxel at each rounded landmark, each with its own brightness."""
    array = np.full(SIZE[::-1], -900, np.int16)
    for brightness, (x, y, z) in enumerate(np.round(voxels).astype(int)):
        array[z, y, x] = 100 + brightness
    return array


def write_raw(path, array):
    """Write an image as DIR-Lab does: little-endian int16, air 0, outside the field of view -2000, the topmost slice first."""
    raw = (array[::-1].astype(int) + 1024).astype("<i2")
    raw[:, 0, 0] = -2000
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw.tobytes())


def write_dirlab(path, voxels, style):
    """Write voxel numbers from 1 and from the topmost slice, in one of the styles of DIR-Lab's cases."""
    numbers = np.column_stack([voxels[:, 0] + 1, voxels[:, 1] + 1, SIZE[2] - voxels[:, 2]])
    rows = {
        "integers": ["\t".join(f"{round(value)}" for value in row) for row in numbers],
        "trailing": [" " + "\t ".join(f"{value:.6f}" for value in row) + "\t" for row in numbers],
    }[style]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{row}\r\n" for row in rows).encode())


def write_itk(path, array, grid=GRID):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(grid.image(array), path)


def write_text(path, rows, header="", separator=" "):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "".join(separator.join(f"{value:.6f}" for value in row) + "\n" for row in rows), encoding="utf-8")


def dirlab_4dct(folder):
    """Cases with both spellings of folders and files, one in a nested folder of the same name, one with another naming."""
    cases = [
        ("Case1Pack/Images/case1_{}_s.img", "Case1Pack/ExtremePhases/Case1_300_{}_xyz.txt", "integers"),
        ("Case2Pack/Case2Pack/Images/case2_{}-ssm.img", "Case2Pack/Case2Pack/ExtremePhases/Case2_300_{}_xyz.txt", "trailing"),
        ("Case6Pack/Images/case6_{}.img", "Case6Pack/extremePhases/case6_dirLab300_{}_xyz.txt", "trailing"),
        ("Case8Deploy/Images/CASE8_{}.IMG", "Case8Deploy/extremePhases/case8_dirLab300_{}_xyz.txt", "trailing"),
    ]
    for image, landmarks, style in cases:
        for phase, voxels in (("T00", VOXELS), ("T50", corresponding())):
            write_raw(folder / image.format(phase), marked(voxels))
            write_dirlab(folder / landmarks.format(phase), voxels, "trailing" if phase == "T50" else style)
        write_raw(folder / image.format("T10"), marked(VOXELS))
        write_dirlab(folder / re.sub("[Ee]xtremePhases.*", "Sampled4D/case1_4D-75_T00.txt", landmarks), VOXELS, "trailing")


def dirlab_copd(folder):
    for case in (1, 9, 10):
        for breath, voxels, style in (("i", VOXELS, "integers"), ("e", corresponding(), "trailing")):
            write_raw(folder / f"copd{case}/copd{case}_{breath}BHCT.img", marked(voxels))
            write_dirlab(folder / f"copd{case}/copd{case}_300_{breath}BH_xyz_r1.txt", voxels, style)


def learn2reg(name, points, cases, folder):
    grid = Grid(SIZE, SPACING, (0.0, 0.0, 0.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    for case in cases:
        for scan, voxels in (("0000", VOXELS), ("0001", corresponding(grid))):
            write_itk(folder / f"imagesTr/{name}_{case}_{scan}.nii.gz", marked(voxels), grid)
            write_itk(folder / f"masksTr/{name}_{case}_{scan}.nii.gz", np.ones(SIZE[::-1], np.uint8), grid)
            write_text(folder / f"{points}/{name}_{case}_{scan}.csv", voxels, separator=",")


def learn2reg_2020(folder):
    for case in ("001", "002", "003"):
        for scan, voxels in (("exp", VOXELS), ("insp", corresponding())):
            write_itk(folder / f"training/scans/case_{case}_{scan}.nii.gz", marked(voxels))
            write_itk(folder / f"training/lungMasks/case_{case}_{scan}.nii.gz", np.ones(SIZE[::-1], np.uint8))
        write_text(folder / f"training/keypoints/case_{case}.csv", np.hstack([VOXELS, corresponding()]), separator=",")


POPI_GRID = Grid(SIZE, SPACING, (-18.0, -12.5, 8.0))


def popi(folder):
    for phase, voxels in (("10", VOXELS), ("60", corresponding(POPI_GRID)), ("00", VOXELS)):
        write_itk(folder / f"{phase}-P.mhd", marked(voxels), POPI_GRID)
        write_text(folder / f"{phase}-Landmarks.pts", POPI_GRID.points(voxels), "#X Y Z\n")


def popi_extended(folder):
    for patient in ("Patient1", "patient2", "patient3"):
        for phase, voxels in (("00", VOXELS), ("50", corresponding(POPI_GRID))):
            write_itk(folder / f"{patient}/mhd/{phase}.mhd", marked(voxels), POPI_GRID)
            write_text(folder / f"{patient}/pts/{phase}.pts", POPI_GRID.points(voxels))


def empire10(folder):
    for case in ("01", "02", "30"):
        for side, voxels in (("Fixed", VOXELS), ("Moving", corresponding())):
            write_itk(folder / f"scans/{case}_{side}.mhd", marked(voxels))
            write_itk(folder / f"lungMasks/{case}_{side}.mhd", np.ones(SIZE[::-1], np.uint8))


def spread(folder):
    for patient in ("5001_a", "5002_b", "5003_c"):
        write_itk(folder / f"SPREAD/{patient}/baseline_1.mhd", marked(VOXELS), POPI_GRID)
        write_itk(folder / f"SPREAD/{patient}/followup_1.mhd", marked(corresponding(POPI_GRID)), POPI_GRID)
        points = POPI_GRID.points(VOXELS), POPI_GRID.points(corresponding(POPI_GRID))
        truth = folder / "SPREAD/SPREADgroundTruth"
        write_text(truth / f"{patient}_baseline_1_Cropped_point.txt", points[0], "point\n5\n")
        write_text(truth / f"Consensus/{patient[:4]}_b1f1_point.txt", points[1], "point\n5\n")


def list_of_files(folder):
    rows = ["fixed,moving,fixed_landmarks,moving_landmarks"]
    for case in "abc":
        write_itk(folder / f"{case}0.mha", marked(VOXELS))
        write_itk(folder / f"{case}1.nrrd", marked(corresponding()))
        write_text(folder / f"{case}0.csv", GRID.points(VOXELS), "x,y,z\n", ",")
        write_text(folder / f"{case}1.txt", corresponding(), "index\n5\n")
        rows.append(f"{case}0.mha,{case}1.nrrd,{case}0.csv,{case}1.txt")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


SETS = {
    "dirlab_4dct": dirlab_4dct,
    "dirlab_copd": dirlab_copd,
    "learn2reg_lungct": functools.partial(learn2reg, "LungCT", "landmarksTr", ("0001", "0004", "0005")),
    "learn2reg_lungct_2020": learn2reg_2020,
    "learn2reg_nlst": functools.partial(learn2reg, "NLST", "keypointsTr", ("0001", "0002", "0101")),
    "popi": popi,
    "popi_extended": popi_extended,
    "empire10": empire10,
    "spread": spread,
    "folder": list_of_files,
}


def small(name):
    """The description of a set, but with raw images of the size of the fixtures."""
    return replace(DATASETS[name], raw=dict.fromkeys(DATASETS[name].raw, (SIZE, SPACING)))


@pytest.fixture
def training(tmp_path):
    """Two CT images of other patients."""
    paths = [tmp_path / f"other{number}.nii.gz" for number in (1, 2)]
    for path in paths:
        write_itk(path, marked(VOXELS))
    return paths


def source_of(name, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir(parents=True)
    SETS[name](folder)
    return folder


def made(name, tmp_path, **options):
    """The cohort of a set's fixture."""
    make_cohort(name, source_of(name, tmp_path), tmp_path / "cohort", dataset=small(name), **options)
    return read_cohort(tmp_path / "cohort", tmp_path / "cohort")


def assert_known(cohort):
    """Check that the TRE under the known transform is 0, and that the landmarks are at the bright voxels of the images."""
    for _, pair in cohort.pairs.iterrows():
        points = read_landmark_pair(pair["fixed_landmarks"], pair["moving_landmarks"])
        assert transform_errors({"known": TRANSFORM}, *points)["error"].max() < 1e-3, "TRE"
        for side, array in zip(("fixed", "moving"), points, strict=True):
            image = read_image(cohort.images.loc[pair[side], "path"])
            indices = np.round(Grid.of(image).indices(array)).astype(int)
            assert [image[index] for index in indices.tolist()] == [100, 101, 102, 103, 104], "brightness"


@pytest.mark.parametrize("name", SETS)
def test_a_known_deformation_has_a_tre_of_0(name, tmp_path, training):
    cohort = made(name, tmp_path, training=training)
    assert len(cohort.pairs) == {"dirlab_4dct": 4, "popi": 1}.get(name, 3)
    assert cohort.test_pairs() == list(cohort.pairs.index)
    assert cohort.images["mask"].astype(bool).sum() == (6 if name.startswith(("learn2reg", "empire")) else 0)
    if name == "empire10":
        assert cohort.pairs_with_landmarks() == []
    else:
        assert cohort.pairs_with_landmarks() == cohort.test_pairs()
        assert_known(cohort)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda numbers: numbers * [1, 1, -1] + [0, 0, SIZE[2] + 1],
        lambda numbers: numbers - [0, 0, 1],
        lambda numbers: numbers - [1, 0, 0],
        lambda numbers: numbers - 1,
    ],
    ids=["z not reversed", "z from 0", "x from 0", "all from 0"],
)
@pytest.mark.parametrize("name", ["dirlab_4dct", "dirlab_copd"])
def test_a_wrong_convention_is_detected(name, wrong, tmp_path, training):
    """Changing the convention of the files has the effect of a mistake in the adapter: the TRE is not 0."""
    source = source_of(name, tmp_path)
    for path in source.rglob("*300*.txt"):
        np.savetxt(path, wrong(np.loadtxt(path)), fmt="%.6f")
    make_cohort(name, source, tmp_path / "cohort", dataset=small(name), training=training)
    with pytest.raises(AssertionError, match="TRE"):
        assert_known(read_cohort(tmp_path / "cohort", tmp_path / "cohort"))


def test_raw_images_are_reversed_and_in_hu(tmp_path, training):
    cohort = made("dirlab_copd", tmp_path, training=training)
    image = read_image(cohort.images.loc["dirlab_copd_09_fixed", "path"])
    expected = marked(VOXELS)
    expected[:, 0, 0] = -1024
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)


def test_sizes_and_spacings_of_raw_images():
    """Cases of each kind, and two that differ from their neighbours."""
    lung, copd = DATASETS["dirlab_4dct"].raw, DATASETS["dirlab_copd"].raw
    assert sorted(lung) == sorted(copd) == [f"{case:02d}" for case in range(1, 11)]
    assert lung["01"] == ((256, 256, 94), (0.97, 0.97, 2.5))
    assert lung["05"] == ((256, 256, 106), (1.1, 1.1, 2.5))
    assert lung["07"] == ((512, 512, 136), (0.97, 0.97, 2.5))
    assert copd["04"] == ((512, 512, 126), (0.589844, 0.589844, 2.5))
    # Not 0.644 as in a public table: only this spacing gives the published distance.
    assert copd["09"] == ((512, 512, 116), (0.664062, 0.664062, 2.5))


def test_splits(tmp_path):
    """By the set's own choice, by the chapter's proportions, and by the user's."""
    assert made("learn2reg_nlst", tmp_path / "a").test_pairs() == ["learn2reg_nlst_101"]
    assert made("dirlab_4dct", tmp_path / "b").test_pairs() == ["dirlab_4dct_08"]
    cohort = made("dirlab_4dct", tmp_path / "c", test=["01", "06"])
    assert cohort.test_pairs() == ["dirlab_4dct_01", "dirlab_4dct_06"]
    assert cohort.images_of("validation") == ["dirlab_4dct_08_fixed", "dirlab_4dct_08_moving"]
    with pytest.raises(InputError, match=r"found 1 cases.*--training"):
        made("popi", tmp_path / "d")
    assert not (tmp_path / "d" / "cohort").exists()


@pytest.mark.parametrize(("name", "separator"), [("scans.txt", "\t"), ("pairs.csv", ",")])
def test_any_list_of_two_columns_is_accepted(name, separator, tmp_path, training):
    """Without a header, with tabs or commas, given as a file or by its folder."""
    source = source_of("folder", tmp_path)
    (source / "pairs.csv").unlink()
    rows = "".join(f"{case}0.mha{separator}{case}1.nrrd\n" for case in "ab")
    (source / name).write_text(rows, encoding="utf-8")
    make_cohort("folder", source if name == "pairs.csv" else source / name, tmp_path / "cohort", training=training)
    cohort = read_cohort(tmp_path / "cohort", tmp_path / "cohort")
    assert cohort.test_pairs() == ["folder_01", "folder_02"]
    assert cohort.pairs_with_landmarks() == []


def checked_config(*configfiles):
    """Config files of the repository or elsewhere, merged onto the default as Snakemake merges them, and checked."""
    with chdir(ROOT):
        config = read_config(configfiles)
    check_config(config)
    return config


@pytest.mark.parametrize("name", SETS)
def test_a_cohort_comes_with_its_config(name, tmp_path, training, monkeypatch):
    source, folder = source_of(name, tmp_path), f"data/{name}"
    monkeypatch.chdir(tmp_path)
    make_cohort(name, source, f"{folder}/", dataset=small(name), training=training)
    path = tmp_path / folder / "config.yaml"
    config = checked_config(path)
    assert (config["experiment"], config["cohort"], config["data_root"], config["phantom"]) == (name, folder, folder, None)
    spacing, per_pair, passes = {
        "dirlab_copd": (1.0, 800, 3),
        "learn2reg_lungct": (1.0, 800, 3),
        "learn2reg_lungct_2020": (1.0, 800, 3),
        "learn2reg_nlst": (1.5, 100, 1),
    }.get(name, (1.0, 800, 1))
    assert (config["resampling"]["spacing"], config["patches"]["per_pair"]) == (spacing, per_pair)
    assert (config["regnet"]["spacing"], config["regnet"]["passes"]) == (2.0, passes)
    # All sets of real scans share the settings of the training.
    assert config["training"] == checked_config("config/lung_followup.yaml", "config/lung_followup_scratch.yaml")["training"]
    # Released weights replace the training if another config precedes it.
    assert checked_config("config/lung_followup.yaml", path)["training"]["mode"] == "released"


@pytest.mark.parametrize(
    ("folder", "experiment"), [("lungs: 2nd try", "lungs__2nd_try"), (".hidden", "_hidden"), ("-", "_"), ("Größe", "Gr__e")]
)
def test_the_config_names_any_folder(folder, experiment, tmp_path, capsys):
    output = tmp_path / folder
    command = ["dataset", "folder", "--source", str(source_of("folder", tmp_path)), f"--output={output}"]
    assert main(command) == 0
    config = checked_config(output / "config.yaml")
    assert (config["experiment"], config["cohort"], config["data_root"]) == (experiment, str(output), str(output))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next, in the folder of the workflow: {workflow_command(output)}"
    words = shlex.split(last.partition("workflow: ")[2])
    assert words == ["snakemake", "--cores", "all", "--configfile", str(output / "config.yaml")]


def test_the_workflow_takes_a_cohort_with_its_config(tmp_path):
    """The jobs are planned, the affine registration of the test pair and its evaluation among them."""
    large = dict.fromkeys(DATASETS["dirlab_4dct"].raw, (SIZE, (5.0, 6.0, 7.0)))
    dataset, folder = replace(DATASETS["dirlab_4dct"], raw=large), tmp_path / "lungs"
    source = source_of("dirlab_4dct", tmp_path)
    for number, path in enumerate(path for path in source.rglob("*") if path.suffix.lower() == ".img"):
        # No two images are the same.
        path.write_bytes(path.read_bytes()[:-2] + number.to_bytes(2, "little"))
    make_cohort("dirlab_4dct", source, folder, dataset=dataset)
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", folder / "config.yaml"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stderr[-3000:]
    assert "results/lungs/registrations/affine/dirlab_4dct_08/transform.h5" in process.stdout
    assert "results/lungs/evaluation/landmarks/dirlab_4dct_08.csv" in process.stdout


def test_check_compares_with_what_is_published(tmp_path, training, capsys):
    made("learn2reg_lungct", tmp_path, training=training)
    with pytest.raises(InputError, match=r"learn2reg_lungct_01: found landmarks \d+\.\d\d mm apart.*expected 20\.18 mm"):
        check_cohort(tmp_path / "cohort")
    assert main(["dataset", "check", str(tmp_path / "cohort")]) == 2
    assert "expected 20.18 mm" in capsys.readouterr().err
    card = (tmp_path / "cohort" / "README.md").read_text(encoding="utf-8")
    assert "| learn2reg_lungct_01 | test | 5 | " in card
    assert "| 20.18 |" in card


def test_command_makes_and_checks_a_cohort_once(tmp_path, capsys):
    command = ["dataset", "folder", "--source", str(source_of("folder", tmp_path)), "--output", str(tmp_path / "cohort")]
    assert main(command) == 0
    assert "folder_01" in capsys.readouterr().out
    assert main(command) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert main(["dataset", "check", str(tmp_path / "cohort")]) == 0


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("dirlab_copd", lambda folder: next(folder.rglob("copd9_i*.img")).unlink(), "no fixed image of case 09"),
        ("dirlab_copd", lambda folder: next(folder.rglob("copd9_300_e*")).unlink(), "no moving landmarks of case 09"),
        ("dirlab_copd", lambda folder: next(folder.rglob("copd1_i*.img")).write_bytes(b"\0"), "found 1 bytes, expected 15360"),
        ("dirlab_copd", lambda folder: write_raw(folder / "copy/copd1_iBHCT.img", marked(VOXELS)), "expected one of them"),
        ("dirlab_copd", lambda folder: [path.unlink() for path in folder.rglob("*.img")], "no images of DIR-Lab COPDgene"),
        ("folder", lambda folder: (folder / "b1.nrrd").unlink(), "row 3: moving: found 'b1.nrrd', expected a file"),
        (
            "folder",
            lambda folder: (folder / "pairs.csv").write_text("fixed,b\nc,d\n", encoding="utf-8"),
            "the columns fixed, b",
        ),
        ("folder", lambda folder: (folder / "pairs.csv").write_text("a0.mha\n", encoding="utf-8"), "row 1: found 1 cells"),
        ("folder", lambda folder: (folder / "pairs.csv").write_text("\n", encoding="utf-8"), "found no pairs"),
    ],
)
def test_bad_folders_leave_nothing(name, damage, reason, tmp_path):
    source = source_of(name, tmp_path)
    damage(source)
    with pytest.raises(InputError, match=reason) as caught:
        make_cohort(name, source, tmp_path / "cohort", dataset=small(name))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.fixture
def server(tmp_path):
    """A local HTTP server of the folder ``remote``, and its address."""
    (tmp_path / "remote").mkdir()

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=tmp_path / "remote")) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield tmp_path / "remote", f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_downloads_are_verified(server, tmp_path):
    remote, url = server
    (remote / "a.txt").write_bytes(b"hello\n")
    download = Download("http://127.0.0.1:9/gone", {"a.txt": "ce013625030ba8dba906f756967f9e9ca394464a"})  # git hash-object
    fetch(download, tmp_path, url)
    assert (tmp_path / "a.txt").read_bytes() == b"hello\n"
    (remote / "a.txt").write_bytes(b"hello!\n")
    with pytest.raises(InputError, match=r"a\.txt: found the git blob .*, expected ce013625"):
        fetch(download, tmp_path, url)
    (remote / "a.txt").unlink()
    with pytest.raises(InputError, match=r"404.*by hand into a folder, and name the folder with --source"):
        fetch(download, tmp_path, url)
    with pytest.raises(InputError, match=r"gone/a\.txt: cannot be fetched"):
        fetch(download, tmp_path)


def test_the_downloaded_pair_becomes_a_cohort(server, tmp_path, training):
    remote, url = server
    names = {}
    for side, voxels in (("fixed", VOXELS), ("moving", corresponding())):
        write_itk(remote / f"CT_3D_lung_{side}.mha", marked(voxels))
        write_text(remote / f"CT_3D_lung_{side}_point_set_corrected.txt", GRID.points(voxels), "point\n5\n")
    for path in remote.iterdir():
        names[path.name] = subprocess.check_output(["git", "hash-object", path], encoding="utf-8").strip()
    dataset = replace(DATASETS["lung_followup"], download=Download(url, names))
    make_cohort("lung_followup", None, tmp_path / "cohort", dataset=dataset, training=training)
    cohort = read_cohort(tmp_path / "cohort", tmp_path / "cohort")
    pair = cohort.pairs.loc["lung_followup_01"]
    points = read_landmark_pair(pair["fixed_landmarks"], pair["moving_landmarks"])
    assert transform_errors({"known": TRANSFORM}, *points)["error"].max() < 1e-3
    made, shipped = checked_config(tmp_path / "cohort" / "config.yaml"), checked_config("config/lung_followup.yaml")
    assert [made[key] for key in ("resampling", "regnet", "training")] == [
        shipped[key] for key in ("resampling", "regnet", "training")
    ]
    with pytest.raises(OutputError, match="already exists"):
        make_cohort("lung_followup", remote, tmp_path / "cohort", dataset=dataset, training=training)
