"""The workflow as users run it: end to end at a reduced size, again with nothing to do, and refusing bad configs."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from browser import needs_chromium, opened

from regnet.inference import load_network, save_network
from regnet.tables import COLUMNS
from regnet.transforms import read_transform

ROOT = Path(__file__).parents[2]
SNAKEMAKE = [sys.executable, "-m", "snakemake"]


def snakemake(folder, *arguments, config=("config/test.yaml",)):
    command = [*SNAKEMAKE, "--resources", "gpu=0", "--configfile", *config, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")


def copy_of_the_workflow(folder):
    for name in ("workflow", "config", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which the test config has been run with two cores."""
    folder = copy_of_the_workflow(tmp_path_factory.mktemp("run"))
    process = snakemake(folder, "--cores", "2")
    assert process.returncode == 0, process.stderr[-5000:]
    return folder


def test_the_run_leaves_the_table_and_all_figures(run):
    results = run / "results" / "test"
    table = pd.read_csv(results / "tables" / "table_2_1.csv")
    assert list(table.columns) == list(COLUMNS)
    assert list(table["evaluation"]) == ["MAE"] * 4 + ["TRE"] * 4 + ["TRE'"] * 4
    assert (table["n"][:8] > 0).all()
    for figure in ("figure_2_2", "figure_2_3", "figure_2_4", "figure_2_5", "training_regnet", "training_regnet_early"):
        assert (results / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / "figures" / f"{figure}.pdf").read_bytes().startswith(b"%PDF")
    assert 3e6 < (results / "viewers" / "test1.html").stat().st_size < 15e6


def test_every_log_that_a_rule_declares_is_written(run):
    logs = run / "results" / "test" / "logs"
    assert (logs / "train" / "regnet.log").read_text(encoding="utf-8").count("validation MAE") == 2
    assert list((logs / "tensorboard" / "regnet").glob("events.out.tfevents.*"))
    assert not list((run / "results" / "test" / "checkpoints").iterdir())
    assert (logs / "register" / "affine" / "test1.tool.log").stat().st_size > 0
    assert {path.name for path in logs.iterdir()} >= {"phantom", "resample", "synthesize", "table_2_1.log", "figure_2_3.log"}


@pytest.fixture(scope="module")
def report(run):
    """The report of the run, where `make report` writes it."""
    path = run / "results" / "test" / "report.html"
    process = snakemake(run, "--cores", "1", "--report", str(path))
    assert process.returncode == 0, process.stderr[-3000:]
    return path


def test_the_report_tells_the_run_in_order(report):
    text = report.read_text(encoding="utf-8")
    assert "Docutils System Messages" not in text
    (categories,) = re.findall(r"var categories = (\{.*\});", text)
    names = ["1 Data", "2 Synthesis", "3 Training", "4 Registration", "5 Tables", "6 Figures", "7 Run"]
    assert sorted(json.loads(categories)) == names
    (results,) = re.findall(r"var results = (\{.*\});", text)
    results = json.loads(results)
    assert all(result["labels"] and len(result["caption"]) > 100 for result in results.values())
    labels = {" ".join(result["labels"].values()) for result in results.values()}
    assert labels >= {"Images and pairs", "Table 2.1", "test1", "Training of regnet_early", "Run times", "Versions", "Config"}


def test_the_report_knows_how_long_the_jobs_of_each_step_took(run):
    times = pd.read_csv(run / "results" / "test" / "report" / "run_times.csv").set_index("step")
    assert times.loc["synthesize", "jobs"] == 6
    assert times.loc["register regnet", "seconds_mean"] > 0
    assert (times["seconds_total"] > 0).all()


@needs_chromium
def test_the_report_opens_offline_and_leads_to_the_viewers(report):
    with opened(report) as page:
        page.wait_for("document.querySelector('#app a[href^=viewers]') !== null")
        assert "RegNet (Sokooti et al., MICCAI 2017)" in page.run("document.querySelector('#app').textContent")
        page.run("app.showCategory('5 Tables')")
        page.wait_for("document.querySelector('#app').textContent.includes('Table 2.1')")
        assert [text for text in page.messages() if "tailwindcss" not in text] == []
        assert page.requests() == []
        page.run("document.querySelector('#app a[href^=viewers]').click()")
        page.wait_for("document.body.dataset.ready === 'true'")
        assert page.run("document.title") == "test1 - test"


def test_a_second_run_has_nothing_to_do(run):
    process = snakemake(run, "--cores", "2")
    assert process.returncode == 0
    assert "Nothing to be done" in process.stderr


def test_released_weights_are_used_and_nothing_is_trained(run, tmp_path):
    """The test's own weights in the place of released ones; coarse to fine, with those of a spacing that nothing else uses."""
    folder = tmp_path / "released"
    shutil.copytree(run, folder)
    models = folder / "results" / "test" / "models"
    network, facts = load_network(models / "regnet" / "model.safetensors")
    save_network(network, folder / "coarse_3mm.safetensors", **{**facts, "spacing": 3.0})
    overlay = {
        "experiment": "released",
        "training": {"mode": "released", "weights": "results/test/models/{variant}/model.safetensors"},
        "regnet": {"stages": [3, 1.75], "stage_weights": "coarse_{spacing}mm.safetensors"},
    }
    (folder / "released.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    config = ["config/test.yaml", "released.yaml"]
    everything = snakemake(folder, "--cores", "2", "--dry-run", config=config)
    assert everything.returncode == 0, everything.stderr
    assert "rule train:" not in everything.stdout
    assert "synthetic/train1" not in everything.stdout
    results = folder / "results" / "released"
    process = snakemake(
        folder, "--cores", "2", f"{results.relative_to(folder)}/registrations/regnet/test1/transform.h5", config=config
    )
    assert process.returncode == 0, process.stderr[-3000:]
    given = (models / "regnet" / "model.safetensors").read_bytes()
    assert (results / "models" / "regnet" / "model.safetensors").read_bytes() == given
    composite = read_transform(results / "registrations" / "regnet" / "test1" / "transform.h5")
    parts = [composite.GetNthTransform(number).GetName() for number in range(composite.GetNumberOfTransforms())]
    assert parts == ["AffineTransform", "DisplacementFieldTransform", "DisplacementFieldTransform"]
    log = (results / "logs" / "register" / "regnet" / "test1.log").read_text(encoding="utf-8")
    assert log.index("stage 1 of 2: 3 mm") < log.index("stage 2 of 2: 1.75 mm")


def test_figures_need_only_the_evaluation(run, tmp_path):
    folder = tmp_path / "figures"
    shutil.copytree(run, folder)
    for name in ("registrations", "figures", "images"):
        shutil.rmtree(folder / "results" / "test" / name)
    process = snakemake(folder, "--cores", "2", "figures")
    assert process.returncode == 0, process.stderr[-3000:]
    assert (folder / "results" / "test" / "figures" / "figure_2_4.pdf").exists()
    assert not (folder / "results" / "test" / "registrations").exists()


def test_the_same_seed_gives_identical_tables_with_one_core_too(run, tmp_path):
    """Jobs draw from seeds of their own, so neither their order nor their number changes a result.

    The number of threads of elastix and of torch does; here both are 1 in both runs.
    """
    folder = copy_of_the_workflow(tmp_path)
    process = snakemake(folder, "--cores", "1")
    assert process.returncode == 0, process.stderr[-3000:]
    for name in ("tables/table_2_1.csv", "evaluation/landmarks.csv", "evaluation/synthetic.csv"):
        assert (folder / "results" / "test" / name).read_bytes() == (run / "results" / "test" / name).read_bytes(), name


def test_a_changed_module_reruns_what_uses_it_and_nothing_else(run, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(run, folder)
    with open(folder / "workflow" / "scripts" / "regnet" / "figures.py", "a", encoding="utf-8") as module:
        module.write("# changed\n")
    process = snakemake(folder, "--cores", "2", "--dry-run")
    assert process.returncode == 0
    assert "figure_2_3" in process.stdout
    for rule in ("table_2_1", "train", "register", "phantom"):
        assert f"rule {rule}:" not in process.stdout


BAD_CONFIGS = {
    "a misspelt key": ({"trainign": {}}, "trainign"),
    "a number read as text": ({"training": {"learning_rate": "1e-4"}}, "training.learning_rate"),
    "a missing cohort": ({"cohort": "config/cohorts/nowhere"}, "config/cohorts/nowhere/images.tsv"),
    "a missing data root": ({"phantom": None, "data_root": "nowhere"}, "data_root: found 'nowhere'"),
    "missing images": ({"phantom": None, "data_root": "config"}, "config/train1_baseline.nii.gz"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_config_is_refused_before_any_job(case, tmp_path):
    change, named = BAD_CONFIGS[case]
    folder = copy_of_the_workflow(tmp_path)
    (folder / "bad.yaml").write_text(yaml.safe_dump(change), encoding="utf-8")
    process = snakemake(folder, "--cores", "1", config=["config/test.yaml", "bad.yaml"])
    assert process.returncode != 0
    assert named in process.stdout + process.stderr
    assert "Traceback" not in process.stdout + process.stderr
    assert not (folder / "results").exists()


BAD_TABLES = {
    "an unknown image": ("pairs.tsv", "test1_followup", "test1_folowup", "test1_folowup"),
    "a duplicate name": ("images.tsv", "train1_followup\ttrain1\t", "train1_baseline\ttrain1\t", "train1_baseline"),
    "a subject in two splits": ("images.tsv", "train1_followup\ttrain1\ttrain", "train1_followup\ttrain1\ttest", "train1"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_refused_before_any_job(case, tmp_path):
    name, old, new, named = BAD_TABLES[case]
    folder = copy_of_the_workflow(tmp_path)
    table = folder / "config" / "cohorts" / "test" / name
    assert old in table.read_text(encoding="utf-8")
    table.write_text(table.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    process = snakemake(folder, "--cores", "1")
    assert process.returncode != 0
    (line,) = [line for line in (process.stdout + process.stderr).splitlines() if name in line and named in line]
    assert "found" in line
    assert not (folder / "results").exists()


def test_pairs_without_landmarks_are_registered_too(tmp_path):
    folder = copy_of_the_workflow(tmp_path)
    pairs = folder / "config" / "cohorts" / "test" / "pairs.tsv"
    with open(pairs, "a", encoding="utf-8") as table:
        table.write("again\ttest1_followup\ttest1_baseline\t\t\n")
    process = snakemake(folder, "--cores", "1", "--dry-run")
    assert process.returncode == 0, process.stderr
    assert "results/test/registrations/regnet/again/transform.h5" in process.stdout
    assert "results/test/evaluation/landmarks/again.csv" not in process.stdout


def test_a_failing_job_shows_one_line_and_leaves_nothing(run, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(run, folder)
    (folder / "results" / "test" / "cohort" / "test1_baseline.txt").write_text("points\n", encoding="utf-8")
    process = snakemake(folder, "--cores", "1")
    assert process.returncode != 0
    assert "error: results/test/cohort/test1_baseline.txt: starts with 'points', expected 'point'" in process.stderr
    assert not (folder / "results" / "test" / "evaluation" / "landmarks" / "test1.csv").exists()


def test_snakemake_finds_nothing_to_complain_about(tmp_path):
    process = subprocess.run([*SNAKEMAKE, "--lint"], cwd=copy_of_the_workflow(tmp_path), capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stdout + process.stderr
