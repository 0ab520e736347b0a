# Needs transforms, landmarks, weights and synthetic pairs. Gives long tables of errors, and the slices that figures show.

TRAINING_FIELDS = {
    frequency: [
        f"{RESULTS}/synthetic/{image}/{PairName(moving, frequency)}/dvf.npz"
        for image in cohort.images_of("train")
        for moving in MOVING
    ]
    for frequency in FREQUENCIES
} | {"moving": [f"{RESULTS}/synthetic/{image}/deformed_dvf.npz" for image in cohort.images_of("train")]}

# The image whose DVFs Figure 2.2 shows: those of the training images are made only where something is trained.
SHOWN = cohort.images_of("train" if TRAINED else "validation")[0]

TRUE_FIELDS = {pair: true_field(pair) for pair in cohort.test_pairs() if true_field(pair)}

EVALUATED = [*((variant, "validation") for variant in VARIANTS), ("regnet", "test")]


rule evaluate_synthetic:
    """Measure a network on the samples of the synthetic pairs of a split."""
    input:
        weights="results/{experiment}/models/{variant}/model.safetensors",
        samples=synthetic_of_split("patches/{image}/{pair}.npz"),
        fixed=synthetic_of_split("synthetic/{image}/{pair}/fixed.npy"),
        moving=synthetic_of_split("synthetic/{image}/{moving}.npy"),
        dvf=synthetic_of_split("synthetic/{image}/{pair}/dvf.npz"),
        code=code_of("evaluate_synthetic"),
    output:
        errors="results/{experiment}/evaluation/synthetic/{variant}_{split}.csv",
        machine="results/{experiment}/evaluation/synthetic/{variant}_{split}.machine.json",
    log:
        "results/{experiment}/logs/evaluate_synthetic/{variant}_{split}.log",
    conda:
        "../../environment.yml"
    threads: config["training"]["threads"]
    resources:
        gpu=1,
        mem_mb=growing(6000),
        runtime=growing(60),
    params:
        names=lambda wildcards: [(image, *pair) for image in cohort.images_of(wildcards.split) for pair in SYNTHETIC_PAIRS],
    script:
        "../scripts/evaluate_synthetic.py"


rule evaluate_landmarks:
    """Measure all methods on the landmarks of a pair."""
    input:
        transforms=transforms_of("{pair}"),
        fixed_landmarks=lambda wildcards: of_cohort("pairs", wildcards.pair, "fixed_landmarks"),
        moving_landmarks=lambda wildcards: of_cohort("pairs", wildcards.pair, "moving_landmarks"),
        fixed=given_image("fixed"),
        moving=given_image("moving"),
        code=code_of("evaluate_landmarks"),
    output:
        errors="results/{experiment}/evaluation/landmarks/{pair}.csv",
    log:
        "results/{experiment}/logs/evaluate_landmarks/{pair}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
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
        errors=[f"{RESULTS}/evaluation/landmarks/{pair}.csv" for pair in cohort.pairs_with_landmarks()],
        again=expand(
            "results/{experiment}/seeds/{again}/{method}/{pair}/transform.h5",
            again=AGAIN,
            method=SEEDED,
            pair=cohort.pairs_with_landmarks(),
            allow_missing=True,
        ),
        code=code_of("evaluate_seeds"),
    output:
        spread="results/{experiment}/evaluation/seeds.csv",
    log:
        "results/{experiment}/logs/evaluate_seeds.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        again=[(again, method, pair) for again in AGAIN for method in SEEDED for pair in cohort.pairs_with_landmarks()],
    script:
        "../scripts/evaluate_seeds.py"


rule evaluate_regularity:
    """Measure the Jacobian determinants of all methods in the lungs of a pair."""
    input:
        transforms=transforms_of("{pair}"),
        mask=pair_image("fixed", SPACING, "_mask"),
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
        mask=pair_image("fixed", SPACING, "_mask"),
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


rule collect_synthetic:
    """Put the errors on synthetic pairs into one long table."""
    input:
        errors=[f"{RESULTS}/evaluation/synthetic/{variant}_{split}.csv" for variant, split in EVALUATED],
        code=code_of("collect"),
    output:
        errors="results/{experiment}/evaluation/synthetic.csv",
    log:
        "results/{experiment}/logs/collect_synthetic.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        table="synthetic",
    script:
        "../scripts/collect.py"


rule collect_landmarks:
    """Put the landmark errors of all pairs and methods into one long table."""
    input:
        errors=[f"{RESULTS}/evaluation/landmarks/{pair}.csv" for pair in cohort.pairs_with_landmarks()],
        code=code_of("collect"),
    output:
        errors="results/{experiment}/evaluation/landmarks.csv",
    log:
        "results/{experiment}/logs/collect_landmarks.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        table="landmarks",
    script:
        "../scripts/collect.py"


rule collect_regularity:
    """Put the Jacobian determinants of all pairs and methods into one long table."""
    input:
        errors=[f"{RESULTS}/evaluation/regularity/{pair}.csv" for pair in cohort.test_pairs()],
        code=code_of("collect"),
    output:
        errors="results/{experiment}/evaluation/regularity.csv",
    log:
        "results/{experiment}/logs/collect_regularity.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        table="regularity",
    script:
        "../scripts/collect.py"


rule collect_fields:
    """Put the errors of the whole field of all pairs and methods into one long table."""
    input:
        errors=[f"{RESULTS}/evaluation/field_errors/{pair}.csv" for pair in TRUE_FIELDS],
        code=code_of("collect"),
    output:
        errors="results/{experiment}/evaluation/field_errors.csv",
    log:
        "results/{experiment}/logs/collect_fields.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        table="field_errors",
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
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        runs=[(method, pair) for method in METHODS for pair in cohort.test_pairs()],
    script:
        "../scripts/collect_runs.py"


rule field_statistics:
    """Describe the synthetic DVFs of the training images: displacement, spectrum, Jacobian determinant, folding."""
    input:
        dvf=[path for paths in TRAINING_FIELDS.values() for path in paths],
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
        kinds=[kind for kind, paths in TRAINING_FIELDS.items() for _ in paths],
    script:
        "../scripts/field_statistics.py"


rule slice_fields:
    """Keep one slice of three synthetic DVFs for Figure 2.2."""
    input:
        image=f"{RESULTS}/images/{NETWORK_SPACING}mm/{SHOWN}.nii.gz",
        mask=f"{RESULTS}/images/{NETWORK_SPACING}mm/{SHOWN}_mask.nii.gz",
        dvf=expand(
            "results/{experiment}/synthetic/{image}/{pair}/dvf.npz",
            image=SHOWN,
            pair=[PairName("original", frequency) for frequency in FREQUENCIES],
            allow_missing=True,
        ),
        code=code_of("slice_fields"),
    output:
        slices="results/{experiment}/evaluation/field_slices.npz",
    log:
        "results/{experiment}/logs/slice_fields.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        frequencies=FREQUENCIES,
    script:
        "../scripts/slice_fields.py"


rule slice_example:
    """Keep one slice of a test pair under all transforms for Figure 2.5, and their Jacobian determinants there."""
    input:
        fixed=f"{RESULTS}/images/{SPACING}mm/{cohort.pairs.loc[cohort.test_pairs()[0], 'fixed']}.nii.gz",
        mask=f"{RESULTS}/images/{SPACING}mm/{cohort.pairs.loc[cohort.test_pairs()[0], 'fixed']}_mask.nii.gz",
        moving=f"{RESULTS}/images/{SPACING}mm/{cohort.pairs.loc[cohort.test_pairs()[0], 'moving']}.nii.gz",
        transforms=transforms_of(cohort.test_pairs()[0]),
        code=code_of("slice_example"),
    output:
        slices="results/{experiment}/evaluation/example_slices.npz",
        jacobian="results/{experiment}/evaluation/jacobian_slices.npz",
    log:
        "results/{experiment}/logs/slice_example.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        pair=cohort.test_pairs()[0],
        methods=METHODS,
    script:
        "../scripts/slice_example.py"


if TRUE_FIELDS:

    rule slice_field_error:
        """Keep the error of the whole field on one slice of a test pair whose true DVF is known."""
        input:
            fixed=f"{RESULTS}/images/{SPACING}mm/{cohort.pairs.loc[next(iter(TRUE_FIELDS)), 'fixed']}.nii.gz",
            mask=f"{RESULTS}/images/{SPACING}mm/{cohort.pairs.loc[next(iter(TRUE_FIELDS)), 'fixed']}_mask.nii.gz",
            truth=next(iter(TRUE_FIELDS.values())),
            transforms=transforms_of(next(iter(TRUE_FIELDS))),
            code=code_of("slice_field_error"),
        output:
            slices="results/{experiment}/evaluation/field_error_slices.npz",
        log:
            "results/{experiment}/logs/slice_field_error.log",
        conda:
            "../../environment.yml"
        resources:
            mem_mb=growing(2000),
            runtime=growing(10),
        params:
            pair=next(iter(TRUE_FIELDS)),
            methods=METHODS,
        script:
            "../scripts/slice_field_error.py"
