"""The workflow as users run it: end to end at a reduced size, again with nothing to do, and refusing bad configs."""

import hashlib
import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from browser import needs_chromium, opened
from file_events import FileEvents
from working_copy import ROOT, checkout_of_the_workflow, copy_of_the_workflow, git

from regnet import __version__
from regnet.evaluation import long_tables, summaries
from regnet.experiment.checking import checked_cohort, read_config
from regnet.experiment.plan import image_volumes, plan_run, remaining_jobs
from regnet.experiment.provenance import compare, find_provenance, read_provenance
from regnet.images.transforms import read_transform
from regnet.learning.weight_files import load_network, save_network
from regnet.presentation import comparison
from regnet.presentation.table_2_1 import COLUMNS

pytestmark = pytest.mark.slow

SNAKEMAKE = [sys.executable, "-m", "snakemake"]


def snakemake(folder, *arguments, config=("config/test.yaml",)):
    command = [*SNAKEMAKE, "--resources", "gpu=0", "--configfile", *config, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkout in which the test config has been run with two cores."""
    folder = checkout_of_the_workflow(tmp_path_factory.mktemp("run"))
    declared = outputs(snakemake(folder, "--cores", "2", "--dry-run").stdout)
    for name in declared:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    moves = FileEvents({(folder / name).parent for name in declared}) if sys.platform == "linux" else None
    process = snakemake(folder, "--cores", "2")
    assert process.returncode == 0, process.stderr[-5000:]
    if moves:
        moves.read()
        # No job leaves half an output: all are made beside and moved.
        assert {str(path.relative_to(folder)) for path in moves.moved} >= declared
        assert not {str(path.relative_to(folder)) for path in moves.made} & declared
        moves.close()
    return folder


def outputs(plan):
    """The outputs of all jobs, from what a dry run says."""
    return {name for line in re.findall(r"^    output: (.*)$", plan, re.MULTILINE) for name in line.split(", ")}


FIGURES = [
    *("figure_2_2", "figure_2_3", "figure_2_4", "figure_2_5", "field_statistics"),
    *("comparison", "accuracy_time", "capture_range", "jacobian", "field_error"),
    *("training_regnet", "training_regnet_1scale", "training_regnet_early", "training_regnet_pyramid"),
]
METHODS = ["affine", "bspline_1r", "bspline_3r", "regnet", "regnet_pyramid", "regnet_refined"]


def test_the_run_leaves_the_table_and_all_figures(run):
    results = run / "results" / "test"
    table = pd.read_csv(results / "tables" / "table_2_1.csv")
    assert list(table.columns) == list(COLUMNS)
    assert list(table["evaluation"]) == [name for count in (4, 2) for name in ("MAE", "TRE", "TRE'") for _ in range(count)]
    assert (table["n"] > 0).all()
    for figure in FIGURES:
        assert (results / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG"), figure
        pdf = (results / "figures" / f"{figure}.pdf").read_bytes()
        assert pdf.startswith(b"%PDF")
        # TrueType, embedded: text stays text in a paper.
        assert b"/FontFile2" in pdf
        assert b"/Type3" not in pdf
    assert 3e6 < (results / "viewers" / "test1.html").stat().st_size < 15e6


def test_every_number_of_the_comparison_can_be_traced_to_rows(run):
    evaluation, tables = run / "results" / "test" / "evaluation", run / "results" / "test" / "tables"
    table = long_tables.read_table(tables / "comparison.csv", comparison.COLUMNS)
    landmarks = long_tables.read_errors(evaluation / "landmarks.csv", long_tables.LANDMARK_COLUMNS)
    runs = long_tables.read_errors(evaluation / "runs.csv", long_tables.RUN_COLUMNS)
    regularity = long_tables.read_errors(evaluation / "regularity.csv", long_tables.REGULARITY_COLUMNS)
    field_errors = long_tables.read_errors(evaluation / "field_errors.csv", long_tables.FIELD_ERROR_COLUMNS)
    assert table["method"][: len(METHODS)].tolist() == METHODS
    assert table["capture_range"].dropna().unique().tolist() == [8, 4, 12]
    initial = summaries.initial_distances(landmarks)
    for _, row in table.iterrows():
        limit = np.inf if row["evaluation"] == "TRE" else row["capture_range"]
        errors = landmarks.loc[(landmarks["method"] == row["method"]) & (initial <= limit), "error"]
        assert row["n"] == len(errors)
        np.testing.assert_allclose(row[["mean", "median"]].astype(float), [errors.mean(), errors.median()])
        assert row["seconds"] == runs.set_index("method").loc[row["method"], "seconds"]
        assert row["jacobian_min"] == regularity.set_index("method").loc[row["method"], "min"]
        np.testing.assert_allclose(row["field_error_mean"], field_errors.set_index("method").loc[row["method"], "mean"])
    assert (runs["seconds"] > 0).all()
    tests = long_tables.read_table(tables / "comparison_tests.csv", ["p", "p_holm"])
    assert len(tests) == 4 * 2 * math.comb(len(METHODS), 2)
    curve = long_tables.read_table(tables / "capture_range.csv", summaries.CURVE_COLUMNS)
    assert curve.groupby("method")["n"].sum().tolist() == [30] * len(METHODS)


def test_every_table_says_where_it_comes_from(run):
    results = run / "results" / "test"
    for table in results.glob("tables/*.csv"):
        provenance = read_provenance(find_provenance(table))
        assert provenance["tables"][table.name] == hashlib.sha256(table.read_bytes()).hexdigest()
    facts = read_provenance(find_provenance(results))
    assert facts["config"]["methods"]["affine"]["iterations"] == 50
    cohort = results / "cohort"
    digest = hashlib.sha256((cohort / "test1_baseline.nii.gz").read_bytes()).hexdigest()
    assert facts["inputs"]["image test1_baseline (test, subject test1), path"] == digest
    assert facts["inputs"]["config/elastix/affine.txt"]
    jobs = {}
    for one in facts["machines"]:
        for step, count in one["jobs"].items():
            jobs[step] = jobs.get(step, 0) + count
    methods = {f"register {method}": 1 for method in METHODS}
    assert jobs == {"train": 4, "evaluate_synthetic": 6, "tables": 1, **methods}
    assert {one["device"] for one in facts["machines"] if "train" in one["jobs"]} == {"CPU, 1 thread"}


def test_a_run_names_the_commit_of_its_checkout_and_changes_no_file_in_it(run):
    facts = read_provenance(find_provenance(run / "results" / "test"))
    assert facts["commit"] == f"{__version__} (commit {git(run, 'rev-parse', '--short=12', 'HEAD')})"
    assert git(run, "status", "--porcelain") == ""


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
    assert labels >= {"Comparison of methods", "Comparison of methods: table", "Capture range", "Capture range: table"}


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


def test_synthetic_volumes_that_nothing_is_trained_on_are_gone_after_the_run(run):
    synthetic = run / "results" / "test" / "synthetic"
    with_volumes = {path.relative_to(synthetic).parts[0].split("_")[0] for path in synthetic.rglob("*.npy")}
    assert with_volumes == {"train1", "validation1"}
    assert len(list(synthetic.rglob("dvf.npz"))) == 6 * 6


def test_an_evaluation_that_is_made_again_repeats_no_training(run, tmp_path):
    """Volumes that were gone would have to be made again, and Snakemake repeats what depends on what it makes."""
    folder = tmp_path / "again"
    shutil.copytree(run, folder)
    errors = folder / "results" / "test" / "evaluation" / "synthetic"
    for split, made in (("validation", set()), ("test", {"synthesize", "sample_patches"})):
        (errors / f"regnet_{split}.csv").unlink()
        plan = snakemake(folder, "--cores", "2", "--dry-run", f"results/test/evaluation/synthetic/regnet_{split}.csv").stdout
        assert set(re.findall(r"^(?:local)?rule (\w+):", plan, re.MULTILINE)) == made | {"evaluate_synthetic"}


def test_a_plan_knows_what_a_run_takes_on_disk_and_what_is_left_to_do(run, monkeypatch):
    """Hours depend on the machine: benchmarks/scaling.py compares them."""
    monkeypatch.chdir(run)
    config = read_config(["config/test.yaml"])
    cohort = checked_cohort(config)
    assert remaining_jobs(["config/test.yaml"], []) == {}
    again = remaining_jobs(["config/test.yaml"], ["seed=1"])
    assert again["phantom"] == 3
    assert again["train"] == 3
    assert again["train_pyramid"] == 1
    assert again["register"] == 5
    plan = plan_run(config, cohort, image_volumes(config, cohort), again)
    results = run / "results" / "test"
    folders = {"cohort": "cohort", "images": "images", "transforms": "registrations", "viewers": "viewers"}
    for what, folder in folders.items():
        size = sum(path.stat().st_size for path in (results / folder).rglob("*") if path.is_file())
        assert size / 2 < plan.kept[what] < 2 * size, what
    voxels = [sitk.ReadImage(path).GetNumberOfPixels() for path in (results / "images" / "1.75mm").glob("*_mask.nii.gz")]
    np.testing.assert_allclose(plan.removed["synthetic volumes"], 8 * 2 * sum(voxels) / 3, rtol=0.5)
    np.testing.assert_allclose(plan.kept["synthetic volumes"], 8 * 2 * sum(voxels) * 2 / 3, rtol=0.5)


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
    results = folder / "results" / "test"
    for path in results.iterdir():
        if path.is_dir() and path.name not in ("evaluation", "models"):
            shutil.rmtree(path)
    (results / "report.html").unlink(missing_ok=True)
    for path in results.glob("evaluation/*/"):
        shutil.rmtree(path)
    for path in results.glob("models/*/*.safetensors"):
        path.unlink()
    process = snakemake(folder, "--cores", "2", "figures")
    assert process.returncode == 0, process.stderr[-3000:]
    for suffix in ("png", "pdf"):
        assert {path.stem for path in results.glob(f"figures/*.{suffix}")} == {*FIGURES}
    # Nothing upstream has run: not even its logs are there.
    assert {path.name for path in results.iterdir()} == {"evaluation", "models", "tables", "figures", "logs"}
    drawn = {path.name.removesuffix(".log") for path in (results / "logs").iterdir()}
    assert drawn == {
        *(f"figure_{name}" for name in FIGURES[4:10]),
        *FIGURES[:4],
        "comparison",
        "capture_range",
        "training_curves",
    }
    assert "Nothing to be done" in snakemake(folder, "--cores", "2", "figures").stderr


def test_the_same_seed_gives_identical_tables_with_one_core_too(run, tmp_path):
    """Jobs draw from seeds of their own, so neither their order nor their number changes a result.

    The number of threads of elastix and of torch does; here both are 1 in both runs.
    """
    folder = copy_of_the_workflow(tmp_path)
    process = snakemake(folder, "--cores", "1", "provenances")
    assert process.returncode == 0, process.stderr[-3000:]
    for name in ("tables/table_2_1.csv", "evaluation/landmarks.csv", "evaluation/synthetic.csv"):
        assert (folder / "results" / "test" / name).read_bytes() == (run / "results" / "test" / name).read_bytes(), name
    provenances = [read_provenance(find_provenance(one / "results" / "test")) for one in (run, folder)]
    assert compare(*provenances) == ("equal", [])
    assert provenances[0]["tables"] == provenances[1]["tables"]


USED_BY = {
    "images/lungs.py": {"segment_lungs"},
    "learning/training.py": {"train", "train_pyramid"},
    "registration/elastix.py": {"register"},
    "registration/demons.py": set(),
    "evaluation/landmark_errors.py": {"evaluate_landmarks", "viewer", "collect_provenance"},
    "presentation/table_2_1.py": {"table_2_1", "collect_provenance"},
    "presentation/figures/chapter.py": {"figure_2_2", "figure_2_3", "figure_2_4", "figure_2_5"},
    "presentation/figures/fields.py": {"figure_jacobian", "figure_field_error"},
}
"""Modules and the rules that Snakemake names them for; of a rule that waits for one of these it only says that it waits."""


@pytest.fixture(scope="module")
def unchanged(run, tmp_path_factory):
    """A copy of the finished run, for tests that restore what they change."""
    folder = tmp_path_factory.mktemp("unchanged") / "run"
    shutil.copytree(run, folder)
    return folder


def rerun(folder, module, change):
    """The rule of each job that Snakemake would run after a change of a module's text, and what it says why."""
    path = folder / "workflow" / "scripts" / "regnet" / module
    before = path.with_suffix(".before")
    shutil.copy2(path, before)
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")
    process = snakemake(folder, "--cores", "2", "--dry-run")
    before.replace(path)
    assert process.returncode == 0, process.stderr
    return re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    reason: ([^:]*)", process.stdout, re.MULTILINE)


@pytest.mark.parametrize("module", USED_BY)
def test_a_changed_module_reruns_what_uses_it_and_nothing_else(unchanged, module):
    jobs = rerun(unchanged, module, lambda text: text + "# changed\n")
    assert {rule for rule, reason in jobs if reason == "Updated input files"} == USED_BY[module]
    # All others follow from what these make; volumes that only some jobs need were removed after the first run.
    others = {reason for rule, reason in jobs if rule not in {*USED_BY[module], "synthesize", "prepare_crops"}}
    assert others <= {"Input files updated by another job"}


def test_a_changed_message_about_a_config_repeats_no_computation(unchanged):
    jobs = rerun(unchanged, "experiment/schemas.py", lambda text: text.replace("the lowest HU first", "first the lowest HU"))
    pages = {"cohort_page", "table_page", "run_pages"}
    assert {rule for rule, _ in jobs} == {*pages, "collect_provenance", "provenance", "all"}


def test_a_figure_lists_the_module_that_draws_it():
    text = (ROOT / "workflow" / "rules" / "results.smk").read_text(encoding="utf-8")
    rules = [rule for rule in re.split(r"\n(?= *(?:use )?rule )", text) if "draw=" in rule]
    assert len(rules) == 11
    for rule in rules:
        # A rule without inputs of its own has those of the rule that it follows.
        assert re.findall(r'figure_code\("(\w+)"\)', rule) in ([], re.findall(r'draw="(\w+)\.', rule)), rule


BAD_CONFIGS = {
    "a misspelt key": ({"trainign": {}}, "trainign"),
    "a number read as text": ({"training": {"learning_rate": "1e-4"}}, "training.learning_rate"),
    "a missing cohort": ({"cohort": "config/cohorts/nowhere"}, "config/cohorts/nowhere/images.tsv"),
    "a missing data root": ({"phantom": None, "data_root": "nowhere"}, "data_root: found 'nowhere'"),
    "a method that is not there": (
        {"methods": {"mine": {"module": "nowhere/mine.py"}}},
        "methods.mine.module: found nowhere/mine.py",
    ),
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
    target = "results/test/evaluation/landmarks/again.csv"
    assert target not in process.stdout
    process = snakemake(folder, "--cores", "1", "--dry-run", "--", target)
    assert "config/cohorts/test/pairs.tsv: found no fixed_landmarks of 'again', which a target needs" in process.stdout


def test_a_failing_job_shows_one_line_and_leaves_nothing(run, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(run, folder)
    (folder / "results" / "test" / "cohort" / "test1_baseline.txt").write_text("points\n", encoding="utf-8")
    # The viewer reads the landmarks too; which of the jobs comes first is Snakemake's affair.
    target = "results/test/evaluation/landmarks/test1.csv"
    process = snakemake(folder, "--cores", "1", "--", target)
    assert process.returncode != 0
    assert "error: results/test/cohort/test1_baseline.txt: starts with 'points', expected 'point'" in process.stderr
    assert not (folder / target).exists()


def test_a_failing_registration_names_pair_and_method_and_keeps_the_log(run, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(run, folder)
    parameters = folder / "config" / "elastix" / "bspline_1r.txt"
    text = parameters.read_text(encoding="utf-8").replace('"AdvancedNormalizedCorrelation"', '"NoSuchMetric"')
    parameters.write_text(text, encoding="utf-8")
    target = "results/test/registrations/bspline_1r/test1/transform.h5"
    process = snakemake(folder, "--cores", "1", "--", target)
    assert process.returncode != 0
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: test1, bspline_1r: elastix with config/elastix/bspline_1r.txt: ")
    assert "NoSuchMetric" in line
    log = folder / "results" / "test" / "logs" / "register" / "bspline_1r" / "test1.tool.log"
    assert str(log.relative_to(folder)) in line
    assert "NoSuchMetric" in log.read_text(encoding="utf-8")
    assert not (folder / target).exists()


def test_snakemake_finds_nothing_to_complain_about(tmp_path):
    process = subprocess.run([*SNAKEMAKE, "--lint"], cwd=copy_of_the_workflow(tmp_path), capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stdout + process.stderr
