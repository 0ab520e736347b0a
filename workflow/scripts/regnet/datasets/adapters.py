"""Turn a public data set as it was downloaded into a cohort: images in HU, landmarks in mm, two tables, a config and a card."""

import hashlib
import logging
import re
import shlex
import shutil
import textwrap
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import SimpleITK as sitk
import yaml

from regnet.conventions import AIR_HU
from regnet.datasets.public_sets import DATASETS, SETTINGS, DataSet, Download, Files
from regnet.errors import InputError
from regnet.experiment.cohort import read_cohort
from regnet.images.landmarks import (
    corresponding_rows,
    landmark_kind,
    read_landmark_pair,
    read_landmarks,
    read_numbers,
    write_landmarks,
)
from regnet.images.volumes import Grid, hu_problem, read_ct, read_mask, write_image
from regnet.system.files import whole_folder

log = logging.getLogger(__name__)

CONTENTS = ("images", "masks", "landmarks", "images.tsv", "pairs.tsv", "config.yaml", "README.md")
"""The contents of a cohort's folder."""

LIST = "pairs.csv"
"""The name of the list of files of the set ``folder`` where only its folder is given."""

LIST_COLUMNS = ("fixed", "moving", "fixed_landmarks", "moving_landmarks", "fixed_mask", "moving_mask")
"""The columns of that list; the first two are required."""

RAW_AIR = 1024
"""Offset of raw DIR-Lab images to HU."""

TOLERANCE = 0.03
"""Tolerance in mm for the mean distance of landmarks: published values have two decimals and other rounding."""

CHAPTER_PAIRS = {"validation": 2, "test": 7, "all": 19}
"""The split of the chapter's pairs (section 2.3.2)."""


@dataclass(frozen=True)
class ScanFiles:
    """The files of one scan; landmarks and mask are None where there are none."""

    image: Path
    landmarks: Path | None
    mask: Path | None


def make_cohort(
    name: str,
    source: str | Path | None,
    output: str | Path,
    *,
    dataset: DataSet | None = None,
    test: Sequence[str] = (),
    training: Sequence[str | Path] = (),
    replace: bool = False,
) -> pd.DataFrame:
    """Turn a data set into a folder that is a cohort: the tables, all the files they name, and a config to run it with.

    Parameters
    ----------
    name
        The name of the set in `DATASETS`; images and pairs are named after it.
    source
        The folder of the set as it was downloaded; None to fetch a set that can be fetched.
    output
        The folder to make. It appears as a whole or not at all. The config repeats this path as it is given, absolute or
        relative to the folder of the workflow, and names the experiment after the folder.
    dataset
        A description of the set in place of that in `DATASETS`, for example with images of another size.
    test
        The cases to test on in place of the set's own choice; the others train, and one or more of them validate.
    training
        CT images of other patients. If any are given, these train and the last validates, and all cases of the set are tests.
    replace
        Whether an earlier cohort may be replaced.

    Returns
    -------
    pandas.DataFrame
        Of `initial_distances`.

    Raises
    ------
    InputError
        If files are missing, ambiguous or invalid, or there are too few cases to train, validate and test.
    OutputError
        If `output` already exists and may not be replaced.
    """
    dataset = dataset or DATASETS[name]
    earlier = _files_of_cohort(Path(output)) if replace else []
    with whole_folder(output, CONTENTS, files=earlier, replace=replace) as folder, _source(dataset, source) as files:
        cases = read_list(files) if dataset.fixed is None else find_cases(dataset, files)
        splits = _splits(dataset, list(cases), files, test, len(training))
        images, pairs = [], []
        for case, scans in cases.items():
            log.info("case %s of %d", case, len(cases))
            row = {"pair": f"{name}_{case}"}
            for side, scan in zip(("fixed", "moving"), scans, strict=True):
                image = row[side] = f"{name}_{case}_{side}"
                geometry = dataset.raw.get(case)
                if dataset.raw and geometry is None:
                    raise InputError(f"{scan.image}: found case {case}, expected one of {', '.join(dataset.raw)}")
                path, mask, row[f"{side}_landmarks"] = _convert(scan, side, folder, image, geometry)
                images.append({"image": image, "subject": row["pair"], "split": splits[case], "path": path, "mask": mask})
            _align_landmarks(scans, folder / row["fixed_landmarks"], folder / row["moving_landmarks"])
            pairs.append(row)
        for number, path in enumerate(training, start=1):
            image = f"training_{number:02d}"
            write_image(read_ct(path), folder / "images" / f"{image}.nii.gz")
            split = "validation" if number == len(training) else "train"
            images.append({"image": image, "subject": image, "split": split, "path": f"images/{image}.nii.gz", "mask": ""})
        pd.DataFrame(images).to_csv(folder / "images.tsv", sep="\t", index=False, lineterminator="\n")
        columns = ["pair", "fixed", "moving", "fixed_landmarks", "moving_landmarks"]
        pd.DataFrame(pairs, columns=columns).to_csv(folder / "pairs.tsv", sep="\t", index=False, lineterminator="\n")
        distances = initial_distances(folder)
        (folder / "config.yaml").write_text(_config(name, dataset, output), encoding="utf-8")
        (folder / "README.md").write_text(_card(name, dataset, distances, pd.DataFrame(images)), encoding="utf-8")
    return distances


def _files_of_cohort(folder: Path) -> list[str]:
    """The files that the tables of an earlier cohort name, as they stand there; none if the tables cannot be read."""
    names: list[str] = []
    for table, columns in (("images.tsv", ["path", "mask"]), ("pairs.tsv", ["fixed_landmarks", "moving_landmarks"])):
        with suppress(OSError, ValueError, KeyError):
            names += pd.read_csv(folder / table, sep="\t", dtype=str, na_filter=False)[columns].to_numpy().ravel().tolist()
    return names


def workflow_command(folder: str | Path) -> str:
    """The command line that runs the workflow on the cohort that `make_cohort` made in a folder."""
    return f"snakemake --cores all --configfile {shlex.quote((Path(folder) / 'config.yaml').as_posix())}"


def initial_distances(folder: str | Path) -> pd.DataFrame:
    """Measure the distances of corresponding landmarks before any registration, pair by pair.

    Parameters
    ----------
    folder
        The folder of a cohort, to which the paths in its tables are relative.

    Returns
    -------
    pandas.DataFrame
        Indexed by pair: ``landmarks`` (their number), ``mean`` and ``sd`` (of the population, as the sets publish it) and
        ``expected``, the mean that `DATASETS` has for a pair of this name, in mm; NaN where there is none.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: found no folder, expected that of a cohort")
    expected = {f"{name}_{case}": mean for name, dataset in DATASETS.items() for case, mean in dataset.expected.items()}
    cohort, rows = read_cohort(folder, folder), {}
    for pair, row in cohort.pairs.iterrows():
        errors = np.empty(0)
        if row["fixed_landmarks"]:
            images = [cohort.images.loc[row[side], "path"] for side in ("fixed", "moving")]
            fixed, moving = read_landmark_pair(row["fixed_landmarks"], row["moving_landmarks"], images)
            errors = np.linalg.norm(fixed - moving, axis=1)
        mean, sd = (errors.mean(), errors.std()) if len(errors) else (np.nan, np.nan)
        rows[pair] = {"landmarks": len(errors), "mean": mean, "sd": sd, "expected": expected.get(pair, np.nan)}
    return pd.DataFrame.from_dict(rows, orient="index")


def check_cohort(folder: str | Path) -> pd.DataFrame:
    """Compare a cohort that `make_cohort` made from a public set with the published distances.

    Returns
    -------
    pandas.DataFrame
        Of `initial_distances`.

    Raises
    ------
    InputError
        With a line for each pair whose mean distance differs from the published one.
    """
    distances = initial_distances(folder)
    wrong = distances[(distances["mean"] - distances["expected"]).abs() > TOLERANCE]
    if len(wrong):
        raise InputError(
            "\n".join(
                f"{folder}: {pair}: found landmarks {row['mean']:.2f} mm apart on average, expected {row['expected']:.2f} mm"
                for pair, row in wrong.iterrows()
            )
        )
    return distances


def find_cases(dataset: DataSet, source: str | Path) -> dict[str, tuple[ScanFiles, ScanFiles]]:
    """Find the fixed and the moving scan of every case in a downloaded folder, by the name of the case, in order.

    Raises
    ------
    InputError
        If there are no cases, if a scan or the landmarks of one side are missing, or if several files match.
    """
    # Only a list of files has no patterns, and `read_list` reads it.
    assert dataset.fixed is not None
    assert dataset.moving is not None
    source = Path(source)
    paths = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    sides = [_find_scans(files, source, paths) for files in (dataset.fixed, dataset.moving)]
    if not any(sides):
        raise InputError(f"{source}: found no images of {dataset.title}, expected files like {_example(dataset.fixed.image)}")
    for side, name, files in zip(sides, ("fixed", "moving"), (dataset.fixed, dataset.moving), strict=True):
        missing = sorted({*sides[0], *sides[1]} - set(side))
        if missing:
            raise InputError(
                f"{source}: found no {name} image of case {missing[0]}, expected a file like {_example(files.image)}"
            )
    cases = {case: (sides[0][case], sides[1][case]) for case in sorted(sides[0])}
    for case, (fixed, moving) in cases.items():
        if bool(fixed.landmarks) != bool(moving.landmarks):
            lacking, files = ("moving", dataset.moving) if fixed.landmarks else ("fixed", dataset.fixed)
            example = _example(files.landmarks)
            raise InputError(f"{source}: found no {lacking} landmarks of case {case}, expected a file like {example}")
    return cases


def read_list(source: str | Path) -> dict[str, tuple[ScanFiles, ScanFiles]]:
    """Read a list of files with one pair per row: paths relative to the folder of the list, separated by commas or tabs.

    Parameters
    ----------
    source
        The list, or a folder that holds it as `LIST`. Without a header there are two columns, fixed and moving.

    Raises
    ------
    InputError
        If the list is missing or empty, has columns that are not in `LIST_COLUMNS` or lacks the first two, or names files
        that do not exist.
    """
    path = Path(source) if Path(source).is_file() else Path(source) / LIST
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list of files ({error})") from error
    rows = [re.split("[\t,]", line) for line in lines if line.strip()]
    has_header = bool(rows) and any(name.strip() in LIST_COLUMNS for name in rows[0])
    columns, rows = ([name.strip() for name in rows[0]], rows[1:]) if has_header else (list(LIST_COLUMNS[:2]), rows)
    if not set(LIST_COLUMNS[:2]) <= set(columns) <= set(LIST_COLUMNS) or len(set(columns)) < len(columns):
        raise InputError(
            f"{path}: found the columns {', '.join(columns)}, expected fixed, moving and possibly {', '.join(LIST_COLUMNS[2:])}"
        )
    first = 2 if has_header else 1
    for number, cells in enumerate(rows, start=first):
        if len(cells) != len(columns):
            raise InputError(f"{path}, row {number}: found {len(cells)} cells, expected {len(columns)}: {', '.join(columns)}")
    if not rows:
        raise InputError(f"{path}: found no pairs, expected one per row")
    cases = {}
    for case, cells in enumerate(rows, start=1):
        row, number = dict(zip(columns, map(str.strip, cells), strict=True)), case + first - 1
        for column in LIST_COLUMNS:
            value = row.get(column, "")
            named = path.parent / value
            if not (named.is_file() or named.is_dir()) or (column in LIST_COLUMNS[:2] and not value):
                raise InputError(f"{path}, row {number}: {column}: found {value!r}, expected a file")
        if bool(row.get("fixed_landmarks")) != bool(row.get("moving_landmarks")):
            raise InputError(f"{path}, row {number}: found landmarks of one image, expected landmarks of both or of neither")
        scans = []
        for side in ("fixed", "moving"):
            extra = (row.get(f"{side}_{kind}") for kind in ("landmarks", "mask"))
            scans.append(ScanFiles(path.parent / row[side], *(path.parent / value if value else None for value in extra)))
        cases[f"{case:02d}"] = (scans[0], scans[1])
    return cases


def fetch(download: Download, folder: Path, url: str | None = None) -> None:
    """Fetch the files of a set into a folder and verify them.

    Parameters
    ----------
    download
        The files and their address.
    folder
        The folder to write them to.
    url
        Another address of the same files.

    Raises
    ------
    InputError
        If an address does not answer, and as `verify` does.
    """
    for name in download.blobs:
        address = f"{url or download.url}/{name}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer, open(folder / name, "wb") as file:
                shutil.copyfileobj(answer, file)
        except OSError as error:
            raise InputError(
                f"{address}: cannot be fetched ({error}); download {', '.join(download.blobs)} from there by hand into "
                "a folder, and name the folder with --source"
            ) from error
    verify(download, folder)


def verify(download: Download, folder: Path) -> None:
    """Raise `InputError` if a file of a fetched set is missing or has another checksum than expected."""
    for name, expected in download.blobs.items():
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise InputError(
                f"{folder / name}: cannot be read ({error.strerror}), expected the file of {download.url}"
            ) from error
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if found != expected:
            raise InputError(f"{name}: found the git blob {found}, expected {expected} of {download.url}")


def read_raw(path: str | Path, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> sitk.Image:
    """Read a DIR-Lab image: int16, little-endian, x fastest, the topmost slice first, air 0.

    The order of the slices is reversed, so that the image has the directions of LPS and the origin 0; values below air are
    raised to air.

    Raises
    ------
    InputError
        If the file does not have as many bytes as an image of `size` voxels (x, y, z), or does not hold a chest CT with air 0.
    """
    raw = np.fromfile(path, "<i2")
    found, expected = Path(path).stat().st_size, 2 * int(np.prod(size))
    if found != expected:
        raise InputError(f"{path}: found {found} bytes, expected {expected} for {' x '.join(map(str, size))} voxels of int16")
    hu = raw.reshape(size[::-1])[::-1].astype(np.int32) - RAW_AIR
    problem = hu_problem(hu)
    if problem:
        raise InputError(f"{path}: after {RAW_AIR} was subtracted, {problem}")
    return Grid(size, spacing).image(np.maximum(hu, AIR_HU).astype(np.int16))


@contextmanager
def _source(dataset: DataSet, source: str | Path | None) -> Iterator[Path]:
    """The folder with the files of a set, fetched if no source is given, and verified where checksums are known."""
    if source is None:
        if dataset.download is None:
            raise InputError(f"--source: found none, expected the folder of {dataset.title} ({dataset.access})")
        with TemporaryDirectory() as folder:
            fetch(dataset.download, Path(folder))
            yield Path(folder)
        return
    if not Path(source).is_dir() and not (dataset.fixed is None and Path(source).is_file()):
        raise InputError(f"{source}: found no folder, expected that of {dataset.title} ({dataset.access})")
    if dataset.download is not None:
        verify(dataset.download, Path(source))
    yield Path(source)


def _find_scans(files: Files, source: Path, paths: Sequence[str]) -> dict[str, ScanFiles]:
    """The scans of one side, by case."""
    images, landmarks, masks = (_match(pattern, source, paths) for pattern in (files.image, files.landmarks, files.mask))
    return {case: ScanFiles(image, landmarks.get(case), masks.get(case)) for case, image in images.items()}


def _match(pattern: str, source: Path, paths: Sequence[str]) -> dict[str, Path]:
    """The file of each case that matches a pattern of `Files`; none if the pattern is empty."""
    matches: dict[str, Path] = {}
    for path in paths if pattern else ():
        match = re.search(rf"(?:^|/){pattern}\Z", path, re.IGNORECASE)
        if match is None:
            continue
        case = match.groupdict().get("case", "1").lower()
        case = f"{int(case):02d}" if case.isdecimal() else re.sub(r"[^a-z0-9_.-]", "_", case)
        if matches.setdefault(case, source / path) != source / path:
            raise InputError(
                f"{source}: found {path} and {matches[case].relative_to(source)} for case {case}, expected one of them"
            )
    return matches


def _example(pattern: str) -> str:
    """A pattern of `Files` as a readable name: the case in capitals, and the first of several spellings."""
    text = re.sub(r"\(\?P<case>[^)]*\)", "CASE", pattern)
    text = re.sub(r"\(\?:([^|)]*)[^)]*\)\??", r"\1", text)
    return text.replace("[^/]*", "*").replace("\\", "")


def _splits(dataset: DataSet, cases: Sequence[str], source: Path, test: Sequence[str], training: int) -> dict[str, str]:
    """The split of each case; `training` is the number of other images that train and validate."""
    if training == 1:
        raise InputError("--training: found 1 image, expected at least 2, to train and to validate with")
    if training:
        return dict.fromkeys(cases, "test")
    unknown = [case for case in test if case not in cases]
    if unknown:
        raise InputError(f"--test: found case {unknown[0]}, expected some of {', '.join(cases)}")
    sizes = {split: max(1, round(len(cases) * CHAPTER_PAIRS[split] / CHAPTER_PAIRS["all"])) for split in ("validation", "test")}
    tested = list(test) or [case for case in dataset.test if case in cases] or list(cases[-sizes["test"] :])
    rest = [case for case in cases if case not in tested]
    if len(rest) < 2:
        raise InputError(
            f"{source}: found {len(cases)} cases, {len(tested)} of them for the test, expected two more to train and to "
            "validate with; --training takes other CT images for that"
        )
    validation = rest[-min(sizes["validation"], len(rest) - 1) :]
    return {case: "test" if case in tested else "validation" if case in validation else "train" for case in cases}


def _convert(
    scan: ScanFiles,
    side: str,
    folder: Path,
    name: str,
    geometry: tuple[tuple[int, int, int], tuple[float, float, float]] | None,
) -> tuple[str, str, str]:
    """Write the files of a scan; returns the paths of image, mask and landmarks in the folder, "" for what the scan lacks."""
    image = read_raw(scan.image, *geometry) if geometry else read_ct(scan.image)
    grid, path, mask, landmarks = Grid.of(image), f"images/{name}.nii.gz", "", ""
    write_image(image, folder / path)
    if scan.mask is not None:
        mask = f"masks/{name}.nii.gz"
        write_image(read_mask(scan.mask, grid), folder / mask)
    if scan.landmarks is not None:
        landmarks = f"landmarks/{name}.txt"
        write_landmarks(_landmarks(scan.landmarks, side, grid), folder / landmarks)
    return path, mask, landmarks


def _landmarks(path: Path, side: str, grid: Grid) -> np.ndarray:
    """Points ``(n, 3)`` in mm of one side; a Learn2Reg file with six columns holds both sides."""
    if landmark_kind(path) == "learn2reg" and (both := read_numbers(path)).shape[1] == 6:
        return grid.points(both[:, :3] if side == "fixed" else both[:, 3:])
    return read_landmarks(path, grid)


def _align_landmarks(scans: Sequence[ScanFiles], fixed: Path, moving: Path) -> None:
    """Put the rows of the file `moving` of a cohort into the order of `fixed`: the files themselves have no labels.

    Raises
    ------
    InputError
        If the landmarks of the scans, from which the two files were made, do not correspond.
    """
    first, second = (scan.landmarks for scan in scans)
    if first is not None and second is not None:
        points = read_landmarks(moving)
        rows = corresponding_rows(first, second, len(read_landmarks(fixed)), len(points))
        if (np.diff(rows) != 1).any():
            write_landmarks(points[rows], moving)


def _config(name: str, dataset: DataSet, output: str | Path) -> str:
    """The config of a cohort, in YAML, to be merged onto the default: where the cohort is, and how it is run."""
    path = Path(output).as_posix()
    experiment = re.sub(r"[^A-Za-z0-9_.-]|^[.-]", "_", Path(output).resolve().name)
    config = {"experiment": experiment, "data_root": path, "cohort": path, "phantom": None, **SETTINGS, **dataset.settings}
    about = textwrap.fill(f"{dataset.title}. {dataset.notes}", 120, initial_indent="# ", subsequent_indent="# ")
    return (
        f"{about}\n# Made by regnet dataset {name}. To run it, in the folder of the workflow:\n# {workflow_command(output)}\n\n"
        f"{yaml.safe_dump(config, sort_keys=False, default_flow_style=None, allow_unicode=True)}"
    )


def _card(name: str, dataset: DataSet, distances: pd.DataFrame, images: pd.DataFrame) -> str:
    """The card of a cohort, in Markdown."""
    split = images.set_index("image")["split"]
    rows = [
        f"| {pair} | {split[f'{pair}_fixed']} | {row['landmarks']:.0f} | {_mm(row['mean'])} | {_mm(row['sd'])} | "
        f"{_mm(row['expected'])} |\n"
        for pair, row in distances.iterrows()
    ]
    return (
        f"# {dataset.title}\n\n{dataset.access}\n\n{dataset.notes}\n\n"
        f"Made by `regnet dataset {name}`. Images are int16 HU, values below air raised to {AIR_HU}; landmarks are elastix "
        "point files in mm (LPS).\nDistances of landmarks before registration, in mm; *expected* is published or recomputed "
        f"from the published files.\n\n| pair | split | landmarks | mean | sd | expected |\n|---|---|---:|---:|---:|---:|\n"
        f"{''.join(rows)}"
    )


def _mm(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"
