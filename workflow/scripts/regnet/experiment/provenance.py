"""Where a table comes from: config, seed, code, checksums of the inputs, and the machines that computed it.

Each table has a file ``<table>.provenance.json`` beside it (docs/provenance.md). Comparing two of these shows whether their
tables should be equal.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from regnet import __version__
from regnet.errors import InputError, printable
from regnet.experiment.cohort import Cohort
from regnet.system.files import checksum, read_json, write_json
from regnet.system.machine import commit, machine

SUFFIX = ".provenance.json"
"""Ending of a provenance file; it replaces the suffix of the table."""

FIELDS = ("experiment", "config", "seed", "commit", "code", "inputs", "weights", "machines", "tables")
"""The keys of a provenance file."""

_TEXT = {"type": "string"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_JOBS = {"type": "object", "additionalProperties": {"type": "integer"}}

SCHEMA = {
    "properties": {
        **dict.fromkeys(("experiment", "commit", "code"), _TEXT),
        "config": {"type": "object"},
        "seed": {"type": "integer"},
        "inputs": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        "weights": _TEXTS,
        "machines": {
            "type": "array",
            "items": {**_TEXTS, "required": ["processor", "jobs"], "properties": {"jobs": _JOBS}},
        },
        # They stand beside the provenance, and are read.
        "tables": {**_TEXTS, "propertyNames": {"pattern": r"^[\w-][^/\\\n]*$(?!\n)"}},
    },
}
"""What the keys `FIELDS` hold, as a JSON schema."""

BOOKKEEPING_KEYS = (("experiment",), ("data_root",), ("cohort",), ("training", "checkpoint_minutes"))
"""Keys of the config that do not change results: where files are, and how often a training is saved."""


def cohort_inputs(cohort: Cohort) -> dict[str, str | None]:
    """The checksums of all files of a cohort, by their role, so that cohorts in different folders can be compared.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    checksums = {}
    for name, row in cohort.images.iterrows():
        for column in ("path", "mask"):
            checksums[f"image {name} ({row['split']}, subject {row['subject']}), {column}"] = _checksum_or_none(row[column])
    for name, row in cohort.pairs.iterrows():
        for column in ("fixed_landmarks", "moving_landmarks"):
            checksums[f"pair {name} ({row['fixed']}, {row['moving']}), {column}"] = _checksum_or_none(row[column])
    return checksums


def collect(
    config: Mapping[str, Any],
    cohort: Cohort,
    code: Iterable[str | Path],
    files: Iterable[str | Path],
    weights: Iterable[str | Path],
    machines: Sequence[tuple[str, str | Path]],
) -> dict[str, Any]:
    """Collect everything that the tables of an experiment depend on.

    Parameters
    ----------
    config
        The complete config, with defaults.
    cohort
        Images and pairs, whose files must exist.
    code
        The source files that affect numbers.
    files
        Further inputs, as paths in the repository: parameter files, modules of methods, given weights.
    weights
        The weights that were used.
    machines
        For each job that registered, trained or predicted: its step, and the file that
        `regnet.system.machine.write_machine` wrote. This process is added and represents all other jobs.

    Returns
    -------
    dict
        The keys `FIELDS` except ``tables``. Each machine lists how many jobs of each step ran on it.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    distinct: dict[str, tuple[dict[str, str], dict[str, int]]] = {}
    for step, facts in [*((step, read_json(path)) for step, path in machines), ("tables", machine())]:
        _, jobs = distinct.setdefault(json.dumps(facts, sort_keys=True), (facts, {}))
        jobs[step] = jobs.get(step, 0) + 1
    return {
        "experiment": config["experiment"],
        "config": dict(config),
        "seed": config["seed"],
        "commit": f"{__version__} ({commit()})",
        "code": _joint_checksum(code),
        "inputs": cohort_inputs(cohort) | {str(path): checksum(path) for path in files},
        "weights": {str(path): checksum(path) for path in weights},
        "machines": [{**facts, "jobs": jobs} for facts, jobs in distinct.values()],
    }


def write_provenance(facts: Mapping[str, Any], tables: Iterable[str | Path], path: str | Path) -> None:
    """Write the provenance of a table: the result of `collect`, and the checksums of the table's files.

    Raises
    ------
    InputError
        If one of the files of the table cannot be read.
    """
    write_json(path, {**facts, "tables": {Path(table).name: checksum(table) for table in tables}})


def write_facts(facts: Mapping[str, Any], path: str | Path) -> None:
    """Write the result of `collect`, for `read_facts`."""
    write_json(path, facts)


def read_facts(path: str | Path) -> dict[str, Any]:
    """Read a file that `write_facts` wrote.

    Raises
    ------
    InputError
        If it cannot be read, lacks one of the keys of `collect`, or holds something else than `SCHEMA` says.
    """
    return _with_fields(path, FIELDS[:-1])


def find_provenance(path: str | Path) -> Path:
    """Find a provenance file: the given one, the one beside a table, or that of Table 2.1 in the folder of an experiment.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(path)
    if path.name.endswith(SUFFIX):
        provenance = path
    elif path.is_dir():
        provenance = path / "tables" / f"table_2_1{SUFFIX}"
    else:
        provenance = path.with_name(path.name.removesuffix(path.suffix) + SUFFIX)
    if not provenance.is_file():
        raise InputError(f"{path}: found no {provenance}, expected a table of a run, with its provenance beside it")
    return provenance


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Read a file that `write_provenance` wrote.

    Raises
    ------
    InputError
        If it cannot be read, lacks one of the keys `FIELDS`, or holds something else than `SCHEMA` says.
    """
    return _with_fields(path, FIELDS)


def changed_tables(path: str | Path) -> list[str]:
    """Names of the files of a table that changed after their provenance was written; missing files are ignored."""
    folder, tables = Path(path).parent, read_provenance(path)["tables"]
    return [name for name, digest in tables.items() if (folder / name).is_file() and checksum(folder / name) != digest]


def describe(provenance: Mapping[str, Any]) -> str:
    """Describe a provenance in lines for the terminal."""
    inputs = {name: digest for name, digest in provenance["inputs"].items() if digest}
    lines = [
        f"experiment  {provenance['experiment']}",
        f"regnet      {provenance['commit']}",
        f"code        {provenance['code']}",
        f"seed        {provenance['seed']}",
        *(f"table       {digest[:16]}  {name}" for name, digest in provenance["tables"].items()),
        *(f"weights     {digest[:16]}  {name}" for name, digest in provenance["weights"].items()),
        *(f"input       {digest[:16]}  {name}" for name, digest in inputs.items()),
    ]
    for number, facts in enumerate(provenance["machines"], 1):
        jobs = ", ".join(f"{count} {step}" for step, count in facts["jobs"].items())
        lines.append(f"machine {number}   {jobs}")
        lines += [f"            {name} {text}" for name, text in facts.items() if name != "jobs"]
    lines += [f"config      {name}: {json.dumps(value)}" for name, value in _flat(provenance["config"]).items()]
    return "".join(f"{printable(line)}\n" for line in lines)


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Whether the tables of two provenances should be equal.

    Returns
    -------
    verdict : {"equal", "close", "different"}
        ``"equal"``: byte for byte. ``"close"``: the computation was the same, but on other machines, with other versions, or on
        a GPU, which sums in no fixed order; numbers differ by rounding errors, which training amplifies. ``"different"``: the
        computation was another.
    differences : list of str
        One line for each difference.
    """
    causes = [_causes(provenance) for provenance in (first, second)]
    differences = [
        f"{name}: {_short(causes[0].get(name))}, {_short(causes[1].get(name))}"
        for name in dict.fromkeys([*causes[0], *causes[1]])
        if causes[0].get(name) != causes[1].get(name)
    ]
    if differences:
        return "different", differences
    sides = [[{key: facts[key] for key in facts if key != "jobs"} for facts in side["machines"]] for side in (first, second)]
    keys = dict.fromkeys(key for machines in sides for facts in machines for key in facts)
    for key in keys:
        values = [sorted({facts[key] for facts in machines if key in facts}) for machines in sides]
        if values[0] != values[1]:
            differences.append(f"{key}: {', '.join(values[0]) or 'none'}; {', '.join(values[1]) or 'none'}")
    on_gpu = any(not facts.get("device", "CPU").startswith("CPU") for machines in sides for facts in machines)
    if on_gpu:
        differences.append("device: a GPU does not repeat its sums in the same order")
    several = any(len({facts["processor"] for facts in machines}) > 1 for machines in sides)
    if several and not differences:
        differences.append("processor: several, and which job ran on which may differ")
    return ("close" if differences else "equal"), differences


def _causes(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines the numbers of a table, by name."""
    config = {f"config {name}": value for name, value in _flat(provenance["config"]).items()}
    for keys in BOOKKEEPING_KEYS:
        config.pop(f"config {'.'.join(keys)}", None)
    inputs = {f"input {name}": digest for name, digest in provenance["inputs"].items()}
    return {"code": provenance["code"], **config, **inputs}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config with a single level, its keys joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return flat


def _short(value: Any) -> str:
    """A value of `_causes` as text; of a checksum, the first digits."""
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text[:16] if len(text) == hashlib.sha256().digest_size * 2 else text


def _joint_checksum(paths: Iterable[str | Path]) -> str:
    joint = hashlib.sha256()
    for path in sorted(map(str, paths)):
        joint.update(f"{path} {checksum(path)}\n".encode())
    return joint.hexdigest()


def _checksum_or_none(path: str) -> str | None:
    return checksum(path) if path else None


def _with_fields(path: str | Path, fields: Sequence[str]) -> dict[str, Any]:
    facts = read_json(path)
    missing = [name for name in fields if name not in facts] if isinstance(facts, dict) else list(fields)
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}, expected a provenance file of a run")
    problem = next(Draft202012Validator(SCHEMA).iter_errors(facts), None)
    if problem is not None:
        where = ".".join(map(str, problem.absolute_path))
        raise InputError(f"{path}: {where[:80]}: {problem.message[:120]}, expected a provenance file of a run")
    try:
        _flat(facts["config"])
        json.dumps(facts)
    except RecursionError as error:
        raise InputError(f"{path}: config: found values in values without end, expected a provenance file of a run") from error
    return facts
