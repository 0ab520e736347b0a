# Needs transforms, landmarks, weights and synthetic pairs. Gives long tables of errors, and the slices that figures show.

# The DVFs of the training images by kind.
FIELDS = {kind: synthetic_pairs("train", "synthetic/{image}/{pair}/dvf.npz", pair_names([kind])) for kind in FREQUENCIES}
FIELDS["moving"] = [f"{RESULTS}/synthetic/{image}/deformed_dvf.npz" for image in cohort.images_of("train")]

# The networks and splits with rows of MAE: RegNet's variants, and the feature pyramids of the methods.
EVALUATED = [
    *((variant, "validation") for variant in VARIANTS),
    ("regnet", "test"),
    *((method, split) for method in PYRAMIDS for split in ("validation", "test")),
]

# The long tables, and the files that each collects.
LONG_TABLES = {
    "landmarks": [f"{RESULTS}/evaluation/landmarks/{pair}.csv" for pair in cohort.pairs_with_landmarks()],
    "synthetic": [f"{RESULTS}/evaluation/synthetic/{network}_{split}.csv" for network, split in EVALUATED],
    "regularity": [f"{RESULTS}/evaluation/regularity/{pair}.csv" for pair in cohort.test_pairs()],
}
if TRUE_FIELDS:
    LONG_TABLES["field_errors"] = [f"{RESULTS}/evaluation/field_errors/{pair}.csv" for pair in TRUE_FIELDS]


rule evaluate_synthetic:
    """Measure a network on the samples of the synthetic pairs of a split."""
    input:
        weights=lambda wildcards: weights_of(wildcards.network),
        samples=synthetic_of_split("patches/{image}/{pair}.npz"),
        fixed=synthetic_of_split("synthetic/{image}/{pair}/fixed.npy"),
        moving=synthetic_of_split("synthetic/{image}/{moving}.npy"),
        dvf=synthetic_of_split("synthetic/{image}/{pair}/dvf.npz"),
        code=code_of("evaluate_synthetic"),
    output:
        errors="results/{experiment}/evaluation/synthetic/{network}_{split}.csv",
        machine="results/{experiment}/evaluation/synthetic/{network}_{split}.machine.json",
    log:
        "results/{experiment}/logs/evaluate_synthetic/{network}_{split}.log",
    conda:
        "../../environment.yml"
    threads: config["training"]["threads"]
    resources:
        gpu=1,
        mem_mb=growing(6000),
        runtime=growing(60),
    params:
        inference={key: config["regnet"][key] for key in ("precision", "max_memory_gib")},
        names=lambda wildcards: [(image, *pair) for image in cohort.images_of(wildcards.split) for pair in SYNTHETIC_PAIRS],
    script:
        "../scripts/evaluate_synthetic.py"


rule evaluate_landmarks:
    """Measure all methods on the landmarks of a pair."""
    input:
        transforms=transforms_of("{pair}"),
        fixed_landmarks=of_pair("fixed_landmarks"),
        moving_landmarks=of_pair("moving_landmarks"),
        fixed=given_image("fixed"),
        moving=given_image("moving"),
        code=code_of("evaluate_landmarks"),
    output:
        errors="results/{experiment}/evaluation/landmarks/{pair}.csv",
    log:
        "results/{experiment}/logs/evaluate_landmarks/{pair}.log",
    conda:
        "../../environment.yml"
    params:
        methods=METHODS,
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/evaluate_landmarks.py"


rule seeds:
    """Register the pairs with landmarks with four more seeds, by every method that draws random numbers: the spread of the TRE."""
    input:
        f"{RESULTS}/evaluation/seeds.csv",


rule evaluate_seeds:
    """Measure the spread of the landmark errors over five seeds."""
    input:
        errors=LONG_TABLES["landmarks"],
        again=[f"{RESULTS}/seeds/{again}/{method}/{pair}/transform.h5" for again, method, pair in REPEATED],
        code=code_of("evaluate_seeds"),
    output:
        spread="results/{experiment}/evaluation/seeds.csv",
    log:
        "results/{experiment}/logs/evaluate_seeds.log",
    conda:
        "../../environment.yml"
    params:
        again=REPEATED,
    script:
        "../scripts/evaluate_seeds.py"


rule evaluate_regularity:
    """Measure the Jacobian determinants of all methods in the lungs of a pair."""
    input:
        transforms=transforms_of("{pair}"),
        mask=pair_image("fixed", "_mask"),
        code=code_of("evaluate_regularity"),
    output:
        regularity="results/{experiment}/evaluation/regularity/{pair}.csv",
    log:
        "results/{experiment}/logs/evaluate_regularity/{pair}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        methods=METHODS,
    script:
        "../scripts/evaluate_regularity.py"


rule evaluate_fields:
    """Measure all methods everywhere in the lungs of a pair whose true DVF is known."""
    input:
        transforms=transforms_of("{pair}"),
        truth=lambda wildcards: TRUE_FIELDS[wildcards.pair],
        mask=pair_image("fixed", "_mask"),
        code=code_of("evaluate_fields"),
    output:
        errors="results/{experiment}/evaluation/field_errors/{pair}.csv",
    log:
        "results/{experiment}/logs/evaluate_fields/{pair}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        methods=METHODS,
    script:
        "../scripts/evaluate_fields.py"


rule collect:
    """Put the errors on synthetic pairs, or the landmark errors or Jacobian determinants of all pairs, into one long table."""
    input:
        errors=lambda wildcards: LONG_TABLES[wildcards.table],
        code=code_of("collect"),
    output:
        errors="results/{experiment}/evaluation/{table,landmarks|synthetic|regularity}.csv",
    log:
        "results/{experiment}/logs/collect_{table}.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/collect.py"


rule collect_runs:
    """Put the seconds and the peak memory of all registrations into one long table."""
    input:
        benchmarks=expand(f"{RESULTS}/benchmarks/register/{{method}}/{{pair}}.tsv", method=METHODS, pair=cohort.test_pairs()),
        code=code_of("collect_runs"),
    output:
        runs="results/{experiment}/evaluation/runs.csv",
    log:
        "results/{experiment}/logs/collect_runs.log",
    conda:
        "../../environment.yml"
    params:
        runs=[(method, pair) for method in METHODS for pair in cohort.test_pairs()],
    script:
        "../scripts/collect_runs.py"


rule field_statistics:
    """Describe the synthetic DVFs of the training images: displacement, spectrum, Jacobian determinant, folding."""
    input:
        dvf=[path for paths in FIELDS.values() for path in paths],
        code=code_of("field_statistics"),
    output:
        distributions="results/{experiment}/evaluation/field_distributions.csv",
        summary="results/{experiment}/evaluation/field_statistics.csv",
    log:
        "results/{experiment}/logs/field_statistics.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(60),
    params:
        kinds=[kind for kind, paths in FIELDS.items() for _ in paths],
    script:
        "../scripts/field_statistics.py"


rule slice_fields:
    """Keep one slice of three synthetic DVFs for Figure 2.2."""
    input:
        image=f"{RESULTS}/images/{NETWORK_SPACING}mm/{EXAMPLE_IMAGE}.nii.gz",
        mask=f"{RESULTS}/images/{NETWORK_SPACING}mm/{EXAMPLE_IMAGE}_mask.nii.gz",
        dvf=[f"{RESULTS}/synthetic/{EXAMPLE_IMAGE}/{PairName('original', kind)}/dvf.npz" for kind in FREQUENCIES],
        code=code_of("slice_fields"),
    output:
        slices="results/{experiment}/evaluation/field_slices.npz",
    log:
        "results/{experiment}/logs/slice_fields.log",
    conda:
        "../../environment.yml"
    params:
        frequencies=FREQUENCIES,
    script:
        "../scripts/slice_fields.py"


rule slice_example:
    """Keep one slice of a test pair under all transforms for Figure 2.5, and their Jacobian determinants there."""
    input:
        fixed=pair_image("fixed", pair=EXAMPLE_PAIR),
        mask=pair_image("fixed", "_mask", pair=EXAMPLE_PAIR),
        moving=pair_image("moving", pair=EXAMPLE_PAIR),
        transforms=transforms_of(EXAMPLE_PAIR),
        code=code_of("slice_example"),
    output:
        slices="results/{experiment}/evaluation/example_slices.npz",
        jacobian="results/{experiment}/evaluation/jacobian_slices.npz",
    log:
        "results/{experiment}/logs/slice_example.log",
    conda:
        "../../environment.yml"
    params:
        pair=EXAMPLE_PAIR,
        methods=METHODS,
    script:
        "../scripts/slice_example.py"


if TRUE_FIELDS:

    use rule collect as collect_fields with:
        """Put the errors of the whole field of all pairs and methods into one long table."""
        input:
            errors=LONG_TABLES["field_errors"],
            code=code_of("collect"),
        output:
            errors="results/{experiment}/evaluation/field_errors.csv",
        log:
            "results/{experiment}/logs/collect_fields.log",

    rule slice_field_error:
        """Keep the error of the whole field on one slice of a test pair whose true DVF is known."""
        input:
            fixed=pair_image("fixed", pair=TRUTH_PAIR),
            mask=pair_image("fixed", "_mask", pair=TRUTH_PAIR),
            truth=TRUE_FIELDS[TRUTH_PAIR],
            transforms=transforms_of(TRUTH_PAIR),
            code=code_of("slice_field_error"),
        output:
            slices="results/{experiment}/evaluation/field_error_slices.npz",
        log:
            "results/{experiment}/logs/slice_field_error.log",
        conda:
            "../../environment.yml"
        params:
            pair=TRUTH_PAIR,
            methods=METHODS,
        script:
            "../scripts/slice_field_error.py"
