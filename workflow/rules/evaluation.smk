# Needs transforms, landmarks, weights and synthetic pairs. Gives long tables of errors, and the slices that figures show.

TRAINING_FIELDS = {
    frequency: [
        f"{RESULTS}/synthetic/{image}/{moving}_{frequency}/dvf.npz"
        for image in cohort.images_of("train")
        for moving in ("original", "deformed")
    ]
    for frequency in FREQUENCIES
} | {"moving": [f"{RESULTS}/synthetic/{image}/deformed_dvf.npz" for image in cohort.images_of("train")]}

# The image whose DVFs Figure 2.2 shows: those of the training images are made only where something is trained.
SHOWN = cohort.images_of("train" if TRAINED else "validation")[0]

EXAMPLE_METHODS = [method for method in ("affine", "bspline_3r", "regnet") if method in METHODS]

EVALUATED = [*((variant, "validation") for variant in VARIANTS), ("regnet", "test")]


rule evaluate_synthetic:
    """Measure a network on the samples of the synthetic pairs of a split."""
    input:
        weights="results/{experiment}/models/{variant}/model.safetensors",
        samples=synthetic_of_split("patches/{image}/{moving}_{frequency}.npz"),
        fixed=synthetic_of_split("synthetic/{image}/{moving}_{frequency}/fixed.npy"),
        moving=synthetic_of_split("synthetic/{image}/{moving}.npy"),
        dvf=synthetic_of_split("synthetic/{image}/{moving}_{frequency}/dvf.npz"),
        code=source_files("evaluation", "training", "synthesis"),
    output:
        errors="results/{experiment}/evaluation/synthetic/{variant}_{split}.csv",
    log:
        "results/{experiment}/logs/evaluate_synthetic/{variant}_{split}.log",
    conda:
        "../../environment.yml"
    threads: config["training"]["threads"]
    resources:
        gpu=1,
        mem_mb=6000,
        runtime=60,
    params:
        names=lambda wildcards: [
            (image, *pair.split("_")) for image in cohort.images_of(wildcards.split) for pair in SYNTHETIC_PAIRS
        ],
    script:
        "../scripts/evaluate_synthetic.py"


rule evaluate_landmarks:
    """Measure all methods on the landmarks of a pair."""
    input:
        transforms=expand("results/{experiment}/registrations/{method}/{pair}/transform.h5", method=METHODS, allow_missing=True),
        fixed_landmarks=lambda wildcards: cohort.pairs.loc[wildcards.pair, "fixed_landmarks"],
        moving_landmarks=lambda wildcards: cohort.pairs.loc[wildcards.pair, "moving_landmarks"],
        fixed=given_image("fixed"),
        moving=given_image("moving"),
        code=source_files("evaluation", "landmarks"),
    output:
        errors="results/{experiment}/evaluation/landmarks/{pair}.csv",
    log:
        "results/{experiment}/logs/evaluate_landmarks/{pair}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        methods=METHODS,
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/evaluate_landmarks.py"


rule collect_synthetic:
    """Put the errors on synthetic pairs into one long table."""
    input:
        errors=[f"{RESULTS}/evaluation/synthetic/{variant}_{split}.csv" for variant, split in EVALUATED],
        code=source_files("evaluation"),
    output:
        errors="results/{experiment}/evaluation/synthetic.csv",
    log:
        "results/{experiment}/logs/collect_synthetic.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        table="synthetic",
    script:
        "../scripts/collect.py"


rule collect_landmarks:
    """Put the landmark errors of all pairs and methods into one long table."""
    input:
        errors=[f"{RESULTS}/evaluation/landmarks/{pair}.csv" for pair in cohort.pairs_with_landmarks()],
        code=source_files("evaluation"),
    output:
        errors="results/{experiment}/evaluation/landmarks.csv",
    log:
        "results/{experiment}/logs/collect_landmarks.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        table="landmarks",
    script:
        "../scripts/collect.py"


rule field_statistics:
    """Describe the synthetic DVFs of the training images: displacement, spectrum, Jacobian determinant, folding."""
    input:
        dvf=[path for paths in TRAINING_FIELDS.values() for path in paths],
        code=source_files("evaluation", "field_statistics"),
    output:
        distributions="results/{experiment}/evaluation/field_distributions.csv",
        summary="results/{experiment}/evaluation/field_statistics.csv",
    log:
        "results/{experiment}/logs/field_statistics.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=3000,
        runtime=60,
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
            "results/{experiment}/synthetic/{image}/original_{frequency}/dvf.npz",
            image=SHOWN,
            frequency=FREQUENCIES,
            allow_missing=True,
        ),
        code=source_files("evaluation", "synthesis"),
    output:
        slices="results/{experiment}/evaluation/field_slices.npz",
    log:
        "results/{experiment}/logs/slice_fields.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        frequencies=FREQUENCIES,
    script:
        "../scripts/slice_fields.py"


rule slice_example:
    """Keep one slice of a test pair under several transforms for Figure 2.5."""
    input:
        fixed=f"{RESULTS}/images/{SPACING}mm/{cohort.pairs.loc[cohort.test_pairs()[0], 'fixed']}.nii.gz",
        mask=f"{RESULTS}/images/{SPACING}mm/{cohort.pairs.loc[cohort.test_pairs()[0], 'fixed']}_mask.nii.gz",
        moving=f"{RESULTS}/images/{SPACING}mm/{cohort.pairs.loc[cohort.test_pairs()[0], 'moving']}.nii.gz",
        transforms=expand(
            "results/{experiment}/registrations/{method}/{pair}/transform.h5",
            method=EXAMPLE_METHODS,
            pair=cohort.test_pairs()[0],
            allow_missing=True,
        ),
        code=source_files("evaluation"),
    output:
        slices="results/{experiment}/evaluation/example_slices.npz",
    log:
        "results/{experiment}/logs/slice_example.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        pair=cohort.test_pairs()[0],
        methods=EXAMPLE_METHODS,
    script:
        "../scripts/slice_example.py"
