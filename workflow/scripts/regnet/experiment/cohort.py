"""The cohort: the tables ``images.tsv`` and ``pairs.tsv`` of a folder, checked as a whole before any job runs."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from regnet.errors import InputError
from regnet.experiment.schemas import FOLDER, problems, validator

IMAGES_SCHEMA = FOLDER / "images.schema.yaml"
PAIRS_SCHEMA = FOLDER / "pairs.schema.yaml"

SPLITS = ("train", "validation", "test")
"""The uses of an image."""


@dataclass(frozen=True)
class Cohort:
    """Images and pairs of images, in the order of their tables. Paths include the data root; a missing one is "".

    Attributes
    ----------
    images
        Indexed by image, with the columns subject, split, path, mask.
    pairs
        Indexed by pair, with the columns fixed, moving, fixed_landmarks, moving_landmarks, split, subject; the last two are
        those of the fixed image.
    """

    images: pd.DataFrame
    pairs: pd.DataFrame

    def images_of(self, split: str) -> list[str]:
        """Names of the images of a split."""
        return self.images.index[self.images["split"] == split].tolist()

    def test_pairs(self) -> list[str]:
        """Names of the pairs of the test split; these are registered."""
        return self.pairs.index[self.pairs["split"] == "test"].tolist()

    def pairs_with_landmarks(self) -> list[str]:
        """Names of the test pairs that have landmarks; their registrations can be evaluated."""
        chosen = (self.pairs["split"] == "test") & (self.pairs["fixed_landmarks"] != "")
        return self.pairs.index[chosen].tolist()


Inspect = Callable[[pd.DataFrame, pd.DataFrame], list[str]]
"""Returns a line for each problem in the files of images and pairs: frames as in `Cohort`, but not necessarily valid."""


def read_cohort(
    folder: str | Path, data_root: str | Path, made_by_workflow: bool = False, inspect: Inspect | None = None
) -> Cohort:
    """Read and check the tables of a cohort.

    Parameters
    ----------
    folder
        Contains ``images.tsv`` and ``pairs.tsv``: tab-separated UTF-8 with the columns of ``workflow/schemas``, in any order.
    data_root
        Folder to which the paths in the tables are relative.
    made_by_workflow
        Whether the workflow makes the files, so that they need not exist yet.
    inspect
        Checks the content of the files, such as `regnet.experiment.inspection.file_problems`. Problems of tables and of files
        are then reported together.

    Raises
    ------
    InputError
        With a line for each problem: file and row, field, what was found, and what was expected. Rows are numbered like the
        lines of the file; the header is row 1.
    """
    images = _read_table(Path(folder, "images.tsv"), IMAGES_SCHEMA)
    pairs = _read_table(Path(folder, "pairs.tsv"), PAIRS_SCHEMA)
    root_exists = made_by_workflow or os.path.isdir(data_root)
    if not root_exists:
        # One line instead of one for each file below it.
        images.problems.append(f"data_root: found {str(data_root)!r}, which is no folder, expected the folder of the images")
    must_exist = root_exists and not made_by_workflow
    _check_images(images, data_root, must_exist)
    if images.rows:
        _check_pairs(pairs, images, data_root, must_exist)
    image_frame = _frame(images, data_root, ("path", "mask"))
    pair_frame = _frame(pairs, data_root, ("fixed_landmarks", "moving_landmarks"))
    lines = images.problems + pairs.problems + (inspect(image_frame, pair_frame) if inspect else [])
    if lines:
        raise InputError("\n".join(lines))
    for column in ("split", "subject"):
        pair_frame[column] = image_frame.loc[pair_frame["fixed"], column].to_numpy()
    return Cohort(image_frame, pair_frame)


@dataclass
class _Table:
    """The rows of a table by line number, and the problems found so far."""

    path: Path
    columns: list[str]
    rows: dict[int, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def refuse(self, row: int, name: str, found: str, expected: str) -> None:
        """Add a problem with a field of a row."""
        self.problems.append(f"{self.path}, row {row}: {name}: found {found}, expected {expected}")


def _read_table(path: Path, schema_path: Path) -> _Table:
    """Read a table; check its columns and each row by itself. If the columns are wrong, no rows are read.

    pandas is no help here: where the number of cells is wrong it takes the first cell for an index or adds NaN, and it does
    not keep line numbers.
    """
    table = _Table(path, validator(schema_path).schema["required"])
    wanted = f"expected a tab-separated table (UTF-8) with the columns {', '.join(table.columns)}"
    if path.exists() and not path.is_file():
        # Reading a named pipe would wait for ever.
        table.problems.append(f"{path}: cannot be read (it is no regular file), {wanted}")
        return table
    try:
        # Spreadsheets write a byte order mark, which is not part of the first column's name.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        row = error.object.count(b"\n", 0, error.start) + 1
        table.problems.append(f"{path}, row {row}: found the byte 0x{error.object[error.start]:02x}, {wanted}")
        return table
    except OSError as error:
        table.problems.append(f"{path}: cannot be read ({error.strerror}), {wanted}")
        return table
    header = [name.strip() for name in lines[0].split("\t")]
    if len(header) == 1:
        table.problems.append(f"{path}, row 1: found {lines[0][:80]!r}, {wanted}")
        return table
    _check_header(table, header)
    if table.problems:
        return table
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) > len(header):
            table.problems.append(f"{path}, row {number}: found {len(cells)} cells, expected {len(header)}")
        # Editors strip tabs, and so empty cells, from the ends of lines.
        cells += [""] * (len(header) - len(cells))
        table.rows[number] = dict(zip(header, cells, strict=False))
        table.problems += problems(table.rows[number], schema_path, f"{path}, row {number}")
    if not table.rows and not table.problems:
        table.problems.append(f"{path}: found a header and no rows, expected at least one row")
    return table


def _check_header(table: _Table, header: list[str]) -> None:
    source, columns = f"{table.path}, row 1", table.columns
    misspelt = []
    for column in dict.fromkeys(header):
        if column not in columns:
            close = get_close_matches(column, columns, n=1)
            misspelt += close
            advice = f"did you mean {close[0]!r}?" if close else f"expected only {', '.join(columns)}"
            table.problems.append(f"{source}: unknown column {column!r}, {advice}")
        elif header.count(column) > 1:
            table.problems.append(f"{source}: found the column {column!r} {header.count(column)} times, expected it once")
    for column in columns:
        if column not in header and column not in misspelt:
            found = ", ".join(header)
            table.problems.append(f"{source}: missing column {column!r}, found {found}, expected {', '.join(columns)}")


def _check_images(images: _Table, data_root: str | Path, must_exist: bool) -> None:
    """Check the rows of images against each other, and that their files exist."""
    _refuse_repeated_names(images, "image")
    subjects: dict[str, tuple[int, str]] = {}
    files: dict[str, int] = {}
    for number, row in images.rows.items():
        path = os.path.normpath(os.path.join(data_root, row["path"]))
        if row["split"] in SPLITS:
            first, split = subjects.setdefault(row["subject"], (number, row["split"]))
            if row["split"] != split:
                found = f"{row['split']!r} for subject {row['subject']!r}"
                images.refuse(number, "split", found, f"{split!r} as in row {first}: a subject belongs to one split")
        if files.setdefault(path, number) != number:
            images.refuse(number, "path", repr(row["path"]), f"a file that is not the one in row {files[path]}")
        for name in ("path", "mask"):
            _refuse_missing(images, number, name, data_root, must_exist)
    for number, row in images.rows.items():
        mask = os.path.normpath(os.path.join(data_root, row["mask"]))
        if row["mask"] and mask in files:
            images.refuse(number, "mask", repr(row["mask"]), f"a mask, not the image in row {files[mask]}")
    # A misspelt split has its own line; it may be the one that seems to be missing.
    used = {row["split"] for row in images.rows.values()}
    if used and used <= set(SPLITS):
        for split in ("train", "validation"):
            if split not in used:
                images.problems.append(f"{images.path}: split: found no image with {split!r}, expected at least one")


def _check_pairs(pairs: _Table, images: _Table, data_root: str | Path, must_exist: bool) -> None:
    """Check the rows of pairs against each other and against the images, and that their files exist."""
    _refuse_repeated_names(pairs, "pair")
    splits = {row["image"]: row["split"] for row in images.rows.values()}
    first_rows: dict[tuple[str, str], int] = {}
    owners: dict[str, tuple[int, str]] = {}
    for number, row in pairs.rows.items():
        fixed, moving = row["fixed"], row["moving"]
        for name in ("fixed", "moving"):
            if row[name] and row[name] not in splits:
                pairs.refuse(number, name, repr(row[name]), f"the name of an image in {images.path}")
        if fixed == moving:
            pairs.refuse(number, "moving", repr(moving), "another image than fixed")
        elif first_rows.setdefault((fixed, moving), number) != number:
            both = f"{fixed!r} and {moving!r}"
            pairs.refuse(number, "fixed and moving", both, f"two images that are not those of row {first_rows[fixed, moving]}")
        if {splits.get(fixed), splits.get(moving)} <= set(SPLITS) and splits[fixed] != splits[moving]:
            found = f"{moving!r} of split {splits[moving]!r}"
            pairs.refuse(number, "moving", found, f"an image of split {splits[fixed]!r} as fixed, {fixed!r}")
        if bool(row["fixed_landmarks"]) != bool(row["moving_landmarks"]):
            given, missing = ("fixed", "moving") if row["fixed_landmarks"] else ("moving", "fixed")
            pairs.refuse(
                number,
                f"{missing}_landmarks",
                f"nothing, and {row[f'{given}_landmarks']!r} as {given}_landmarks",
                "landmarks of both images or of neither",
            )
        for name, image in (("fixed_landmarks", fixed), ("moving_landmarks", moving)):
            _refuse_missing(pairs, number, name, data_root, must_exist)
            if row[name]:
                # Several pairs of an image may share its landmarks.
                path = os.path.normpath(os.path.join(data_root, row[name]))
                first, owner = owners.setdefault(path, (number, image))
                if owner != image:
                    expected = f"another file: in row {first} these are the landmarks of {owner!r}"
                    pairs.refuse(number, name, f"{row[name]!r} for {image!r}", expected)
    used = {splits.get(row["fixed"]) for row in pairs.rows.values()}
    if used and used <= set(SPLITS) and "test" not in used:
        pairs.problems.append(f"{pairs.path}: fixed: found no pair of images of split 'test', expected at least one")


def _refuse_repeated_names(table: _Table, name: str) -> None:
    rows: dict[str, int] = {}
    for number, row in table.rows.items():
        first = rows.setdefault(row[name], number)
        if first != number:
            table.refuse(number, name, repr(row[name]), f"a name that is not the one in row {first}")


def _refuse_missing(table: _Table, number: int, name: str, data_root: str | Path, must_exist: bool) -> None:
    value = table.rows[number][name]
    path = os.path.join(data_root, value)
    # An image may be a folder of DICOM files. The schema refuses paths with spaces around them.
    exists = os.path.isfile(path) or (name == "path" and os.path.isdir(path))
    if must_exist and value and value == value.strip() and not exists:
        table.refuse(number, name, repr(value), f"a file, and there is none at {path}")


def _frame(table: _Table, data_root: str | Path, paths: tuple[str, str]) -> pd.DataFrame:
    """The rows as a frame, indexed by its first column, with paths joined to the data root."""
    frame = pd.DataFrame(table.rows.values(), columns=table.columns, dtype=str)
    for name in paths:
        frame[name] = [os.path.join(data_root, value) if value else "" for value in frame[name]]
    return frame.set_index(table.columns[0])
