"""Tables of cohorts: the shipped ones, and the message for each kind of mistake."""

import os
import time
from pathlib import Path

import pytest
from made_cohorts import IMAGES, PAIRS, write_tables

from regnet.errors import InputError
from regnet.experiment.cohort import read_cohort

COHORTS = sorted(path.parent for path in (Path(__file__).parents[2] / "config" / "cohorts").glob("*/images.tsv"))

FILES = ("a1.nii.gz", "a1_lungs.nii.gz", "b1.nii.gz", "c/c1.mha", "c/c2.mha", "d1.mha", "c1.txt", "c2.txt", "x.nii.gz")


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    write_tables(tmp_path)
    return tmp_path


def lines_of(folder, **options):
    """The lines of the error, with paths relative to the folder."""
    with pytest.raises(InputError) as caught:
        read_cohort(folder, folder / "data", **options)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_cohort(folder):
    cohort = read_cohort(folder, folder / "data")
    assert cohort.images.index.name == "image"
    assert list(cohort.images.columns) == ["subject", "split", "path", "mask"]
    assert cohort.images.loc["c1"].tolist() == ["c", "test", f"{folder}/data/c/c1.mha", ""]
    assert cohort.images.loc["a1", "mask"] == f"{folder}/data/a1_lungs.nii.gz"
    assert list(cohort.pairs.columns) == ["fixed", "moving", "fixed_landmarks", "moving_landmarks", "split", "subject"]
    assert cohort.pairs.loc["c"].tolist() == ["c1", "c2", f"{folder}/data/c1.txt", f"{folder}/data/c2.txt", "test", "c"]
    assert cohort.pairs.loc["cd", "moving_landmarks"] == ""
    assert cohort.images_of("test") == ["c1", "c2", "d1"]
    assert cohort.test_pairs() == ["c", "cd"]
    assert cohort.pairs_with_landmarks() == ["c"]


@pytest.mark.parametrize("cohort", COHORTS, ids=lambda path: path.name)
def test_shipped_cohorts(cohort):
    tables = read_cohort(cohort, "data", made_by_workflow=True)
    assert tables.images_of("train")
    assert tables.pairs_with_landmarks() == tables.test_pairs() != []
    assert set(tables.pairs["split"]) <= {"train", "validation", "test"}


def test_absolute_paths_are_kept(folder):
    write_tables(folder, IMAGES.replace("a1.nii.gz", f"{folder}/data/x.nii.gz"))
    assert read_cohort(folder, folder / "data").images.loc["a1", "path"] == f"{folder}/data/x.nii.gz"


def test_tables_saved_by_spreadsheets_and_editors_are_read(folder):
    text = "\ufeff" + "\n".join(line.rstrip() for line in IMAGES.splitlines()) + "\n\n"
    (folder / "images.tsv").write_bytes(text.replace("\n", "\r\n").encode())
    assert read_cohort(folder, folder / "data").images.loc["d1", "mask"] == ""


def test_names_that_look_like_numbers_or_missing_values_are_text(folder):
    write_tables(folder, IMAGES.replace("b1\tb\t", "007\tNA\t").replace("b1.nii.gz", "x.nii.gz"))
    assert read_cohort(folder, folder / "data").images.loc["007", "subject"] == "NA"


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (("subject", "subjct"), "images.tsv, row 1: unknown column 'subjct', did you mean 'subject'?"),
        (("\tmask", ""), "images.tsv, row 1: missing column 'mask', found image, subject, split, path, expected image, "),
        (("\tmask", "\tmask\tsex"), "images.tsv, row 1: unknown column 'sex', expected only image, subject, split, path, mask"),
        (("\tmask", "\tmask\tmask"), "images.tsv, row 1: found the column 'mask' 2 times, expected it once"),
        (
            ("\t", ","),
            "images.tsv, row 1: found 'image,subject,split,path,mask', expected a tab-separated table (UTF-8) with the ",
        ),
        (("b1.nii.gz\t", "b1.nii.gz\t\tx"), "images.tsv, row 3: found 6 cells, expected 5"),
        (
            ("b1\tb\tvalidation", "a1\tb\tvalidation"),
            "images.tsv, row 3: image: found 'a1', expected a name that is not the one in row 2",
        ),
        (
            ("b1\tb\t", "../b\tb\t"),
            "images.tsv, row 3: image: found the text '../b', expected a name of letters, digits, _ . - that ",
        ),
        (
            ("b1\tb\t", ".b\tb\t"),
            "images.tsv, row 3: image: found the text '.b', expected a name of letters, digits, _ . - that ",
        ),
        (
            ("b1\tb\t", "-b\tb\t"),
            "images.tsv, row 3: image: found the text '-b', expected a name of letters, digits, _ . - that ",
        ),
        (("b1\tb\t", "b1\tb b\t"), "images.tsv, row 3: subject: found the text 'b b', expected a name of letters, digits"),
        (("b1\tb\t", "b1\t\t"), "images.tsv, row 3: subject: found the text '', expected a name of letters, digits"),
        (
            ("b1\tb\t", "a1_mask\tb\t"),
            "images.tsv, row 3: image: found the text 'a1_mask', expected a name of letters, digits, _ . - that ",
        ),
        (("validation", "val"), "images.tsv, row 3: split: found the text 'val', expected one of train, validation, test"),
        (
            ("b1.nii.gz", ""),
            "images.tsv, row 3: path: found the text '', expected the path of a file, without spaces around it",
        ),
        (
            ("b1.nii.gz", "b1.nii.gz "),
            "images.tsv, row 3: path: found the text 'b1.nii.gz ', expected the path of a file, without ",
        ),
        (
            ("b1.nii.gz", "b.nii.gz"),
            "images.tsv, row 3: path: found 'b.nii.gz', expected a file, and there is none at data/b.nii.gz",
        ),
        (
            ("a1_lungs", "lungs"),
            "images.tsv, row 2: mask: found 'lungs.nii.gz', expected a file, and there is none at data/lungs.nii",
        ),
        (("a1_lungs", "b1"), "images.tsv, row 2: mask: found 'b1.nii.gz', expected a mask, not the image in row 3"),
        (
            ("b1.nii.gz", "c/../a1.nii.gz"),
            "images.tsv, row 3: path: found 'c/../a1.nii.gz', expected a file that is not the one in ",
        ),
        (
            ("d1\td\ttest", "d1\ta\ttest"),
            "images.tsv, row 6: split: found 'test' for subject 'a', expected 'train' as in row 2: a subject belongs to one",
        ),
        (("validation", "train"), "images.tsv: split: found no image with 'validation', expected at least one"),
        (("train", "validation"), "images.tsv: split: found no image with 'train', expected at least one"),
    ],
)
def test_mistakes_in_images(folder, images, line):
    write_tables(folder, IMAGES.replace(*images))
    lines = lines_of(folder)
    assert len([each for each in lines if each.startswith("images.tsv")]) == 1
    assert lines[0].startswith(line), lines


@pytest.mark.parametrize(
    ("pairs", "line"),
    [
        (("moving\tfixed", "moveing\tfixed"), "pairs.tsv, row 1: unknown column 'moveing', did you mean 'moving'?"),
        (("cd\tc1", "c\tc1"), "pairs.tsv, row 3: pair: found 'c', expected a name that is not the one in row 2"),
        (
            ("cd\tc1", "c d\tc1"),
            "pairs.tsv, row 3: pair: found the text 'c d', expected a name of letters, digits, _ . - that starts ",
        ),
        (("c1\td1", "c1\td2"), "pairs.tsv, row 3: moving: found 'd2', expected the name of an image in images.tsv"),
        (("c1\td1", "\td1"), "pairs.tsv, row 3: fixed: found the text '', expected the name of an image"),
        (("c1\td1", "c1\tc1"), "pairs.tsv, row 3: moving: found 'c1', expected another image than fixed"),
        (
            ("c1\td1", "c1\tc2"),
            "pairs.tsv, row 3: fixed and moving: found 'c1' and 'c2', expected two images that are not those of row 2",
        ),
        (
            ("c1\td1", "c1\ta1"),
            "pairs.tsv, row 3: moving: found 'a1' of split 'train', expected an image of split 'test' as fixed, 'c1'",
        ),
        (
            ("c2.txt", ""),
            "pairs.tsv, row 2: moving_landmarks: found nothing, and 'c1.txt' as fixed_landmarks, expected landmarks of both",
        ),
        (
            ("c1.txt", ""),
            "pairs.tsv, row 2: fixed_landmarks: found nothing, and 'c2.txt' as moving_landmarks, expected landmarks of",
        ),
        (
            ("c2.txt", "c1.txt"),
            "pairs.tsv, row 2: moving_landmarks: found 'c1.txt' for 'c2', expected another file: in row 2 these ",
        ),
        (
            ("c2.txt", "c3.txt"),
            "pairs.tsv, row 2: moving_landmarks: found 'c3.txt', expected a file, and there is none at data/c3.txt",
        ),
    ],
)
def test_mistakes_in_pairs(folder, pairs, line):
    write_tables(folder, pairs=PAIRS.replace(*pairs))
    lines = lines_of(folder)
    assert len(lines) == 1
    assert lines[0].startswith(line), lines


def test_no_test_pairs(folder):
    images = IMAGES.replace("validation\tb1", "train\tb1") + "e1\te\tvalidation\tx.nii.gz\t\n"
    write_tables(folder, images, PAIRS.splitlines()[0] + "\nab\ta1\tb1\t\t\n")
    assert lines_of(folder) == ["pairs.tsv: fixed: found no pair of images of split 'test', expected at least one"]


def test_empty_tables(folder):
    write_tables(folder, pairs=PAIRS.splitlines()[0] + "\n")
    assert lines_of(folder) == ["pairs.tsv: found a header and no rows, expected at least one row"]
    write_tables(folder, pairs="")
    assert lines_of(folder)[0].startswith(
        "pairs.tsv, row 1: found '', expected a tab-separated table (UTF-8) with the columns pair"
    )
    write_tables(folder, images=IMAGES.splitlines()[0])
    assert lines_of(folder) == ["images.tsv: found a header and no rows, expected at least one row"]


def test_unreadable_tables(folder):
    (folder / "images.tsv").write_bytes(IMAGES.replace("c1.mha", "café.mha").encode("latin-1"))
    (folder / "pairs.tsv").unlink()
    first, second = lines_of(folder)
    assert first.startswith(
        "images.tsv, row 4: found the byte 0xe9, expected a tab-separated table (UTF-8) with the columns image,"
    )
    assert second.startswith("pairs.tsv: cannot be read (No such file or directory), expected a tab-separated table (UTF-8)")


def test_a_missing_data_root_is_one_line(folder):
    os.rename(folder / "data", folder / "elsewhere")
    assert lines_of(folder) == ["data_root: found 'data', which is no folder, expected the folder of the images"]
    read_cohort(folder, folder / "data", made_by_workflow=True)


def test_all_problems_are_listed(folder):
    images = IMAGES.replace("validation", "val").replace("d1.mha", "d2.mha")
    write_tables(folder, images, PAIRS.replace("c1\td1", "c1\te1"))
    lines = lines_of(folder)
    assert [line.partition(": ")[0] for line in lines] == ["images.tsv, row 3", "images.tsv, row 6", "pairs.tsv, row 3"]


def test_landmarks_may_be_shared_by_pairs_of_the_same_image(folder):
    write_tables(folder, pairs=PAIRS.replace("cd\tc1\td1\t\t", "cd\tc1\td1\tc1.txt\tx.nii.gz"))
    assert read_cohort(folder, folder / "data").pairs_with_landmarks() == ["c", "cd"]


def test_a_thousand_pairs_are_read_quickly(tmp_path):
    images, pairs = [IMAGES.splitlines()[0]], [PAIRS.splitlines()[0]]
    for number in range(1000):
        split = ("train", "validation", "test")[number % 3]
        images += (f"s{number}{side}\ts{number}\t{split}\ts{number}{side}.nii.gz\t" for side in "fm")
        pairs.append(f"s{number}\ts{number}f\ts{number}m\ts{number}f.txt\ts{number}m.txt")
    write_tables(tmp_path, "\n".join(images), "\n".join(pairs))
    started = time.process_time()
    assert len(read_cohort(tmp_path, "data", made_by_workflow=True).pairs) == 1000
    assert time.process_time() - started < 2
