"""The schema of the config: it agrees with the shipped configs and config/README.md, and reports every kind of mistake."""

import copy
import json
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from snakemake.utils import update_config

from regnet.errors import ConfigError
from regnet.experiment.schemas import CONFIG_SCHEMA, FOLDER, REMOVED, check_config, problems, validator
from regnet.learning.textures import TEXTURES
from regnet.learning.training import WARMUP

CONFIG = Path(__file__).parents[2] / "config"
BASE = yaml.safe_load((CONFIG / "config.yaml").read_text(encoding="utf-8"))
OVERLAYS = sorted(path.name for path in CONFIG.glob("*.yaml") if path.name != "config.yaml")


def config_with(path, value):
    """The default config with the value of one dotted key replaced, or with `...` removed."""
    config = copy.deepcopy(BASE)
    *groups, key = path.split(".")
    section = config
    for group in groups:
        section = section[group]
    section[key] = value
    if value is ...:
        del section[key]
    return config


def message(config):
    with pytest.raises(ConfigError) as caught:
        check_config(config)
    return str(caught.value)


def schema_keys(schema=None, prefix=""):
    """Every key of the schema, in its order: dotted key, resolved schema."""
    for key, part in (schema or validator(CONFIG_SCHEMA).schema)["properties"].items():
        yield prefix + key, resolved(part)
        # Users choose the names of methods; the settings of modules are in `module_rows`.
        if "properties" in part and prefix + key != "methods":
            yield from schema_keys(part, f"{prefix}{key}.")


def config_values(config, prefix=""):
    """Every value of a config by its dotted key; a group may be null."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from config_values(value, f"{prefix}{key}.") if prefix + key != "methods" else ()
        else:
            yield prefix + key, value


def readme_rows():
    """The rows that config/README.md must have, from the schema and config/chapter.yaml."""
    chapter = dict(config_values(yaml.safe_load((CONFIG / "chapter.yaml").read_text(encoding="utf-8"))))

    def cell(value):
        return f"`{value if isinstance(value, str) else json.dumps(value)}`"

    for key, part in schema_keys():
        may_be_null = "null" in part["type"] if isinstance(part.get("type"), list) else False
        if "properties" in part and not may_be_null:
            continue
        meaning, unit = re.fullmatch(r"(.*?)(?: \[(\w+)\])?", part["description"]).groups()
        default = cell(part["default"]) if "default" in part else "the keys below"
        yield f"| `{key}` | {unit or ''} | {default} | {cell(chapter[key]) if key in chapter else ''} | {meaning} |"


def resolved(part):
    """A part of the schema with its reference resolved."""
    return {**validator(CONFIG_SCHEMA).schema["$defs"][part["$ref"].rpartition("/")[2]], **part} if "$ref" in part else part


def module_settings():
    """The settings of the modules of methods in the schema: module, key, resolved schema."""
    for name, part in validator(CONFIG_SCHEMA).schema["$defs"].items():
        module, _, kind = name.rpartition("_")
        if kind == "method" and module not in ("other", "regnet"):
            yield from (
                (module, key, resolved(setting))
                for key, setting in part["properties"].items()
                if key not in ("module", "initial")
            )


def module_rows():
    """The rows of the table of modules that config/README.md must have, from the schema."""
    for module, key, setting in module_settings():
        meaning, unit = re.fullmatch(r"(.*?)(?: \[(\w+)\])?", setting["description"]).groups()
        default = f"`{json.dumps(setting['default'])}`" if "default" in setting else ""
        yield f"| `{module}` | `{key}` | {unit or ''} | {default} | {meaning} |"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_schemas_are_strict_and_described(path):
    schema = yaml.safe_load(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)

    def walk(part, name):
        if part.get("properties", {}).keys() - {"affine", "regnet", "module", "initial"}:
            assert part["additionalProperties"] is False, name
            optional = set(part["properties"]) - set(part["required"])
            assert optional <= {"resolutions", "iterations", "grid_spacing", "mirrors", "smoothing", "initial"}, name
        for key, child in [*part.get("properties", {}).items(), *part.get("patternProperties", {}).items()]:
            described = schema["$defs"][child["$ref"].rpartition("/")[2]] if "$ref" in child else child
            assert described["description"], f"{name}.{key}"
            walk(child, f"{name}.{key}")

    walk(schema, path.name)
    for name, part in schema.get("$defs", {}).items():
        assert part["description"], name
        walk(part, name)


def test_defaults_are_those_of_config_yaml():
    defaults = {key: part["default"] for key, part in schema_keys() if "default" in part}
    assert defaults == dict(config_values(BASE))
    # 1.0 == 1, but the README shows the values as written.
    assert json.dumps(defaults) == json.dumps(dict(config_values(BASE)))


def test_readme_has_every_key_as_in_the_schema():
    lines = (CONFIG / "README.md").read_text(encoding="utf-8").partition("## The keys")[2].splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    settings = [line for line in rows if not re.match(r"\| `[a-z_.]+\.|\| `(experiment|seed|data_root|cohort|phantom)`", line)]
    assert settings == list(module_rows())
    assert [line for line in rows if line not in settings] == list(readme_rows())


def test_peers_yaml_has_all_settings_as_in_the_schema():
    peers = yaml.safe_load((CONFIG / "peers.yaml").read_text(encoding="utf-8"))["methods"]
    assert list(peers) == ["bspline_best", "demons", "syn", "greedy", "convexadam"]
    for module, key, setting in module_settings():
        if module not in ("elastix", "pyramid"):
            assert json.dumps(peers[module][key]) == json.dumps(setting["default"]), f"{module}.{key}"


def test_methods_are_the_chapters():
    """Those of the default config but for the feature pyramid, which the chapter does not have."""
    chapter = yaml.safe_load((CONFIG / "chapter.yaml").read_text(encoding="utf-8"))["methods"]
    assert chapter == {**BASE["methods"], "regnet_pyramid": None}
    assert list(BASE["methods"]) == ["affine", "bspline_1r", "bspline_3r", "regnet", "regnet_pyramid"]


def with_overlays(*overlays):
    config = OrderedDict(copy.deepcopy(BASE))
    for overlay in overlays:
        update_config(config, yaml.safe_load((CONFIG / overlay).read_text(encoding="utf-8")))
    return config


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_shipped_configs_are_valid(overlay):
    """An overlay whose name extends that of another is applied after it."""
    below = [f"{name}.yaml" for name in ("lung_followup", "release") if overlay and overlay.startswith(f"{name}_")]
    check_config(with_overlays(*below, *([overlay] if overlay else [])))


@pytest.mark.parametrize(
    ("method", "key", "value", "expected"),
    [
        ("syn", "iterations", [], "iterations: found the list [], expected a list of integers of at least 0"),
        ("demons", "iterations", [10, 5], "iterations: found a list of 2, expected one of 3, as methods.demons.shrink is"),
        ("greedy", "iterations", "100x50", "iterations: found the text '100x50', expected a list of integers of at least 0"),
        ("greedy", "smoothing", -1, "smoothing: found the number -1, expected a number of at least 0"),
        ("convexadam", "grid", 1.5, "grid: found the number 1.5, expected an integer of at least 1"),
    ],
)
def test_wrong_settings_of_a_module_are_one_line(method, key, value, expected):
    config = with_overlays("peers.yaml")
    config["methods"][method][key] = value
    text = message(config)
    assert text.startswith(f"config: methods.{method}.{expected}")
    assert "\n" not in text
    del config["methods"][method][key]
    assert message(config).startswith(f"config: missing key 'methods.{method}.{key}', expected a")


@pytest.mark.parametrize(
    ("path", "value", "found", "expected"),
    [
        (
            "experiment",
            "../x",
            "the text '../x'",
            "a folder name of letters, digits, _ . - that starts with a letter, a digit or _",
        ),
        ("experiment", "..", "the text '..'", "a folder name"),
        ("experiment", "a/b", "the text 'a/b'", "a folder name"),
        ("experiment", 2017, "the number 2017", "a folder name"),
        ("seed", -1, "the number -1", "an integer of at least 0"),
        ("seed", 1.0, "the number 1.0", "an integer of at least 0"),
        ("seed", "17", "the text '17'", "an integer of at least 0 (write it without quotes)"),
        ("cohort", None, "null", "the path of a folder"),
        ("data_root", "", "the text ''", "the path of a folder"),
        ("phantom", 3, "the number 3", "the keys spacing, scale, landmarks or null"),
        ("phantom.spacing", [1, 1], "the list [1, 1]", "a list of 3, each a number above 0"),
        ("resampling", None, "null", "the keys spacing"),
        ("resampling.spacing", 0, "the number 0", "a number above 0"),
        ("resampling.spacing", True, "true", "a number above 0"),
        ("resampling.spacing", float("nan"), "the number nan", "a number above 0"),
        ("resampling.spacing", float("inf"), "the number inf", "a number above 0"),
        ("regnet.spacing", "fine", "the text 'fine'", "a number above 0 or null"),
        ("pyramid.spacings", [0.01], "the number 0.01", "a number of at least 0.1 and of at most 20"),
        ("pyramid.spacings", [1, 50], "the number 50", "a number of at least 0.1 and of at most 20"),
        ("regnet.window", [-1000], "the list [-1000]", "a list of 2"),
        ("regnet.window", [400, -1000], "[400, -1000]", "the lowest HU first"),
        ("regnet.stride", 3, "the number 3", "one of 1, 2"),
        ("regnet.region", "lungs", "the text 'lungs'", "one of image, mask"),
        ("regnet.max_memory_gib", 0, "the number 0", "a number above 0"),
        ("patches.block", 0, "the number 0", "an integer of at least 1"),
        ("synthesis.frequencies.low.points", 2, "the number 2", "an integer of at least 3"),
        ("training.learning_rate", "1e-4", "the text '1e-4'", "a number above 0 and of at most 1 (YAML reads 1e-4 as text: "),
        ("training.learning_rate", "1.5E5", "the text '1.5E5'", "write 1.5e+5)"),
        (
            "training.steps_per_epoch",
            "1e3",
            "the text '1e3'",
            "an integer of at least 1 or null (YAML reads 1e3 as text: write ",
        ),
        ("training.epochs", True, "true", "an integer of at least 1"),
        ("training.flips", "on", "the text 'on'", "true or false"),
        ("training.schedule", "linear", "the text 'linear'", "one of decay, cosine"),
        ("training.precision", "float16", "the text 'float16'", "one of auto, float32, bfloat16"),
        ("training.variants", ["regnet_early"], "the list ['regnet_early']", "a list of regnet and any of"),
        ("training.variants", ["regnet", "regnet"], "the list ['regnet', 'regnet']", "a list of regnet and any of"),
        ("training.variants", [], "the list []", "a list of regnet and any of"),
        ("training.mode", "fine-tune", "the text 'fine-tune'", "one of scratch, finetune, released"),
        ("training.weights", "regnet_2mm", "'regnet_2mm'", "null, as training.mode is scratch"),
        (
            "training.weights",
            "{vriant}_2mm",
            "the text '{vriant}_2mm'",
            "a released name or the path of a safetensors file, with",
        ),
        ("regnet.stages", [1, 2], "[1, 2]", "the largest spacing first, and last that of the network, 2 mm"),
        ("regnet.stages", [4, 1], "[4, 1]", "last that of the network, 2 mm"),
        ("regnet.stages", [4, 0], "the number 0", "a number of at least 0.1 and of at most 20"),
        ("regnet.stage_weights", "regnet_4mm", "the text 'regnet_4mm'", "with {spacing} for the spacing of the stage"),
        ("training.warmup.size", 59, "59", "at least 60, the window of a sample with training.warmup.block = 4"),
        ("registration.margin", -1, "the number -1", "a number of at least 0 or null"),
        ("methods.bspline_1r.iterations", 0, "the number 0", "an integer of at least 1"),
        ("methods.affine", None, "null", "the keys of a method, module among them"),
        ("methods.more", 3, "the number 3", "the keys of a method, module among them, or null"),
        (
            "methods.more",
            {"module": "regnet"},
            "the text 'regnet'",
            "one of elastix, demons, syn, greedy, convexadam, pyramid, the path",
        ),
        ("methods.more", {"module": "my method"}, "the text 'my method'", "one of elastix, demons, syn, greedy, convexadam"),
        ("methods.regnet", {"module": "elastix"}, "the text 'elastix'", "regnet"),
        ("data_root", "/data/scans", "'/data/scans'", "a folder in results/"),
    ],
)
def test_wrong_values_are_one_line(path, value, found, expected):
    text = message(config_with(path, value))
    field = f"{path}.module" if isinstance(value, dict) else path
    assert re.match(rf"config: {re.escape(field)}(\[\d+\])?: found {re.escape(found)}, expected ", text)
    assert expected in text
    assert "\n" not in text


def test_number_hint_is_what_yaml_reads_as_a_number():
    for value in ("1e-4", "1e4", "2.5e-3", "2.e3", "-1E+2"):
        written = re.search(r"write (\S+)\)", message(config_with("resampling.spacing", value))).group(1)
        assert yaml.safe_load(written) == float(value)


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("traning", "did you mean 'training'?"),
        ("training.learning_rat", "did you mean 'training.learning_rate'?"),
        ("training.warmup.Steps", "did you mean 'training.warmup.steps'?"),
        ("methods.affine.iteration", "did you mean 'methods.affine.iterations'?"),
        ("methods.bspline_1r.spacing", "did you mean 'methods.bspline_1r.grid_spacing'?"),
        ("methods.Affine", "did you mean 'methods.affine'?"),
        ("methods.1r", "expected one of affine, regnet"),
        ("methods.regnet.passes", "expected one of module, initial"),
        ("patches.zzz", "expected one of per_pair, block, evaluation_per_pair, evaluation_block"),
    ],
)
def test_unknown_keys(path, advice):
    assert message(config_with(path, 1)) == f"config: unknown key '{path}', {advice}"


@pytest.mark.parametrize(("path", "advice"), REMOVED.items())
def test_removed_keys_say_what_to_do(path, advice):
    """A setting of a method is recognized by the module, whatever the name of the method."""
    *groups, key = path.split(".")
    config = with_overlays("peers.yaml")
    if groups[0] == "methods":
        config["methods"]["mine"] = config["methods"].pop(groups[1])
        groups = ["methods", "mine"]
    section = config
    for group in groups:
        section = section[group]
    section[key] = 1
    assert message(config) == f"config: {'.'.join([*groups, key])}: gone since 0.2.0, remove it: {advice}"


def test_removed_keys_of_the_warm_up_have_the_values_of_the_code():
    for key, value in {**WARMUP, **TEXTURES}.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if key not in ("schedule", "decay", "freeze_after"):
            assert all(re.search(rf"\b{number}\b", REMOVED[f"training.warmup.{key}"]) for number in numbers), key
    assert len({**WARMUP, **TEXTURES}) == sum(key.startswith("training.warmup.") for key in REMOVED)


def test_keys_that_yaml_does_not_read_as_text():
    assert message({**BASE, False: 1}).startswith("config: unknown key 'False', expected one of experiment")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("training.batch", "an integer of at least 1"),
        ("methods.affine", "the keys of a method, module among them"),
        (
            "methods.bspline_3r.module",
            "one of elastix, demons, syn, greedy, convexadam, pyramid, the path of a .py file, or a module that Python can "
            "import",
        ),
        ("methods.bspline_3r.parameters", "the path of a file, without { and }"),
        ("synthesis.moving.sigma", "a number above 0"),
    ],
)
def test_missing_keys(path, expected):
    assert message(config_with(path, ...)) == f"config: missing key '{path}', expected {expected}"


@pytest.mark.parametrize("mode", ["finetune", "released"])
def test_weights_are_required_by_the_modes_that_need_them(mode):
    expected = f"config: training.weights: found null, expected a released name or a path, as training.mode is {mode}"
    assert message(config_with("training.mode", mode)) == expected
    config = config_with("training.mode", mode)
    config["training"]["weights"] = "results/mine/models/{variant}/model.safetensors"
    check_config(config)


def test_all_problems_are_listed_once_each():
    config = config_with("training.epochs", 0)
    config["traning"] = {}
    config["seed"] = None
    lines = message(config).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("config: ") for line in lines)


def test_optional_values():
    config = config_with("methods.affine", {"module": "elastix", "parameters": "mine.txt"})
    config["methods"]["bspline_1r_ncc"] = {"module": "elastix", "parameters": "mine.txt", "grid_spacing": 12.5}
    config["methods"] |= {
        "bspline_1r": None,
        "regnet": None,
        "mine": {"module": "methods/mine.py", "whatever": {"it": "reads"}},
    }
    config["methods"]["installed"] = {"module": "my_package.my_module"}
    config["registration"]["margin"] = None
    config["training"].update(warmup=None, steps_per_epoch=None)
    config["regnet"]["spacing"] = 1
    check_config(config)
    check_config({**config, "experiment": "mine", "phantom": None, "data_root": "/data/scans"})
    with pytest.raises(ConfigError, match="experiment: found 'phantom'"):
        check_config({**config, "phantom": None, "data_root": "/data/scans"})


def test_batch_normalization_needs_two_values():
    config = config_with("training.batch", 1)
    check_config(config)
    config["patches"]["block"] = 1
    assert message(config) == "config: training.batch: found 1, expected an integer of at least 2, as patches.block is 1"
    config = config_with("training.warmup.batch", 1)
    config["training"]["warmup"]["block"] = 1
    assert message(config).startswith("config: training.warmup.batch: found 1, expected an integer of at least 2")


def test_messages_name_the_source():
    row = {"image": "a", "subject": "a", "split": "training", "path": "a.nii", "mask": ""}
    assert problems(row, FOLDER / "images.schema.yaml", "images.tsv, row 3") == [
        "images.tsv, row 3: split: found the text 'training', expected one of train, validation, test"
    ]
