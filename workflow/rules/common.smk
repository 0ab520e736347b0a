# What all rules share: the checked config, the cohort, names that stand in several rules, and functions that find files.

import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.append(str(Path(str(workflow.current_basedir)).parent / "scripts"))

from regnet.experiment.checking import checked_cohort, refuse_templates
from regnet.errors import RegNetError
from regnet.system.jobs import STARTED_BY
from regnet.system.source_files import SCRIPTS, code_of, scripts, source_files
from regnet.registration.methods import configured, memory_mb, method_files, starts_from
from regnet.synthesis.pair_names import PairName, pair_names
from regnet.system.resources import shipped
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.released import find_weights

try:
    if workflow.is_main_process:
        refuse_templates(workflow.configfiles)
    # Jobs read this file again, each in a process of its own: there nobody has to look into the images once more.
    cohort = checked_cohort(config, files=workflow.is_main_process)
except RegNetError as error:
    raise WorkflowError(str(error)) from None

# Jobs end with the process that starts them, even if it is killed.
os.environ[STARTED_BY] = str(os.getpid())

DATA_ROOT = os.path.normpath(config["data_root"])
RESULTS = f"results/{config['experiment']}"

SPACING = f"{config['resampling']['spacing']:g}"
NETWORK_SPACING = f"{config['regnet']['spacing'] or config['resampling']['spacing']:g}"

PYRAMID_SPACINGS = [f"{spacing:g}" for spacing in config["pyramid"]["spacings"]]

STAGES = [f"{spacing:g}" for spacing in config["regnet"]["stages"] or []] or [NETWORK_SPACING]

# How the network is applied to a pair: the keys of the config that say so.
INFERENCE = list(InferenceSettings.__dataclass_fields__)

VARIANTS = config["training"]["variants"]
TRAINED = config["training"]["mode"] != "released"
TRAINING_IMAGES = [name for split in ("train", "validation") for name in cohort.images_of(split) if TRAINED]
FREQUENCIES = list(config["synthesis"]["frequencies"])
SETTINGS = configured(config["methods"])
METHODS = list(SETTINGS)
PYRAMIDS = [method for method in METHODS if SETTINGS[method]["module"] == "pyramid"]

# The tables: the title of the page in the report, where there is one, and the kinds of the files.
TABLES = {
    "table_2_1": ("Table 2.1", ["csv", "md", "tex"]),
    "comparison": ("Comparison of methods: table", ["csv", "md", "tex"]),
    "comparison_tests": (None, ["csv"]),
    "capture_range": ("Capture range: table", ["csv", "md"]),
}

SYNTHETIC_PAIRS = pair_names(FREQUENCIES)

# Methods that draw random numbers, and how often each pair is registered again with the next seed: five seeds in all.
SEEDED = [method for method in METHODS if SETTINGS[method]["module"] == "elastix"]
AGAIN = ["1", "2", "3", "4"]
REPEATED = [(again, method, pair) for again in AGAIN for method in SEEDED for pair in cohort.pairs_with_landmarks()]


wildcard_constraints:
    again="|".join(AGAIN),
    experiment=re.escape(config["experiment"]),
    # The pattern of names, not the names: Snakemake goes through it for each file of each job.
    image=r"[\w.-]+(?<!_mask)",
    pair=r"[\w.-]+",
    subject=r"[\w.-]+",
    split="train|validation|test",
    variant="|".join(VARIANTS),
    network="|".join([*VARIANTS, *PYRAMIDS]),
    trained="|".join([*VARIANTS, "regnet_pyramid"]),
    method="|".join(METHODS),
    spacing="|".join(map(re.escape, dict.fromkeys([SPACING, NETWORK_SPACING, *STAGES, *PYRAMID_SPACINGS]))),


def growing(amount):
    """A resource, or a function of the wildcards that says how much of it, times the number of the attempt.

    A cluster ends jobs that exceed their memory or time; where the profile has `retries` they come back with more.
    """
    if callable(amount):
        return lambda wildcards, attempt: attempt * amount(wildcards)
    return lambda wildcards, attempt: attempt * amount


def cell(table, name, column, optional=False):
    """A cell of the cohort's images or pairs. An empty one is an error, or [] (no file) where it is optional."""
    rows, path = getattr(cohort, table), f"{config['cohort']}/{table}.tsv"
    if name not in rows.index:
        raise WorkflowError(f"{path}: found no {name!r} in it, which a target needs")
    if not rows.at[name, column] and not optional:
        raise WorkflowError(f"{path}: found no {column} of {name!r}, which a target needs")
    return rows.at[name, column] or []


def of_image(column):
    """A function of the wildcards: the cell of {image} in a column of the cohort's images."""
    return lambda wildcards: cell("images", wildcards.image, column)


def of_pair(column, optional=False):
    """A function of the wildcards: the cell of {pair} in a column of the cohort's pairs."""
    return lambda wildcards: cell("pairs", wildcards.pair, column, optional)


def given_image(side):
    """A function of the wildcards: the fixed or moving image of {pair} as the cohort gives it."""
    return lambda wildcards: cell("images", cell("pairs", wildcards.pair, side), "path")


def pair_image(side, suffix="", spacing=SPACING, pair=None):
    """A function of the wildcards: the fixed or moving image of {pair}, or of `pair`, on a grid; its mask with a suffix."""
    return lambda wildcards: f"{RESULTS}/images/{spacing}mm/{cell('pairs', pair or wildcards.pair, side)}{suffix}.nii.gz"


def stage_images(side, suffix=""):
    """A function of the wildcards: the same on the grid of each stage of a registration."""
    paths = [pair_image(side, suffix, spacing) for spacing in STAGES]
    return lambda wildcards: [path(wildcards) for path in paths]


def given_mask(wildcards):
    """The mask that the cohort gives for an image, else the segmented one."""
    return cell("images", wildcards.image, "mask", optional=True) or f"{RESULTS}/masks/{wildcards.image}.nii.gz"


def synthetic_pairs(split, pattern, pairs=SYNTHETIC_PAIRS):
    """One path per synthetic pair of a split, from a pattern below the results with {image}, {pair} and {moving}."""
    return [
        f"{RESULTS}/{pattern.format(image=image, pair=pair, moving=pair.moving)}"
        for image in cohort.images_of(split)
        for pair in pairs
    ]


def crop_volumes(split):
    """The volumes of a split from which crops are cut, at all spacings."""
    return expand(f"{RESULTS}/crops/{{spacing}}mm/{{image}}.npz", spacing=PYRAMID_SPACINGS, image=cohort.images_of(split))


def transforms_of(pair):
    """One transform per method of a pair, in the order of the methods; `pair` may be a wildcard."""
    return expand(
        "results/{experiment}/registrations/{method}/{pair}/transform.h5", method=METHODS, pair=pair, allow_missing=True
    )


def true_field(pair):
    """The true DVF of a pair, which is known from the baseline to the follow-up scan of a phantom; None for other pairs."""
    if config["phantom"] is None:
        return None
    subject = cell("pairs", pair, "subject")
    made = [f"{DATA_ROOT}/{subject}_{scan}.nii.gz" for scan in ("baseline", "followup")]
    given = [os.path.normpath(cell("images", cell("pairs", pair, side), "path")) for side in ("fixed", "moving")]
    return f"{DATA_ROOT}/{subject}_dvf.nii.gz" if given == made else None


TRUE_FIELDS = {pair: field for pair in cohort.test_pairs() if (field := true_field(pair)) is not None}

# What the figures of slices show. The DVFs of the training images are made only where something is trained.
EXAMPLE_IMAGE = cohort.images_of("train" if TRAINED else "validation")[0]
EXAMPLE_PAIR = cohort.test_pairs()[0]
TRUTH_PAIR = next(iter(TRUE_FIELDS), None)


def given_weights(variant):
    """The weights that the config gives for a variant, by a released name or a path."""
    return os.path.relpath(find_weights(config["training"]["weights"].format(variant=variant)))


def stage_weights(spacing):
    """The weights of a stage of a registration: those of the experiment at its spacing, at others the config's."""
    if spacing == NETWORK_SPACING:
        return f"{RESULTS}/models/regnet/model.safetensors"
    return os.path.relpath(find_weights(config["regnet"]["stage_weights"].format(spacing=spacing)))


def is_trained_here(method):
    """Whether a method is a feature pyramid that the run trains."""
    return SETTINGS[method]["module"] == "pyramid" and SETTINGS[method]["weights"] is None


def method_weights(method):
    """The weights of a feature pyramid, given ones or those that the run trains; None for other methods."""
    if is_trained_here(method):
        return f"{RESULTS}/models/regnet_pyramid/model.safetensors"
    return os.path.relpath(find_weights(SETTINGS[method]["weights"])) if SETTINGS[method]["module"] == "pyramid" else None


def weights_of(network):
    """The weights of a network: a variant of RegNet, or the feature pyramid of a method."""
    return method_weights(network) if network in PYRAMIDS else f"{RESULTS}/models/{network}/model.safetensors"


def full_settings(method):
    """The settings of a method; of a feature pyramid with the path of its weights, and what it shares with RegNet."""
    weights = method_weights(method)
    if weights is None:
        return SETTINGS[method]
    shared = {key: config["regnet"][key] for key in ("precision", "max_memory_gib")}
    return {**SETTINGS[method], "weights": weights, **shared}


def method_memory(wildcards):
    """The memory in MB for a registration with {method}: of a feature pyramid by the config's key."""
    if SETTINGS[wildcards.method]["module"] == "pyramid":
        return network_memory()
    return memory_mb(SETTINGS[wildcards.method])


def network_memory():
    """The memory in MB for a registration with a network: what a prediction may take, and room for everything else."""
    return 2000 + round(1074 * config["regnet"]["max_memory_gib"])


def initial_transform(method, pair):
    """What a method starts from: the affine registration unless the config says otherwise; the affine one from nothing."""
    initial = starts_from(method, SETTINGS)
    return [] if initial is None else f"{RESULTS}/registrations/{initial}/{pair}/transform.h5"


def synthetic_of_split(pattern):
    """A function of the wildcards: the paths of all synthetic pairs of {split}."""
    return lambda wildcards: synthetic_pairs(wildcards.split, pattern)


def table_files(table):
    """The outputs of a table."""
    _, kinds = TABLES[table]
    return {kind: f"results/{{experiment}}/tables/{table}.{kind}" for kind in kinds}


def figure_files(figure, category, result, caption=None):
    """The outputs of a figure: the PNG, which is in the report with the caption of its name, and the PDF."""
    path = f"results/{{experiment}}/figures/{figure}"
    options = {"caption": f"../report/{caption or figure}.rst", "category": category, "labels": {"result": result}}
    return {"png": report(f"{path}.png", **options), "pdf": f"{path}.pdf"}


def figure_code(module):
    """The code of a figure: what figure.py imports, and the module of presentation/figures whose function it calls."""
    return sorted({*code_of("figure"), *source_files(f"presentation.figures.{module}")})
