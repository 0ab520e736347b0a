# What all rules share: the checked config, the cohort, the names that wildcards may take, and the package's source files.

import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.append(str(Path(str(workflow.current_basedir)).parent / "scripts"))

from regnet.experiment.checking import checked_cohort
from regnet.errors import RegNetError
from regnet.system.jobs import STARTED_BY
from regnet.system.source_files import code_of, scripts
from regnet.registration.methods import configured, memory_mb, method_files
from regnet.synthesis.pair_names import MOVING, PairName, pair_names
from regnet.system.resources import shipped
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.released import find_weights

try:
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

STAGES = [f"{spacing:g}" for spacing in config["regnet"]["stages"] or []] or [NETWORK_SPACING]

# How the network is applied to a pair: the keys of the config that say so.
INFERENCE = list(InferenceSettings.__dataclass_fields__)

VARIANTS = config["training"]["variants"]
TRAINED = config["training"]["mode"] != "released"
TRAINING_IMAGES = [name for split in ("train", "validation") for name in cohort.images_of(split) if TRAINED]
FREQUENCIES = list(config["synthesis"]["frequencies"])
SETTINGS = configured(config["methods"])
METHODS = list(SETTINGS)

SYNTHETIC_PAIRS = pair_names(FREQUENCIES)


# Methods that draw random numbers, and how often each pair is registered again with the next seed: five seeds in all.
SEEDED = [method for method in METHODS if SETTINGS[method]["module"] == "elastix"]
AGAIN = ["1", "2", "3", "4"]


wildcard_constraints:
    again="|".join(AGAIN),
    experiment=re.escape(config["experiment"]),
    # The pattern of names, not the names: Snakemake goes through it for each file of each job.
    image=r"[\w.-]+(?<!_mask)",
    pair=r"[\w.-]+",
    subject=r"[\w.-]+",
    split="train|validation|test",
    variant="|".join(VARIANTS),
    method="|".join(METHODS),
    spacing="|".join(map(re.escape, dict.fromkeys([SPACING, NETWORK_SPACING, *STAGES]))),


def growing(amount):
    """A resource, or a function of the wildcards that says how much of it, times the number of the attempt.

    A cluster ends jobs that exceed their memory or time; where the profile has `retries` they come back with more.
    """
    if callable(amount):
        return lambda wildcards, attempt: attempt * amount(wildcards)
    return lambda wildcards, attempt: attempt * amount


def of_cohort(table, name, column):
    """A cell of the cohort's images or pairs; a target of the user's may have a name that is none of theirs."""
    try:
        return getattr(cohort, table).loc[name, column]
    except KeyError:
        raise WorkflowError(f"{config['cohort']}/{table}.tsv: found no {name!r} in it, which a target needs") from None


def synthetic_pairs(split, pattern):
    """One path per synthetic pair of a split, from a pattern below the results with {image}, {pair} and {moving}."""
    return [
        f"{RESULTS}/{pattern.format(image=image, pair=pair, moving=pair.moving)}"
        for image in cohort.images_of(split)
        for pair in SYNTHETIC_PAIRS
    ]


def transforms_of(pair):
    """One transform per method of a pair, in the order of the methods; `pair` may be a wildcard."""
    return expand(
        "results/{experiment}/registrations/{method}/{pair}/transform.h5", method=METHODS, pair=pair, allow_missing=True
    )


def pair_image(side, spacing, suffix=""):
    """An input function: the fixed or moving image of a pair, or with a suffix its mask, on the grid of a spacing."""

    def path(wildcards):
        return f"{RESULTS}/images/{spacing}mm/{of_cohort('pairs', wildcards.pair, side)}{suffix}.nii.gz"

    return path


def true_field(pair):
    """The true DVF of a pair, which is known from the baseline to the follow-up scan of a phantom; None for other pairs."""
    if config["phantom"] is None:
        return None
    fixed, moving, subject = cohort.pairs.loc[pair, ["fixed", "moving", "subject"]]
    made = [f"{DATA_ROOT}/{subject}_{scan}.nii.gz" for scan in ("baseline", "followup")]
    given = [os.path.normpath(cohort.images.loc[image, "path"]) for image in (fixed, moving)]
    return f"{DATA_ROOT}/{subject}_dvf.nii.gz" if given == made else None


def stage_images(side, suffix=""):
    """An input function: the same for the spacing of each stage of a registration."""
    paths = [pair_image(side, spacing, suffix) for spacing in STAGES]
    return lambda wildcards: [path(wildcards) for path in paths]


def given_image(side):
    """An input function: the fixed or moving image of a pair as the cohort gives it."""
    return lambda wildcards: of_cohort("images", of_cohort("pairs", wildcards.pair, side), "path")


def landmarks_of(side):
    """An input function: the fixed or moving landmarks of a pair, or none where the cohort has none."""
    return lambda wildcards: of_cohort("pairs", wildcards.pair, f"{side}_landmarks") or []


def given_mask(wildcards):
    """The mask that the cohort gives for an image, else the segmented one."""
    return of_cohort("images", wildcards.image, "mask") or f"{RESULTS}/masks/{wildcards.image}.nii.gz"


def given_weights(variant):
    """The weights that the config gives for a variant, by a released name or a path."""
    return os.path.relpath(find_weights(config["training"]["weights"].format(variant=variant)))


def stage_weights(spacing):
    """The weights of a stage of a registration: those of the experiment at its spacing, at others the config's."""
    if spacing == NETWORK_SPACING:
        return f"{RESULTS}/models/regnet/model.safetensors"
    return os.path.relpath(find_weights(config["regnet"]["stage_weights"].format(spacing=spacing)))


def initial_transform(wildcards):
    """The affine registration that every other method starts from; the affine one itself starts from nothing."""
    return [] if wildcards.method == "affine" else f"{RESULTS}/registrations/affine/{wildcards.pair}/transform.h5"


def synthetic_of_split(pattern):
    """An input function: the paths of all synthetic pairs of the split of the wildcards."""
    return lambda wildcards: synthetic_pairs(wildcards.split, pattern)
