"""Check the config and the rows of tables against the JSON schemas in ``workflow/schemas``; each problem is one line."""

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from regnet.conventions import WORKING_SPACINGS
from regnet.errors import ConfigError
from regnet.synthesis.samples import window_size
from regnet.system.resources import shipped

FOLDER = shipped("schemas")
"""The folder of the schemas."""

CONFIG_SCHEMA = FOLDER / "config.schema.yaml"

TYPES = {
    "null": "null",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "keys with values",
}
"""How messages name the types of JSON schema."""

REMOVED = {
    "patches.balance": "training samples are drawn evenly from the lungs",
    "training.warmup.optimizer": "the optimizer of the warm-up is muon",
    "training.warmup.learning_rate": "the learning rate of the warm-up is 0.003",
    "training.warmup.schedule": "the learning rate of the warm-up does not fall",
    "training.warmup.decay": "the learning rate of the warm-up does not fall",
    "training.warmup.rise": "the learning rate of the warm-up rises over 30 steps",
    "training.warmup.freeze_after": "the warm-up never freezes batch normalization",
    "training.warmup.renew_every": "the warm-up replaces a texture pair every 10 steps",
    "training.warmup.texture_sigma": "a Gaussian of 1.5 voxels smooths the textures",
    "training.warmup.field_sigma": "the smoothness of the fields is between 30 and 60 voxels",
    "evaluation.further_capture_ranges": "the comparison also has TRE' for 4 and 12 mm",
    "evaluation.distance_bins": "the bins end at 2, 4, 6, 8, 10, 12, 16 and 20 mm",
    "evaluation.accurate_within": "a method is accurate while its median error is at most 2.5 mm",
    "evaluation.bootstrap_samples": "the bootstrap draws 2000 samples",
    **{f"methods.{module}.window": f"{module} sees -1000 to 400 HU" for module in ("demons", "syn", "greedy", "convexadam")},
    "methods.syn.radius": "syn correlates within a radius of 2 voxels",
    "methods.syn.gradient_step": "the gradient step of syn is 0.2 voxels",
    "methods.greedy.radius": "greedy correlates within a radius of 2 voxels",
    "methods.convexadam.mind_radius": "the radius of the MIND patches is 1 voxel",
    "methods.convexadam.mind_dilation": "the distance of the MIND patches is 2 voxels",
}
"""Keys that were removed in 0.2.0, and what applies instead. Keys of a method are listed by its module, not by its name."""

BOUNDS = {"exclusiveMinimum": "above", "minimum": "of at least", "exclusiveMaximum": "below", "maximum": "of at most"}


def _is_integer(_: object, value: object) -> bool:
    # JSON schema would accept 200.0 too, which range() does not.
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: object, value: object) -> bool:
    # Every comparison with NaN is false, so NaN would pass all bounds.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_types = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})
_Validator = extend(Draft202012Validator, type_checker=_types)


@cache
def validator(path: str | Path) -> Draft202012Validator:
    """The validator of a schema file, read once."""
    # Every job of the workflow reads the schemas; the loader of libyaml, if PyYAML has it, takes a tenth of the time.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return _Validator(yaml.load(Path(path).read_text(encoding="utf-8"), loader))


def problems(instance: object, schema_path: str | Path, source: str) -> list[str]:
    """List the problems of a config or of a row of a table.

    Parameters
    ----------
    instance
        Mappings, lists and scalars, as read from YAML.
    schema_path
        A JSON schema, draft 2020-12, in YAML. Messages quote the ``title`` of a part as the expected value.
    source
        How messages name the instance, for example ``"config"`` or ``"images.tsv, row 3"``.

    Returns
    -------
    list of str
        One line for each problem: source, field, what was found, and what was expected.
    """
    check = validator(schema_path)
    lines: list[str] = []
    for error in check.iter_errors(_plain(instance)):
        lines += (f"{source}: {line}" for line in _lines(error, check.schema))
    return list(dict.fromkeys(lines))


def check_config(config: Mapping[str, Any]) -> None:
    """Check the complete config, with overlays merged: each key, and the keys against each other.

    Raises
    ------
    ConfigError
        With a line for each problem.
    """
    lines = problems(config, CONFIG_SCHEMA, "config") or [f"config: {line}" for line in _conflicts(config)]
    if lines:
        raise ConfigError("\n".join(lines))


def _conflicts(config: Mapping[str, Any]) -> Iterator[str]:
    """Problems between keys that are valid by themselves."""
    training, warmup = config["training"], config["training"]["warmup"]
    lower, upper = config["regnet"]["window"]
    if lower >= upper:
        yield f"regnet.window: found {[lower, upper]}, expected the lowest HU first, then the highest"
    if config["phantom"] is not None and PurePath(os.path.normpath(config["data_root"])).parts[:1] != ("results",):
        # The workflow writes a phantom there, which must never happen in a folder of scans.
        yield (
            f"data_root: found {config['data_root']!r}, expected a folder in results/, as a phantom is written to it "
            "(for your own images, set phantom: null)"
        )
    if config["phantom"] is None and config["experiment"] == "phantom":
        yield "experiment: found 'phantom', expected another name, as the images are not the phantom's"
    own = config["regnet"]["spacing"] or config["resampling"]["spacing"]
    stages = config["regnet"]["stages"]
    least, most = WORKING_SPACINGS
    if not least <= own <= most:
        yield f"regnet.spacing: found {own:g} mm, expected {least:g} to {most:g}, as weights are used only at these"
    if stages is not None and (stages[-1] != own or any(coarse <= fine for coarse, fine in pairwise(stages))):
        yield f"regnet.stages: found {stages}, expected the largest spacing first, and last that of the network, {own:g} mm"
    if training["mode"] == "scratch" and training["weights"] is not None:
        yield f"training.weights: found {training['weights']!r}, expected null, as training.mode is scratch"
    if training["mode"] != "scratch" and training["weights"] is None:
        yield f"training.weights: found null, expected a released name or a path, as training.mode is {training['mode']}"
    samples = [("patches.block", config["patches"]["block"], "training.batch", training["batch"])]
    if warmup is not None:
        samples.append(("training.warmup.block", warmup["block"], "training.warmup.batch", warmup["batch"]))
        side = window_size(warmup["block"])
        if warmup["size"] < side:
            yield (
                f"training.warmup.size: found {warmup['size']}, expected an integer of at least {side}, "
                f"the window of a sample with training.warmup.block = {warmup['block']}"
            )
    for name, method in config["methods"].items():
        if method is not None and method["module"] == "demons" and len(method["shrink"]) != len(method["iterations"]):
            count, expected = len(method["iterations"]), len(method["shrink"])
            yield f"methods.{name}.iterations: found a list of {count}, expected one of {expected}, as methods.{name}.shrink is"
    for block_field, block, batch_field, batch in samples:
        if batch * block == 1:
            # The joint layers end in one value per sample; a single value has no standard deviation for batch normalization.
            yield f"{batch_field}: found 1, expected an integer of at least 2, as {block_field} is 1"


def _plain(value: object) -> object:
    """A copy of a value in dicts and lists whose keys are text: YAML reads ``no`` and ``1`` as other types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _lines(error: ValidationError, root: Mapping[str, Any]) -> Iterator[str]:
    """The messages of one error, without their source."""
    field = _dotted(error.absolute_path)
    prefix = f"{field}." if field else ""
    value, schema = error.instance, error.schema
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        group = f"methods.{value.get('module')}." if field.startswith("methods.") else prefix
        for key in value:
            if key in known or any(re.search(pattern, key) for pattern in patterns):
                continue
            if group + key in REMOVED:
                yield f"{prefix + key}: gone since 0.2.0, remove it: {REMOVED[group + key]}"
                continue
            close = get_close_matches(key, known, n=1)
            advice = f"did you mean {prefix + close[0]!r}?" if close else f"expected one of {', '.join(known)}"
            yield f"unknown key {prefix + key!r}, {advice}"
    elif error.validator == "required":
        # jsonschema raises one error per missing key, and only its message names the key.
        missing = next(key for key in error.validator_value if error.message.startswith(repr(key)))
        yield f"missing key {prefix + missing!r}, expected {_expected(schema['properties'][missing], root)}"
    else:
        # For `contains`, `uniqueItems` and the like, schema and value are those of the whole list.
        yield f"{field or 'the whole'}: found {_found(value)}, expected {_expected(schema, root)}{_hint(value, schema)}"


def _dotted(path: Iterable[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _found(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    for kind, name in ((str, "the text"), (int | float, "the number"), (list, "the list"), (dict, "the keys")):
        if isinstance(value, kind):
            return f"{name} {text}"
    return f"the {type(value).__name__} {value}"


def _expected(schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """Describe in words what a part of a schema allows."""
    if "title" in schema:
        return schema["title"]
    if "$ref" in schema:
        return _expected(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    phrases = [TYPES[name] for name in names]
    bounds = " and ".join(f"{words} {schema[key]}" for key, words in BOUNDS.items() if key in schema)
    if bounds:
        phrases[0] += f" {bounds}"
    if names[0] == "array":
        phrases[0] += f" of {schema['minItems']}, each {_expected(schema['items'], root)}"
    if names[0] == "object":
        phrases[0] = f"the keys {', '.join(schema['required'])}"
    return " or ".join(phrases)


def _hint(value: object, schema: Mapping[str, Any]) -> str:
    """Suggest how to write a number that YAML read as text."""
    wanted = schema.get("type", ())
    if not isinstance(value, str) or not {"integer", "number"} & {*([wanted] if isinstance(wanted, str) else wanted)}:
        return ""
    parts = re.fullmatch(r"([+-]?\d+)(\.\d*)?[eE]([+-]?)(\d+)", value)
    if parts:
        whole, fraction, sign, exponent = parts.groups()
        decimals = fraction if fraction and fraction != "." else ".0"
        number = f"{whole}{decimals}e{sign or '+'}{exponent}" if "number" in wanted else f"{float(value):.0f}"
        return f" (YAML reads {value} as text: write {number})"
    return " (write it without quotes)" if re.fullmatch(r"[+-]?\d+(\.\d*)?", value) else ""
