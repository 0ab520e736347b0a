# Needs the tables, the machines that jobs ran on, and all that went in. Gives a provenance file beside each table.

# The tables that get a provenance file: where they are below the results, and the kinds of their files.
WITH_PROVENANCE = {f"tables/{table}": kinds for table, (_, kinds) in TABLES.items()}
WITH_PROVENANCE |= {f"evaluation/{table}": ["csv"] for table in [*LONG_TABLES, *(["field_statistics"] if TRAINED else [])]}

# The jobs whose machines are kept: those whose numbers depend on more than the order of their rows.
COMPUTED = [
    *([("train", f"models/{variant}/machine.json") for variant in VARIANTS] if TRAINED else []),
    *([("train", "models/regnet_pyramid/machine.json")] if any(map(is_trained_here, METHODS)) else []),
    *(
        (f"register {method}", f"registrations/{method}/{pair}/machine.json")
        for method in METHODS
        for pair in cohort.test_pairs()
    ),
    *(("evaluate_synthetic", f"evaluation/synthetic/{variant}_{split}.machine.json") for variant, split in EVALUATED),
]

# What makes a script one of figures and pages: numbers in the tables do not depend on those.
SHOWING = re.compile("presentation/(figures/|slices|report|viewer)")
NUMERICAL_SCRIPTS = [script for script in scripts() if not any(map(SHOWING.search, code_of(script)))]
NUMERICAL_CODE = sorted(
    {path for name in NUMERICAL_SCRIPTS for path in (os.path.relpath(SCRIPTS / f"{name}.py"), *code_of(name))}
)

# The networks whose weights are the run's: those of the config, and the feature pyramid where a method has it trained.
USED_VARIANTS = [*VARIANTS, *(["regnet_pyramid"] if any(map(is_trained_here, METHODS)) else [])]

GIVEN_WEIGHTS = dict.fromkeys(
    [
        *(given_weights(variant) for variant in VARIANTS if config["training"]["mode"] != "scratch"),
        *(stage_weights(spacing) for spacing in STAGES if spacing != NETWORK_SPACING),
        *(weights for method in METHODS if not is_trained_here(method) and (weights := method_weights(method))),
    ]
)


rule provenances:
    """A file beside each table that says where it comes from."""
    input:
        expand(f"{RESULTS}/{{table}}.provenance.json", table=WITH_PROVENANCE),


rule collect_provenance:
    """Put down what the tables come from: config, code, the checksums of all that went in, and the machines."""
    input:
        tables=[f"{config['cohort']}/images.tsv", f"{config['cohort']}/pairs.tsv"],
        images=[path for column in ("path", "mask") for path in cohort.images[column] if path],
        landmarks=[path for side in ("fixed", "moving") for path in cohort.pairs[f"{side}_landmarks"] if path],
        methods=list(dict.fromkeys(path for method in METHODS for path in method_files(SETTINGS[method]))),
        given_weights=list(GIVEN_WEIGHTS),
        weights=expand("results/{experiment}/models/{variant}/model.safetensors", variant=USED_VARIANTS, allow_missing=True),
        machines=[f"{RESULTS}/{path}" for _, path in COMPUTED],
        code=NUMERICAL_CODE,
    output:
        facts="results/{experiment}/evaluation/provenance.json",
    log:
        "results/{experiment}/logs/collect_provenance.log",
    conda:
        "../../environment.yml"
    resources:
        runtime=growing(60),
    params:
        config=config,
        steps=[step for step, _ in COMPUTED],
    script:
        "../scripts/collect_provenance.py"


rule provenance:
    """Write beside each table what it comes from."""
    input:
        facts="results/{experiment}/evaluation/provenance.json",
        tables=[f"{RESULTS}/{table}.{kind}" for table, kinds in WITH_PROVENANCE.items() for kind in kinds],
        code=code_of("provenance"),
    output:
        expand("results/{experiment}/{table}.provenance.json", table=WITH_PROVENANCE, allow_missing=True),
    log:
        "results/{experiment}/logs/provenance.log",
    conda:
        "../../environment.yml"
    params:
        tables=WITH_PROVENANCE,
    script:
        "../scripts/provenance.py"
