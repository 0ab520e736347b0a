"""Cohorts for tests: tables as a user writes them, and cohorts without files."""

import pandas as pd

from regnet.experiment.cohort import Cohort

IMAGES = """\
image\tsubject\tsplit\tpath\tmask
a1\ta\ttrain\ta1.nii.gz\ta1_lungs.nii.gz
b1\tb\tvalidation\tb1.nii.gz\t
c1\tc\ttest\tc/c1.mha\t
c2\tc\ttest\tc/c2.mha\t
d1\td\ttest\td1.mha\t
"""

PAIRS = """\
pair\tfixed\tmoving\tfixed_landmarks\tmoving_landmarks
c\tc1\tc2\tc1.txt\tc2.txt
cd\tc1\td1\t\t
"""


def write_tables(folder, images=IMAGES, pairs=PAIRS):
    (folder / "images.tsv").write_text(images, encoding="utf-8")
    (folder / "pairs.tsv").write_text(pairs, encoding="utf-8")


CHAPTER_MM3 = 446 * 0.781 * 315 * 0.781 * 129 * 2.5
"""Volume of an image of the chapter's cohort."""


def cohort_of(tested, trained=1, validated=1):
    """A cohort with these numbers of subjects in the splits, each subject with two images."""
    counts = {"train": trained, "validation": validated, "test": tested}
    subjects = [f"{split}{number}" for split, count in counts.items() for number in range(count)]
    names = [f"{subject}_{scan}" for subject in subjects for scan in "ab"]
    splits = [name.split("_")[0].rstrip("0123456789") for name in names]
    images = pd.DataFrame({"subject": [name[:-2] for name in names], "split": splits, "path": "", "mask": ""}, index=names)
    pairs = pd.DataFrame({"fixed": names[::2], "moving": names[1::2], "split": splits[::2], "fixed_landmarks": "x"})
    return Cohort(images, pairs.set_axis(subjects))
