"""Public data sets: their files, their landmarks and the distances of these before any registration.

Nothing here reads a file: `regnet.datasets.adapters` turns a folder into a cohort according to these descriptions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SETTINGS = {
    "resampling": {"spacing": 1.0},
    "patches": {"per_pair": 800},
    "regnet": {"spacing": 2.0},
    "training": {
        "variants": ["regnet"],
        "epochs": 15,
        "steps_per_epoch": 200,
        "freeze_after": 600,
        "warmup": {"steps": 150},
    },
    "evaluation": {"capture_range": 8},
}
"""The config of a set, but for what its description replaces: baselines at 1 mm, a network that two CPU cores can train."""


@dataclass(frozen=True)
class Files:
    """The files of the fixed, or of the moving, scans of a set.

    Each is a regular expression for the end of a path in the downloaded folder, from the start of a name; upper and lower case
    are equal. The group ``case`` is the number or name of the pair; without it there is one pair, 01.
    """

    image: str
    landmarks: str = ""
    mask: str = ""


@dataclass(frozen=True)
class Download:
    """Files that are fetched from an address of a fixed commit and verified.

    Attributes
    ----------
    url
        The address of their folder.
    blobs
        The git blob id of each file.
    """

    url: str
    blobs: Mapping[str, str]


@dataclass(frozen=True)
class DataSet:
    """A public set of pairs.

    Attributes
    ----------
    title, access
        Name of the set; its source and terms of use.
    fixed, moving
        Its files; both are None for a list of the user's own files.
    raw
        Size in voxels and spacing in mm, x, y, z, of each case of images without a header: int16, little-endian, x fastest, the
        topmost slice first, air 0 (HU + 1024).
    expected
        Published or recomputed mean distance of the landmarks of each case before registration, in mm.
    test
        The cases to test on, as far as they exist; if empty, the last cases in the proportions of the chapter.
    notes
        What a user has to know about the set: which scan is fixed, and what the landmarks are.
    download
        The files to fetch if no folder is given.
    settings
        Sections of the config that replace those of `SETTINGS`.
    """

    title: str
    access: str
    fixed: Files | None
    moving: Files | None
    notes: str
    raw: Mapping[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = field(default_factory=dict)
    expected: Mapping[str, float] = field(default_factory=dict)
    test: tuple[str, ...] = ()
    download: Download | None = None
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


def _raw(size: int, slices: str, spacing: str) -> dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]]:
    """Sizes and spacings of cases whose slices are 2.5 mm apart; `size` of one slice in voxels."""
    return {
        f"{case:02d}": ((size, size, int(count)), (float(side), float(side), 2.5))
        for case, (count, side) in enumerate(zip(slices.split(), spacing.split(), strict=True), start=1)
    }


def _expected(distances: str) -> dict[str, float]:
    return {f"{case:02d}": float(distance) for case, distance in enumerate(distances.split(), start=1)}


def _dirlab_4dct(phase: str) -> Files:
    return Files(
        image=rf"case(?P<case>\d+)_T{phase}[^/]*\.img", landmarks=rf"case(?P<case>\d+)_(?:dirlab)?300_T{phase}_xyz\.txt"
    )


def _dirlab_copd(breath: str) -> Files:
    return Files(image=rf"copd(?P<case>\d+)_{breath}BHCT\.img", landmarks=rf"copd(?P<case>\d+)_300_{breath}BH_xyz_r1\.txt")


def _learn2reg(name: str, scan: str, landmarks: str) -> Files:
    scan = rf"{name}_(?P<case>\d+)_{scan}"
    return Files(rf"images(?:Tr|Ts)/{scan}\.nii\.gz", rf"{landmarks}(?:Tr|Ts)/{scan}\.csv", rf"masks(?:Tr|Ts)/{scan}\.nii\.gz")


def _learn2reg_2020(breath: str) -> Files:
    return Files(
        image=rf"scans/case_(?P<case>\d+)_{breath}\.nii\.gz",
        landmarks=r"keypoints/case_(?P<case>\d+)\.csv",
        mask=rf"lungMasks/case_(?P<case>\d+)_{breath}\.nii\.gz",
    )


def _empire10(side: str) -> Files:
    return Files(image=rf"scans(?:_v2)?/(?P<case>\d+)_{side}\.mhd", mask=rf"lungMasks(?:_v2)?/(?P<case>\d+)_{side}\.mhd")


_THREE_PASSES = {"regnet": {"spacing": 2.0, "passes": 3}}

DATASETS = {
    "dirlab_4dct": DataSet(
        title="DIR-Lab 4DCT",
        access="On request from https://med.emory.edu (Deformable Image Registration Laboratory); no redistribution.",
        fixed=_dirlab_4dct("00"),
        moving=_dirlab_4dct("50"),
        notes="Fixed is end inhale (T00), moving end exhale (T50). 300 landmarks per pair, placed by experts.",
        raw={
            **_raw(256, "94 112 104 99 106", "0.97 1.16 1.15 1.13 1.10"),
            **{f"{case:02d}": ((512, 512, 128), (0.97, 0.97, 2.5)) for case in (6, 8, 9)},
            "07": ((512, 512, 136), (0.97, 0.97, 2.5)),
            "10": ((512, 512, 120), (0.97, 0.97, 2.5)),
        },
        expected=_expected("3.89 4.34 6.94 9.83 7.48 10.89 11.03 14.99 7.92 7.30"),
    ),
    "dirlab_copd": DataSet(
        title="DIR-Lab COPDgene",
        access="On request from https://med.emory.edu (Deformable Image Registration Laboratory); no redistribution.",
        fixed=_dirlab_copd("i"),
        moving=_dirlab_copd("e"),
        notes="Fixed is inhale, moving exhale. 300 landmarks per pair, placed by experts. Case 9 has 0.664 mm, not 0.644. "
        "Displacements are several times the capture range: RegNet takes three passes.",
        raw=_raw(
            512,
            "121 102 126 126 131 119 112 115 116 135",
            "0.625 0.644531 0.652344 0.589844 0.646484 0.632812 0.625 0.585938 0.664062 0.742188",
        ),
        expected=_expected("26.33 21.79 12.64 29.58 30.08 28.46 21.60 26.46 14.86 21.81"),
        settings=_THREE_PASSES,
    ),
    "learn2reg_lungct": DataSet(
        title="Learn2Reg LungCT",
        access="The Learn2Reg challenge (LungCT.zip); CC BY 4.0, doi 10.5281/zenodo.3835682.",
        fixed=_learn2reg("(?:LungCT|LungCT_CT)", "0000", "landmarks"),
        moving=_learn2reg("(?:LungCT|LungCT_CT)", "0001", "landmarks"),
        notes="Fixed is exhale, moving inhale. Landmarks of the first three cases are public, and those are the test.",
        expected=_expected("20.18 15.60 8.14"),
        test=("01", "02", "03"),
        settings=_THREE_PASSES,
    ),
    "learn2reg_lungct_2020": DataSet(
        title="Learn2Reg LungCT, layout of 2020",
        access="https://zenodo.org/record/3835682 (training.zip); CC BY 4.0.",
        fixed=_learn2reg_2020("exp"),
        moving=_learn2reg_2020("insp"),
        notes="Fixed is exhale, moving inhale. The points are keypoints that a program found: no manual landmarks.",
        settings=_THREE_PASSES,
    ),
    "learn2reg_nlst": DataSet(
        title="Learn2Reg NLST",
        access="https://cloud.imi.uni-luebeck.de/s/pERQBNyEFNLY8gR/download/NLST2023.zip; cite doi 10.7937/TCIA.HMQ8-J677.",
        fixed=_learn2reg("NLST", "0000", "keypoints"),
        moving=_learn2reg("NLST", "0001", "keypoints"),
        notes="Fixed is the baseline scan, moving the follow-up scan, already affinely aligned. The points are keypoints "
        "that a program found: no manual landmarks. The images have 1.5 mm.",
        test=tuple(str(case) for case in range(101, 111)),
        settings={"resampling": {"spacing": 1.5}, "patches": {"per_pair": 100}},
    ),
    "popi": DataSet(
        title="POPI-model",
        access="http://tux.creatis.insa-lyon.fr/~srit/POPI; free for research, cite Vandemeulebroucke et al. (2007).",
        fixed=Files(r"10-P\.mhd", r"10-Landmarks\.pts"),
        moving=Files(r"60-P\.mhd", r"60-Landmarks\.pts"),
        notes="One patient: needs --training. Fixed is phase 10, end inhale; moving is phase 60. The landmarks are in mm in "
        "the frame of the MetaImage files, not of the DICOM files.",
    ),
    "popi_extended": DataSet(
        title="Extended POPI-model",
        access="CREATIS, Lyon; free for research, cite Vandemeulebroucke et al.",
        fixed=Files(r"(?P<case>[^/]+)/mhd/00\.mhd", r"(?P<case>[^/]+)/pts/00\.pts"),
        moving=Files(r"(?P<case>[^/]+)/mhd/50\.mhd", r"(?P<case>[^/]+)/pts/50\.pts"),
        notes="Fixed is phase 00, moving phase 50. A case is a patient's folder.",
    ),
    "empire10": DataSet(
        title="EMPIRE10",
        access="https://empire10.grand-challenge.org, after accepting its rules; no redistribution.",
        fixed=_empire10("Fixed"),
        moving=_empire10("Moving"),
        notes="No public landmarks: the pairs are registered, and the organisers measure submitted fields.",
    ),
    "spread": DataSet(
        title="SPREAD",
        access="Private: the data of the chapter.",
        fixed=Files(r"(?P<case>[^/]{4})[^/]*/baseline_1\.mhd", r"(?P<case>[^/]{4})[^/]*_baseline_1_Cropped_point\.txt"),
        moving=Files(r"(?P<case>[^/]{4})[^/]*/followup_1\.mhd", r"Consensus/(?P<case>[^/]{4})[^/]*_b1f1_point\.txt"),
        notes="Fixed is the baseline scan, moving the follow-up scan; 100 landmarks per pair. A case is the first four "
        "characters of a patient's name. config/chapter.yaml and config/spread.yaml have the chapter's settings, for a GPU.",
    ),
    "lung_followup": DataSet(
        title="Lung follow-up pair",
        access="https://github.com/InsightSoftwareConsortium/ITKElastix, examples/data; Apache-2.0.",
        fixed=Files(r"CT_3D_lung_fixed\.mha", r"CT_3D_lung_fixed_point_set_corrected\.txt"),
        moving=Files(r"CT_3D_lung_moving\.mha", r"CT_3D_lung_moving_point_set_corrected\.txt"),
        notes="One patient, the right lung: needs --training. Fixed is the baseline scan, moving the follow-up scan; 51 "
        "landmarks. The fields of view differ by about 32 mm along z, hence the distance before registration. Registered with "
        "released weights.",
        expected=_expected("35.27"),
        download=Download(
            "https://raw.githubusercontent.com/InsightSoftwareConsortium/ITKElastix/2f5987fe79dd9d76359eab1479b383a3bb7b8a8f/"
            "examples/data",
            {
                "CT_3D_lung_fixed.mha": "689abc699fb782c18df92af921c83a4470032f27",
                "CT_3D_lung_moving.mha": "69a58c5e0bb900d344be12f2a05eb49f00acd832",
                "CT_3D_lung_fixed_point_set_corrected.txt": "cd93352d24b85bc1c120f6ae53bfc7fff03924a9",
                "CT_3D_lung_moving_point_set_corrected.txt": "d20992204e0c52122c3e11f91082224a7b955ebe",
            },
        ),
        settings={
            "regnet": {"spacing": 2.0, "stages": [4, 2], "passes": 2, "mirrors": 4, "smoothing": 6},
            "training": {"mode": "released", "weights": "{variant}_2mm", "variants": ["regnet"]},
            "methods": {
                "regnet_pyramid": {"module": "pyramid", "weights": "regnet_pyramid", "spacings": [2, 1], "smoothing": 4}
            },
        },
    ),
    "folder": DataSet(
        title="A list of files",
        access="Your own.",
        fixed=None,
        moving=None,
        notes="The pairs of a list: a file of two columns, or the file pairs.csv in a folder.",
    ),
}
"""The sets by the names of the command line."""
