"""The pages of the report: their content, and that data stay text."""

import re

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from regnet.errors import InputError
from regnet.experiment.cohort import Cohort
from regnet.presentation import report
from regnet.presentation.report import cohort_page, config_page, run_times, run_times_page, versions_page, write_page
from regnet.system.machine import PACKAGES, versions

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def benchmark(folder, name, seconds, memory="2048.00"):
    path = folder / "benchmarks" / f"{name}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}{seconds}\t0:00:01\t{memory}\t1\t1\t1\t1\t1\t1\t{2 * seconds}\n", encoding="utf-8")
    return path


def test_run_times_are_summed_over_the_jobs_of_a_step(tmp_path):
    names = ["synthesize/a", "synthesize/b", "train/regnet", "train/regnet_early", "register/affine/p", "register/regnet/p"]
    table = run_times([benchmark(tmp_path, name, 10 * (number + 1)) for number, name in enumerate(names)])
    steps = ["synthesize", "train regnet", "train regnet_early", "register affine", "register regnet"]
    assert list(table["step"]) == steps
    assert list(table["jobs"]) == [2, 1, 1, 1, 1]
    first = table.iloc[0]
    assert (first["seconds_mean"], first["seconds_max"], first["seconds_total"], first["cpu_seconds_total"]) == (15, 20, 30, 60)
    page = run_times_page(table.assign(seconds_total=[30, 61, 3600, 7260, 59.96]))
    for text in ("30.0 s", "1 min 01 s", "1 h 00 min", "2 h 01 min", "2.0 GiB"):
        assert text in page


def test_a_job_too_short_to_be_measured_has_no_memory(tmp_path):
    table = run_times([benchmark(tmp_path, "synthesize/a", 0, memory="-")])
    assert np.isnan(table["memory_mib_max"][0])
    assert "nan" not in run_times_page(table)


def test_a_file_that_is_no_benchmark_is_refused(tmp_path):
    path = benchmark(tmp_path, "synthesize/a", 1)
    path.write_text("time\n3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.tsv: cannot be read .*expected a benchmark file"):
        run_times([path])


def test_a_page_is_one_file_in_which_data_are_text(tmp_path):
    body = config_page({"experiment": "<script>", "training": {"batch": 8}})
    write_page(tmp_path / "page.html", "Config <of> a run", f"{body}\n\n| a | b |\n| --- | --- |\n| 1 | x<br>y |\n")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>Config &lt;of&gt; a run</title>" in page
    assert "experiment: &lt;script&gt;" in page
    assert "<td>x<br>y</td>" in page
    assert not re.search(r"\b(src|href)=", page)


def test_the_versions_page_names_everything_results_depend_on():
    by_name = versions()
    page = versions_page(by_name)
    for name in ("regnet", "Python", *PACKAGES, "processor"):
        assert by_name[name]
        assert f"<td>{name}</td>" in page


def test_the_cohort_has_a_picture_and_the_lungs_of_each_image(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "THUMBNAILS", 1)
    ct = np.full((10, 12, 14), 40, np.int16)
    ct[2:8, 3:9, 3:11] = -800
    image = sitk.GetImageFromArray(ct)
    image.SetSpacing((2.0, 2.0, 5.0))
    for name, volume in (("image", image), ("mask", image < -500)):
        sitk.WriteImage(volume, tmp_path / f"{name}.nii.gz")
    images = pd.DataFrame({"subject": ["s<1>", "s2"], "split": ["train", "test"], "path": [str(tmp_path / "image.nii.gz")] * 2})
    pairs = pd.DataFrame({"fixed": ["a"], "moving": ["b"], "split": ["test"], "fixed_landmarks": [""]})
    cohort = Cohort(images.set_axis(["a", "b"]).rename_axis("image"), pairs.set_axis(["p"]).rename_axis("pair"))
    page = cohort_page(cohort, [tmp_path / "image.nii.gz"] * 2, [tmp_path / "mask.nii.gz"] * 2)
    assert page.count("<img ") == 1
    assert "2 images of 2 subjects: 1 for train, 1 for test" in page
    assert "<td>14 x 12 x 10</td><td>2 x 2 x 5</td><td>0.01</td>" in page
    assert "s&lt;1&gt;" in page
    assert "<tr><td>p</td><td>a</td><td>b</td><td>test</td><td>none</td></tr>" in page
