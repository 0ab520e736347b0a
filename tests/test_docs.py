"""What README and docs say to type is run, in a copy of the repository; what they name exists; what they draw is so.

A block of commands is run unless ``<!-- not run: reason -->`` stands before it: what needs data or hours is parsed.
``<!-- file: path -->`` makes a file of the next block, ``<!-- made: path -->`` compares the next block with a YAML file that a
command before it made. Blocks are indented or fenced; those in Python are run too.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from snakemake.cli import get_argument_parser

from regnet import cli
from regnet.experiment.checking import read_config
from regnet.experiment.schemas import check_config
from regnet.images.landmarks import write_landmarks
from regnet.images.volumes import Grid

ROOT = Path(__file__).parents[1]

CARDS = sorted(ROOT.glob("resources/weights/*.md"))

PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("config/*.md"))
)

LINKING = [*PAGES, "results/README.md", "workflow/viewer/README.md", *(f"resources/weights/{path.name}" for path in CARDS)]
"""The pages whose links are followed."""

COMMANDS = ("make", "pip", "python", "regnet", "snakemake", ".venv/bin/snakemake", ".venv/bin/python")

GRID = Grid((16, 16, 16), (8.0, 8.0, 8.0), (-60.0, -50.0, -40.0))


def blocks(page):
    """The blocks of a page: language ("" if indented), text, and the comment before it as (kind, value)."""
    comment, found, lines = None, [], (ROOT / page).read_text(encoding="utf-8").split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        indent = re.match(" *", line).group()
        fence = re.match(r" *```(\w*)$", line)
        marked = re.match(r" *<!-- (not run|file|made): (.+) -->$", line)
        if fence:
            end = lines.index(f"{indent}```", number + 1)
            body, after, language = lines[number + 1 : end], end + 1, fence.group(1) or "text"
        elif len(indent) >= 4 and line.strip() and not lines[number - 1].strip():
            end = number
            while end < len(lines) and (lines[end].startswith(indent) or not lines[end].strip()):
                end += 1
            body, after, language = lines[number:end], end, ""
        else:
            if marked:
                comment = marked.groups()
            elif line.strip():
                assert comment is None, f"{page}: a comment without a block before {line!r}"
            number += 1
            continue
        found.append((language, "\n".join(one.removeprefix(indent) for one in body).strip() + "\n", comment))
        comment, number = None, after
    return found


def commands(text):
    """The commands of a block as lists of words; none if it is no block of commands."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return words if words and all(line and line[0] in COMMANDS for line in words) else []


def is_shell(language, text):
    return language in ("bash", "sh", "console") or (language == "" and bool(commands(text)))


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    """A copy of the repository with the files that the docs name, and `regnet`, `snakemake` and `python` on the path."""
    folder = tmp_path_factory.mktemp("sandbox")
    for name in ("workflow", "config", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, folder)
    for seed, name in enumerate(["baseline", "followup", "followup_pet", *(f"scans/{one}" for one in SCANS)]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        array = np.random.default_rng(seed).integers(-900, 60, GRID.shape).astype(np.int16)
        sitk.WriteImage(GRID.image(array), folder / f"{name}.nii.gz")
    sitk.WriteImage(GRID.image((array > -400).astype(np.uint8)), folder / "lobes.nii.gz")
    points = GRID.points(np.array([[4, 5, 6], [9, 8, 7], [10, 3, 12]]))
    write_landmarks(points, folder / "fixed.txt")
    write_landmarks(points + 2.5, folder / "moving.txt")
    write_landmarks(points, folder / "points.csv", "table")
    for name in ("dirlab_4dct", "lung_followup"):
        (folder / "data" / name).mkdir(parents=True)
        overlay = {"experiment": name, "cohort": f"data/{name}", "data_root": f"data/{name}", "phantom": None}
        (folder / "data" / name / "config.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    (folder / "numbers.txt").write_text("index\n1\n1 2 3\n", encoding="utf-8")
    (folder / "out").mkdir()
    shift = sitk.TranslationTransform(3, (2.5, 2.5, 2.5))
    sitk.WriteTransform(shift, folder / "out" / "transform.h5")
    field = np.full((*GRID.shape, 3), 2.5, np.float32)
    sitk.WriteImage(GRID.image(field), folder / "out" / "dvf.nii.gz")
    (folder / "bin").mkdir()
    for name, module in (("regnet", "regnet"), ("snakemake", "snakemake"), ("python", "")):
        script = folder / "bin" / name
        script.write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {f"-m {module} " if module else ""}"$@"\n', encoding="utf-8"
        )
        script.chmod(0o755)
    return folder


SCANS = ("anna/2019", "anna/2021", "bert/2018", "bert/2020", "cleo/2019", "cleo/2020")


def run(command, folder):
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "workflow" / "scripts"),
    }
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]


def understand(words):
    """Check that a command that is not run could be: options, config files, config keys, targets."""
    program, arguments, text = words[0], words[1:], " ".join(words)
    if program == "regnet":
        cli._parser().parse_args(arguments)
    elif program.endswith("snakemake"):
        parsed = get_argument_parser().parse_args(arguments)
        config = read_config(parsed.configfile or (), [])
        for entry in parsed.config or ():
            key, _, value = entry.partition("=")
            assert key in config, entry
            config[key] = value
        check_config(config)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif program == "pip":
        extras = {f"requirements-{name}.in" for name in re.findall(r"\w+", " ".join(re.findall(r"\[(.*?)\]", text)))}
        assert {path.name for path in ROOT.glob("requirements-*.in")} >= extras
        assert arguments[0] == "install"
    else:
        scripts = [word for word in arguments if word.endswith(".py")]
        assert scripts, words
        assert all((ROOT / script).is_file() for script in scripts)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_to_type(page, sandbox, monkeypatch):
    monkeypatch.chdir(sandbox)
    for language, text, comment in blocks(page):
        kind, value = comment or ("", "")
        if kind == "file":
            path = sandbox / value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif kind == "made":
            assert yaml.safe_load(text) == yaml.safe_load((sandbox / value).read_text(encoding="utf-8")), value
        elif is_shell(language, text) and kind:
            for words in commands(text):
                understand(words)
        elif is_shell(language, text):
            run(["bash", "-euo", "pipefail", "-c", text], sandbox)
        elif language == "python" and not kind:
            run([sys.executable, "-W", "error", "-c", text], sandbox)


def test_no_block_of_commands_is_overlooked():
    """Every indented or fenced line that begins with one of our commands is in a block that the test above takes."""
    for page in PAGES:
        taken = "".join(text for language, text, _ in blocks(page) if is_shell(language, text))
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            if re.match(r" {4,}(regnet|snakemake|make|pip|\.venv/bin/snakemake) ", line):
                assert line.strip() in taken, f"{page}: {line.strip()}"


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING)
def test_links_lead_to_files_and_headings(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", (ROOT / page).read_text(encoding="utf-8")):
        path = (ROOT / page).parent.joinpath(target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path), f"{page}: {target}#{anchor}"


@pytest.mark.parametrize("page", LINKING)
def test_pages_name_files_that_exist(page):
    for name in re.findall(r"`((?:tests|benchmarks|workflow|profiles)/[\w./-]+)`", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), f"{page}: {name}"


def test_code_and_configs_name_pages_and_headings_that_exist():
    folders = ("workflow", "config", "profiles", "benchmarks", "tests")
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*")):
        if path.suffix in (".py", ".smk", ".yaml", ".rst", ".js", ".html"):
            for page, anchor in re.findall(r"\b(docs/[\w-]+\.md)(?:#([\w-]+))?", path.read_text(encoding="utf-8")):
                assert (ROOT / page).exists(), f"{path}: {page}"
                assert not anchor or anchor in anchors(page), f"{path}: {page}#{anchor}"


def test_the_list_of_pages_has_each_page_once():
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    assert sorted([*listed, "README.md"]) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_readme_is_read_in_a_minute():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_the_folders_of_the_readme_are_those_of_the_repository():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| folder |")[2]
    rows = re.findall(r"^\| ((?:— )?`.+?) \|", table, re.MULTILINE)
    rooms = {row.removeprefix("— ").strip("`/") for row in rows if row.startswith("— ")}
    assert rooms == {path.parent.name for path in (ROOT / "workflow/scripts/regnet").glob("*/__init__.py")}
    named = [name for row in rows if not row.startswith("— ") for name in re.findall("`(.+?)`", row)]
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name.removesuffix("<experiment>/")).exists()] == []


def test_the_graph_of_the_readme_is_that_of_the_rules(sandbox):
    """Its boxes are files of rules, its arrows follow from `snakemake --rulegraph`, and it leaves out only what they imply."""
    graph = next(text for language, text, _ in blocks("README.md") if language == "mermaid")
    drawn = set(re.findall(r"(\w+)(?:\[.*?\])? --> (\w+)", graph))
    boxes = {box for arrow in drawn for box in arrow}
    files = list((ROOT / "workflow" / "rules").glob("*.smk"))
    stage = {
        name: path.stem
        for path in files
        for name in re.findall(r"^ *(?:use )?rule (?:\w+ as )?(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert boxes == {path.stem for path in files} - {"common"}
    assert len(boxes) <= 8
    command = ["snakemake", "--quiet", "--rulegraph", "mermaid-js"]
    process = subprocess.run([sys.executable, "-m", *command], cwd=sandbox, capture_output=True, encoding="utf-8", check=True)
    rules = dict(re.findall(r"(id\d+)\[(\w+)\]", process.stdout))
    arrows = [(rules[source], rules[target]) for source, target in re.findall(r"(id\d+) --> (id\d+)", process.stdout)]
    real = {(stage[source], stage[target]) for source, target in arrows if target != "all" and stage[source] != stage[target]}
    assert drawn <= real
    implied = set(drawn)
    for _ in boxes:
        implied |= {(source, target) for source, middle in implied for start, target in drawn if start == middle}
    assert real <= implied


def test_vectors_stay_in_lps_on_disk(tmp_path):
    """What docs/faq.md says of dvf.nii.gz for those who read it without ITK."""
    field = np.zeros((*GRID.shape, 3), np.float32)
    field[...] = (1.0, 2.0, 3.0)
    sitk.WriteImage(GRID.image(field), tmp_path / "dvf.nii")
    raw = (tmp_path / "dvf.nii").read_bytes()
    assert np.frombuffer(raw[40:56], "<i2")[:6].tolist() == [5, 16, 16, 16, 1, 3]
    components = np.frombuffer(raw[352:], "<f4").reshape(3, -1)
    np.testing.assert_array_equal(components[:, 0], (1, 2, 3))
    assert np.frombuffer(raw[280:284], "<f4") == -8.0, "the affine is in RAS"
