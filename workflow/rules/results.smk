# Needs results/<experiment>/evaluation and the training curves alone. Gives Table 2.1 and the figures.

FIGURES = ["figure_2_2", "figure_2_3", "figure_2_4", "figure_2_5"]

if TRAINED:
    FIGURES += ["field_statistics", *(f"training_{variant}" for variant in VARIANTS)]


rule tables:
    """All tables."""
    input:
        multiext(f"{RESULTS}/tables/table_2_1", ".csv", ".md", ".tex"),


rule figures:
    """All figures, from the tables in results/<experiment>/evaluation and the training curves alone."""
    input:
        expand(f"{RESULTS}/figures/{{figure}}.{{format}}", figure=FIGURES, format=["png", "pdf"]),


rule table_2_1:
    """Table 2.1: MAE on synthetic pairs, TRE and TRE' on landmarks, beside the chapter's own numbers."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        synthetic="results/{experiment}/evaluation/synthetic.csv",
        weights=expand("results/{experiment}/models/{variant}/model.safetensors", variant=VARIANTS, allow_missing=True),
        code=source_files("tables", "inference"),
    output:
        csv="results/{experiment}/tables/table_2_1.csv",
        md="results/{experiment}/tables/table_2_1.md",
        tex="results/{experiment}/tables/table_2_1.tex",
    log:
        "results/{experiment}/logs/table_2_1.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        variants=VARIANTS,
    script:
        "../scripts/table_2_1.py"


rule figure_2_2:
    """Figure 2.2: heat maps of the magnitude of synthetic DVFs."""
    input:
        slices="results/{experiment}/evaluation/field_slices.npz",
        code=source_files("figures"),
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
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/figure_2_2.py"


rule figure_field_statistics:
    """Distributions of displacement, wavelength and Jacobian determinant of synthetic DVFs."""
    input:
        distributions="results/{experiment}/evaluation/field_distributions.csv",
        summary="results/{experiment}/evaluation/field_statistics.csv",
        code=source_files("figures", "field_statistics"),
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
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/figure_field_statistics.py"


rule figure_2_3:
    """Figure 2.3: residual landmark distances, all landmarks."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        code=source_files("figures"),
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
        mem_mb=1000,
        runtime=10,
    params:
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/figure_2_3.py"


rule figure_2_4:
    """Figure 2.4: residual landmark distances, landmarks in the capture range."""
    input:
        landmarks="results/{experiment}/evaluation/landmarks.csv",
        code=source_files("figures"),
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
        mem_mb=1000,
        runtime=10,
    params:
        capture_range=config["evaluation"]["capture_range"],
    script:
        "../scripts/figure_2_4.py"


rule figure_2_5:
    """Figure 2.5: example slices and difference images."""
    input:
        slices="results/{experiment}/evaluation/example_slices.npz",
        code=source_files("figures"),
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
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/figure_2_5.py"


rule training_curves:
    """The curves of a training: loss and validation MAE, in all and along each axis."""
    input:
        curves="results/{experiment}/models/{variant}/training.csv",
        code=source_files("figures"),
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
        mem_mb=1000,
        runtime=10,
    script:
        "../scripts/training_curves.py"
