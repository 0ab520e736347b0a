# Needs results/<experiment>/evaluation and the training curves alone. Gives the tables and the figures.

FIGURES = ["figure_2_2", "figure_2_3", "figure_2_4", "figure_2_5", "comparison", "accuracy_time", "capture_range", "jacobian"]
FIGURES += ["field_error"] if TRUE_FIELDS else []
FIGURES += ["field_statistics", *(f"training_{variant}" for variant in VARIANTS)] if TRAINED else []
FIGURES += ["training_regnet_pyramid"] if any(map(is_trained_here, METHODS)) else []


rule tables:
    """All tables."""
    input:
        [f"{RESULTS}/tables/{table}.{kind}" for table, (_, kinds) in TABLES.items() for kind in kinds],


rule figures:
    """All figures, from the tables in results/<experiment>/evaluation and the training curves alone."""
    input:
        expand(f"{RESULTS}/figures/{{figure}}.{{format}}", figure=FIGURES, format=["png", "pdf"]),


rule table_2_1:
    """Table 2.1: MAE on synthetic pairs, TRE and TRE' on landmarks, beside the chapter's own numbers."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        synthetic="results/{experiment}/evaluation/synthetic.csv",
        facts=expand("results/{experiment}/models/{variant}/facts.json", variant=VARIANTS, allow_missing=True),
        code=code_of("table_2_1"),
    output:
        **table_files("table_2_1"),
    log:
        "results/{experiment}/logs/table_2_1.log",
    conda:
        "../../environment.yml"
    params:
        variants=VARIANTS,
    script:
        "../scripts/table_2_1.py"


rule comparison:
    """The methods beside each other: accuracy with intervals, tests between them, time, memory and regularity."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        regularity="results/{experiment}/evaluation/regularity.csv",
        runs="results/{experiment}/evaluation/runs.csv",
        field_errors="results/{experiment}/evaluation/field_errors.csv" if TRUE_FIELDS else [],
        code=code_of("comparison"),
    output:
        **table_files("comparison"),
        tests="results/{experiment}/tables/comparison_tests.csv",
    log:
        "results/{experiment}/logs/comparison.log",
    conda:
        "../../environment.yml"
    params:
        capture_range=config["evaluation"]["capture_range"],
        seed=config["seed"],
    script:
        "../scripts/comparison.py"


rule capture_range:
    """The error of all methods against the distance after the affine registration, in bins."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        code=code_of("capture_range"),
    output:
        **table_files("capture_range"),
    log:
        "results/{experiment}/logs/capture_range.log",
    conda:
        "../../environment.yml"
    params:
        seed=config["seed"],
    script:
        "../scripts/capture_range.py"


# figure.py calls `draw` with the inputs and the other params. Figures with the capture range follow figure_2_3, the others this.
rule figure_2_2:
    """Figure 2.2: heat maps of the magnitude of synthetic DVFs."""
    input:
        field_slices="results/{experiment}/evaluation/field_slices.npz",
        code=figure_code("chapter"),
    output:
        **figure_files("figure_2_2", category="2 Synthesis", result="Figure 2.2: DVFs used for training"),
    log:
        "results/{experiment}/logs/figure_2_2.log",
    conda:
        "../../environment.yml"
    params:
        draw="chapter.figure_2_2",
    script:
        "../scripts/figure.py"


use rule figure_2_2 as figure_field_statistics with:
    """Distributions of displacement, wavelength and Jacobian determinant of synthetic DVFs."""
    input:
        distributions="results/{experiment}/evaluation/field_distributions.csv",
        summary="results/{experiment}/evaluation/field_statistics.csv",
        code=figure_code("synthesis"),
    output:
        **figure_files("field_statistics", category="2 Synthesis", result="Synthetic DVFs: statistics"),
    log:
        "results/{experiment}/logs/figure_field_statistics.log",
    params:
        draw="synthesis.figure_field_statistics",


use rule figure_2_2 as figure_2_3 with:
    """Figure 2.3: residual landmark distances, all landmarks."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        code=figure_code("chapter"),
    output:
        **figure_files("figure_2_3", category="6 Figures", result="Figure 2.3: All landmarks"),
    log:
        "results/{experiment}/logs/figure_2_3.log",
    params:
        draw="chapter.figure_2_3",
        capture_range=config["evaluation"]["capture_range"],


use rule figure_2_3 as figure_2_4 with:
    """Figure 2.4: residual landmark distances, landmarks in the capture range."""
    output:
        **figure_files("figure_2_4", category="6 Figures", result="Figure 2.4: Landmarks in the capture range"),
    log:
        "results/{experiment}/logs/figure_2_4.log",
    params:
        draw="chapter.figure_2_4",


use rule figure_2_2 as figure_2_5 with:
    """Figure 2.5: example slices and difference images."""
    input:
        example_slices="results/{experiment}/evaluation/example_slices.npz",
        code=figure_code("chapter"),
    output:
        **figure_files("figure_2_5", category="6 Figures", result="Figure 2.5: Example registration"),
    log:
        "results/{experiment}/logs/figure_2_5.log",
    params:
        draw="chapter.figure_2_5",


use rule figure_2_3 as figure_comparison with:
    """How close the methods bring how many landmarks."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        comparison="results/{experiment}/tables/comparison.csv",
        code=figure_code("comparison"),
    output:
        **figure_files("comparison", category="6 Figures", result="Comparison of methods"),
    log:
        "results/{experiment}/logs/figure_comparison.log",
    params:
        draw="comparison.figure_comparison",


use rule figure_2_3 as figure_accuracy_time with:
    """Accuracy against the seconds of a registration."""
    input:
        comparison="results/{experiment}/tables/comparison.csv",
        code=figure_code("comparison"),
    output:
        **figure_files("accuracy_time", category="6 Figures", result="Accuracy against time"),
    log:
        "results/{experiment}/logs/figure_accuracy_time.log",
    params:
        draw="comparison.figure_accuracy_time",


use rule figure_2_3 as figure_capture_range with:
    """The error of all methods against the distance after the affine registration."""
    input:
        curve="results/{experiment}/tables/capture_range.csv",
        code=figure_code("comparison"),
    output:
        **figure_files("capture_range", category="6 Figures", result="Capture range"),
    log:
        "results/{experiment}/logs/figure_capture_range.log",
    params:
        draw="comparison.figure_capture_range",


use rule figure_2_2 as figure_jacobian with:
    """Jacobian determinants of all methods in the lungs."""
    input:
        regularity="results/{experiment}/evaluation/regularity.csv",
        jacobian_slices="results/{experiment}/evaluation/jacobian_slices.npz",
        code=figure_code("fields"),
    output:
        **figure_files("jacobian", category="6 Figures", result="Jacobian determinants"),
    log:
        "results/{experiment}/logs/figure_jacobian.log",
    params:
        draw="fields.figure_jacobian",


if TRUE_FIELDS:

    use rule figure_2_2 as figure_field_error with:
        """Errors of the whole field in the lungs, where the true DVF is known."""
        input:
            field_errors="results/{experiment}/evaluation/field_errors.csv",
            error_slices="results/{experiment}/evaluation/field_error_slices.npz",
            code=figure_code("fields"),
        output:
            **figure_files("field_error", category="6 Figures", result="Error of the whole field"),
        log:
            "results/{experiment}/logs/figure_field_error.log",
        params:
            draw="fields.figure_field_error",


use rule figure_2_2 as training_curves with:
    """The curves of a training: loss and validation MAE, in all and along each axis."""
    input:
        curves="results/{experiment}/models/{trained}/training.csv",
        code=figure_code("training"),
    output:
        **figure_files("training_{trained}", "3 Training", "Training of {trained}", caption="training_curves"),
    log:
        "results/{experiment}/logs/training_curves/{trained}.log",
    params:
        draw="training.training_curves",
        counted=lambda wildcards: "blocks" if wildcards.trained == "regnet_pyramid" else "patches",
