"""Where a table comes from: config, seed, code, checksums of what went in, and the machines that computed it.

Each table has a file ``<table>.provenance.json`` beside it (docs/provenance.md). Two of these say whether their tables should
be equal.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regnet import __version__
from regnet.errors import InputError
from regnet.experiment.cohort import Cohort
from regnet.system.files import checksum, read_json, write_json
from regnet.system.machine import commit, machine

SUFFIX = ".provenance.json"
"""What the name of a table, without its own suffix, is followed by in the name of its provenance."""

FIELDS = ("experiment", "config", "seed", "commit", "code", "inputs", "weights", "machines", "tables")
"""The keys of a provenance file."""

BOOKKEEPING_KEYS = (("experiment",), ("data_root",), ("cohort",), ("training", "checkpoint_minutes"))
"""Keys of the config that say where things are and how a run is kept, not what it computes."""


def cohort_inputs(cohort: Cohort) -> dict[str, str | None]:
    """The checksums of all files of a cohort, by what they are in it: two cohorts are compared wherever their files lie.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    found = {}
    for name, row in cohort.images.iterrows():
        for kind in ("path", "mask"):
            found[f"image {name} ({row['split']}, subject {row['subject']}), {kind}"] = _checksum_or_none(row[kind])
    for name, row in cohort.pairs.iterrows():
        for kind in ("fixed_landmarks", "moving_landmarks"):
            found[f"pair {name} ({row['fixed']}, {row['moving']}), {kind}"] = _checksum_or_none(row[kind])
    return found


def collect(
    config: Mapping[str, Any],
    cohort: Cohort,
    code: Iterable[str | Path],
    files: Iterable[str | Path],
    weights: Iterable[str | Path],
    machines: Sequence[tuple[str, str | Path]],
) -> dict[str, Any]:
    """Everything that the tables of an experiment come from.

    Parameters
    ----------
    config
        The whole config, defaults included.
    cohort
        Images and pairs; their files are there.
    code
        The source files on which numbers depend.
    files
        Further files that went in, by their paths in the repository: parameter files, modules of methods, given weights.
    weights
        The weights that were used.
    machines
        The step, and the file of `regnet.system.machine.write_machine`, of each job that registered, trained or predicted. This
        process, which stands for all others, is added.

    Returns
    -------
    dict
        The keys `FIELDS` but for ``tables``. Each machine lists how many jobs of each step ran on it.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    found: dict[str, tuple[dict[str, str], dict[str, int]]] = {}
    for step, one in [*((step, read_json(path)) for step, path in machines), ("tables", machine())]:
        _, jobs = found.setdefault(json.dumps(one, sort_keys=True), (one, {}))
        jobs[step] = jobs.get(step, 0) + 1
    return {
        "experiment": config["experiment"],
        "config": dict(config),
        "seed": config["seed"],
        "commit": f"{__version__} ({commit()})",
        "code": _joint_checksum(code),
        "inputs": cohort_inputs(cohort) | {str(path): checksum(path) for path in files},
        "weights": {str(path): checksum(path) for path in weights},
        "machines": [{**one, "jobs": jobs} for one, jobs in found.values()],
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
    """Read what `write_facts` wrote.

    Raises
    ------
    InputError
        If it cannot be read or lacks one of the keys.
    """
    return _with_fields(path, FIELDS[:-1])


def find_provenance(path: str | Path) -> Path:
    """The provenance of what a path names: itself, a table's beside it, or Table 2.1's below the folder of an experiment.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(path)
    if path.name.endswith(SUFFIX):
        found = path
    elif path.is_dir():
        found = path / "tables" / f"table_2_1{SUFFIX}"
    else:
        found = path.with_name(path.name.removesuffix(path.suffix) + SUFFIX)
    if not found.is_file():
        raise InputError(f"{path}: found no {found}, expected a table of a run, with its provenance beside it")
    return found


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Read a provenance file of `write_provenance`.

    Raises
    ------
    InputError
        If it cannot be read or lacks one of the keys `FIELDS`.
    """
    return _with_fields(path, FIELDS)


def changed_tables(path: str | Path) -> list[str]:
    """The files of a table, of those beside its provenance, that are no longer what it was written about."""
    folder, tables = Path(path).parent, read_provenance(path)["tables"]
    return [name for name, digest in tables.items() if (folder / name).is_file() and checksum(folder / name) != digest]


def describe(provenance: Mapping[str, Any]) -> str:
    """A provenance for people, in lines."""
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
    for number, one in enumerate(provenance["machines"], 1):
        jobs = ", ".join(f"{count} {step}" for step, count in one["jobs"].items())
        lines.append(f"machine {number}   {jobs}")
        lines += [f"            {name} {text}" for name, text in one.items() if name != "jobs"]
    lines += [f"config      {name}: {json.dumps(value)}" for name, value in _flat(provenance["config"]).items()]
    return "".join(f"{line}\n" for line in lines)


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Whether the tables of two provenances should be equal.

    Returns
    -------
    verdict : {"equal", "close", "different"}
        ``"equal"``: byte for byte. ``"close"``: the same was computed, but on other machines, with other versions, or on a
        GPU, where sums are taken in another order; numbers differ by rounding, which a training makes larger.
        ``"different"``: something else was computed.
    differences : list of str
        What differs, each in a line.
    """
    causes = [_causes(provenance) for provenance in (first, second)]
    differences = [
        f"{name}: {_short(causes[0].get(name))}, {_short(causes[1].get(name))}"
        for name in dict.fromkeys([*causes[0], *causes[1]])
        if causes[0].get(name) != causes[1].get(name)
    ]
    if differences:
        return "different", differences
    sets = [[{key: one[key] for key in one if key != "jobs"} for one in part["machines"]] for part in (first, second)]
    keys = dict.fromkeys(key for machines in sets for one in machines for key in one)
    for key in keys:
        values = [sorted({one[key] for one in machines if key in one}) for machines in sets]
        if values[0] != values[1]:
            differences.append(f"{key}: {', '.join(values[0]) or 'none'}; {', '.join(values[1]) or 'none'}")
    on_gpu = any(not one.get("device", "CPU").startswith("CPU") for machines in sets for one in machines)
    if on_gpu:
        differences.append("device: a GPU does not repeat its sums in the same order")
    several = any(len({one["processor"] for one in machines}) > 1 for machines in sets)
    if several and not differences:
        differences.append("processor: several, and which job ran on which may differ")
    return ("close" if differences else "equal"), differences


def _causes(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What determines the numbers of a table, one entry each."""
    config = {f"config {name}": value for name, value in _flat(provenance["config"]).items()}
    for keys in BOOKKEEPING_KEYS:
        config.pop(f"config {'.'.join(keys)}", None)
    inputs = {f"input {name}": digest for name, digest in provenance["inputs"].items()}
    return {"code": provenance["code"], **config, **inputs}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config with one level: keys joined by dots."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {f"{prefix}{name}": value}
    return found


def _short(value: Any) -> str:
    """A value of `_causes` as it stands in a line: checksums by their first digits."""
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
    return facts
