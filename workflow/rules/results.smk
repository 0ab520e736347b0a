# Needs results/<experiment>/evaluation and the training curves alone. Gives the tables and the figures.

FIGURES = [
    *("figure_2_2", "figure_2_3", "figure_2_4", "figure_2_5"),
    *("comparison", "accuracy_time", "capture_range", "jacobian"),
    *(["field_error"] if TRUE_FIELDS else []),
    *(["field_statistics", *(f"training_{variant}" for variant in VARIANTS)] if TRAINED else []),
]


rule tables:
    """All tables."""
    input:
        multiext(f"{RESULTS}/tables/table_2_1", ".csv", ".md", ".tex"),
        multiext(f"{RESULTS}/tables/comparison", ".csv", ".md", ".tex"),
        f"{RESULTS}/tables/comparison_tests.csv",
        multiext(f"{RESULTS}/tables/capture_range", ".csv", ".md"),


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
        csv="results/{experiment}/tables/table_2_1.csv",
        md="results/{experiment}/tables/table_2_1.md",
        tex="results/{experiment}/tables/table_2_1.tex",
    log:
        "results/{experiment}/logs/table_2_1.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        variants=VARIANTS,
    script:
        "../scripts/table_2_1.py"


rule figure_2_2:
    """Figure 2.2: heat maps of the magnitude of synthetic DVFs."""
    input:
        slices="results/{experiment}/evaluation/field_slices.npz",
        code=code_of("figure_2_2"),
    output:
        png=report(
            "results/{experiment}/figures/figure_2_2.png",
            caption="../report/figure_2_2.rst",
            category="2 Synthesis",
            labels={"result": "Figure 2.2: DVFs used for training"},
        ),
        pdf="results/{experiment}/figures/figure_2_2.pdf",
    log:
        "results/{experiment}/logs/figure_2_2.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    script:
        "../scripts/figure_2_2.py"


rule figure_field_statistics:
    """Distributions of displacement, wavelength and Jacobian determinant of synthetic DVFs."""
    input:
        distributions="results/{experiment}/evaluation/field_distributions.csv",
        summary="results/{experiment}/evaluation/field_statistics.csv",
        code=code_of("figure_field_statistics"),
    output:
        png=report(
            "results/{experiment}/figures/field_statistics.png",
            caption="../report/field_statistics.rst",
            category="2 Synthesis",
            labels={"result": "Synthetic DVFs: statistics"},
        ),
        pdf="results/{experiment}/figures/field_statistics.pdf",
    log:
        "results/{experiment}/logs/figure_field_statistics.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    script:
        "../scripts/figure_field_statistics.py"


rule figure_2_3:
    """Figure 2.3: residual landmark distances, all landmarks."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        code=code_of("figure_2_3"),
    output:
        png=report(
            "results/{experiment}/figures/figure_2_3.png",
            caption="../report/figure_2_3.rst",
            category="6 Figures",
            labels={"result": "Figure 2.3: All landmarks"},
        ),
        pdf="results/{experiment}/figures/figure_2_3.pdf",
    log:
        "results/{experiment}/logs/figure_2_3.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/figure_2_3.py"


rule figure_2_4:
    """Figure 2.4: residual landmark distances, landmarks in the capture range."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        code=code_of("figure_2_4"),
    output:
        png=report(
            "results/{experiment}/figures/figure_2_4.png",
            caption="../report/figure_2_4.rst",
            category="6 Figures",
            labels={"result": "Figure 2.4: Landmarks in the capture range"},
        ),
        pdf="results/{experiment}/figures/figure_2_4.pdf",
    log:
        "results/{experiment}/logs/figure_2_4.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/figure_2_4.py"


rule figure_2_5:
    """Figure 2.5: example slices and difference images."""
    input:
        slices="results/{experiment}/evaluation/example_slices.npz",
        code=code_of("figure_2_5"),
    output:
        png=report(
            "results/{experiment}/figures/figure_2_5.png",
            caption="../report/figure_2_5.rst",
            category="6 Figures",
            labels={"result": "Figure 2.5: Example registration"},
        ),
        pdf="results/{experiment}/figures/figure_2_5.pdf",
    log:
        "results/{experiment}/logs/figure_2_5.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    script:
        "../scripts/figure_2_5.py"


rule comparison:
    """The methods beside each other: accuracy with intervals, tests between them, time, memory and regularity."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        regularity="results/{experiment}/evaluation/regularity.csv",
        runs="results/{experiment}/evaluation/runs.csv",
        field_errors="results/{experiment}/evaluation/field_errors.csv" if TRUE_FIELDS else [],
        code=code_of("comparison"),
    output:
        csv="results/{experiment}/tables/comparison.csv",
        tests="results/{experiment}/tables/comparison_tests.csv",
        md="results/{experiment}/tables/comparison.md",
        tex="results/{experiment}/tables/comparison.tex",
    log:
        "results/{experiment}/logs/comparison.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
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
        csv="results/{experiment}/tables/capture_range.csv",
        md="results/{experiment}/tables/capture_range.md",
    log:
        "results/{experiment}/logs/capture_range.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        seed=config["seed"],
    script:
        "../scripts/capture_range.py"


rule figure_comparison:
    """How close the methods bring how many landmarks."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        comparison="results/{experiment}/tables/comparison.csv",
        code=code_of("figure_comparison"),
    output:
        png=report(
            "results/{experiment}/figures/comparison.png",
            caption="../report/comparison.rst",
            category="6 Figures",
            labels={"result": "Comparison of methods"},
        ),
        pdf="results/{experiment}/figures/comparison.pdf",
    log:
        "results/{experiment}/logs/figure_comparison.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/figure_comparison.py"


rule figure_accuracy_time:
    """Accuracy against the seconds of a registration."""
    input:
        comparison="results/{experiment}/tables/comparison.csv",
        code=code_of("figure_accuracy_time"),
    output:
        png=report(
            "results/{experiment}/figures/accuracy_time.png",
            caption="../report/accuracy_time.rst",
            category="6 Figures",
            labels={"result": "Accuracy against time"},
        ),
        pdf="results/{experiment}/figures/accuracy_time.pdf",
    log:
        "results/{experiment}/logs/figure_accuracy_time.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/figure_accuracy_time.py"


rule figure_capture_range:
    """The error of all methods against the distance after the affine registration."""
    input:
        curve="results/{experiment}/tables/capture_range.csv",
        code=code_of("figure_capture_range"),
    output:
        png=report(
            "results/{experiment}/figures/capture_range.png",
            caption="../report/capture_range.rst",
            category="6 Figures",
            labels={"result": "Capture range"},
        ),
        pdf="results/{experiment}/figures/capture_range.pdf",
    log:
        "results/{experiment}/logs/figure_capture_range.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    params:
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/figure_capture_range.py"


rule figure_jacobian:
    """Jacobian determinants of all methods in the lungs."""
    input:
        regularity="results/{experiment}/evaluation/regularity.csv",
        slices="results/{experiment}/evaluation/jacobian_slices.npz",
        code=code_of("figure_jacobian"),
    output:
        png=report(
            "results/{experiment}/figures/jacobian.png",
            caption="../report/jacobian.rst",
            category="6 Figures",
            labels={"result": "Jacobian determinants"},
        ),
        pdf="results/{experiment}/figures/jacobian.pdf",
    log:
        "results/{experiment}/logs/figure_jacobian.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    script:
        "../scripts/figure_jacobian.py"


if TRUE_FIELDS:

    rule figure_field_error:
        """Errors of the whole field in the lungs, where the true DVF is known."""
        input:
            field_errors="results/{experiment}/evaluation/field_errors.csv",
            slices="results/{experiment}/evaluation/field_error_slices.npz",
            code=code_of("figure_field_error"),
        output:
            png=report(
                "results/{experiment}/figures/field_error.png",
                caption="../report/field_error.rst",
                category="6 Figures",
                labels={"result": "Error of the whole field"},
            ),
            pdf="results/{experiment}/figures/field_error.pdf",
        log:
            "results/{experiment}/logs/figure_field_error.log",
        conda:
            "../../environment.yml"
        resources:
            mem_mb=growing(1000),
            runtime=growing(10),
        script:
            "../scripts/figure_field_error.py"


rule training_curves:
    """The curves of a training: loss and validation MAE, in all and along each axis."""
    input:
        curves="results/{experiment}/models/{variant}/training.csv",
        code=code_of("training_curves"),
    output:
        png=report(
            "results/{experiment}/figures/training_{variant}.png",
            caption="../report/training_curves.rst",
            category="3 Training",
            labels={"result": "Training of {variant}"},
        ),
        pdf="results/{experiment}/figures/training_{variant}.pdf",
    log:
        "results/{experiment}/logs/training_curves/{variant}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(10),
    script:
        "../scripts/training_curves.py"
