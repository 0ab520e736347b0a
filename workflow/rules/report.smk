# Needs what the other stages made. Gives a viewer per test pair and the pages of the report that are no figures.

VIEWER_PARTS = [
    "viewer.html",
    "viewer.css",
    "viewer.js",
    "niivue.umd.js",
    "LICENSE.niivue",
]

TABLE_TITLES = {table: title for table, (title, _) in TABLES.items() if title is not None}

# The images with synthetic pairs: those to train with only where something is trained.
SYNTHESIZED = [
    image for split in ("train", "validation", "test") for image in cohort.images_of(split) if TRAINED or split != "train"
]

# The jobs whose run times the report shows, in the order of the run.
BENCHMARKS = [
    *(expand(rules.phantom.benchmark, subject=cohort.images["subject"].unique()) if config["phantom"] else []),
    *expand(rules.synthesize.benchmark, experiment=config["experiment"], image=SYNTHESIZED),
    *(expand(rules.train.benchmark, experiment=config["experiment"], variant=VARIANTS) if TRAINED else []),
    *expand(rules.register.benchmark, experiment=config["experiment"], method=METHODS, pair=cohort.test_pairs()),
]


rule viewers:
    """A page per test pair to look at its registrations."""
    input:
        expand(f"{RESULTS}/viewers/{{pair}}.html", pair=cohort.test_pairs()),


rule viewer:
    """Make the page that shows the registrations of a pair, offline, and a picture of them for the report."""
    input:
        fixed=pair_image("fixed"),
        mask=pair_image("fixed", "_mask"),
        moving=pair_image("moving"),
        transforms=transforms_of("{pair}"),
        fixed_landmarks=of_pair("fixed_landmarks", optional=True),
        moving_landmarks=of_pair("moving_landmarks", optional=True),
        given_fixed=given_image("fixed"),
        given_moving=given_image("moving"),
        parts=[os.path.relpath(shipped("viewer") / part) for part in VIEWER_PARTS],
        code=code_of("viewer"),
    output:
        page="results/{experiment}/viewers/{pair}.html",
        picture=report(
            "results/{experiment}/viewers/{pair}.png",
            caption="../report/viewer.rst",
            category="4 Registration",
            labels={"pair": "{pair}"},
        ),
    log:
        "results/{experiment}/logs/viewer/{pair}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(3000),
    params:
        methods=METHODS,
        pictured="regnet",
    script:
        "../scripts/viewer.py"


rule pages:
    """The pages of the report that are neither figures nor viewers."""
    input:
        f"{RESULTS}/report/cohort.html",
        expand(f"{RESULTS}/report/{{table}}.html", table=TABLE_TITLES),
        multiext(f"{RESULTS}/report/", "run_times.html", "versions.html", "config.html"),


rule cohort_page:
    """Make the page about the cohort: which images and pairs, what for, and what they look like."""
    input:
        images=[f"{config['cohort']}/images.tsv", *cohort.images["path"]],
        pairs=f"{config['cohort']}/pairs.tsv",
        resampled=[f"{RESULTS}/images/{NETWORK_SPACING}mm/{image}.nii.gz" for image in cohort.images.index],
        masks=[f"{RESULTS}/images/{NETWORK_SPACING}mm/{image}_mask.nii.gz" for image in cohort.images.index],
        code=code_of("cohort_page"),
    output:
        page=report(
            "results/{experiment}/report/cohort.html",
            caption="../report/cohort.rst",
            category="1 Data",
            labels={"result": "Images and pairs"},
        ),
    log:
        "results/{experiment}/logs/cohort_page.log",
    conda:
        "../../environment.yml"
    resources:
        runtime=growing(20),
    params:
        cohort=lambda wildcards, input: os.path.dirname(input.pairs),
        data_root=lambda wildcards: config["data_root"],
    script:
        "../scripts/cohort_page.py"


rule table_page:
    """Make the page that shows a table."""
    input:
        table="results/{experiment}/tables/{table}.md",
        code=code_of("table_page"),
    output:
        page=report(
            "results/{experiment}/report/{table}.html",
            caption="../report/tables.rst",
            category="5 Tables",
            labels=lambda wildcards: {"result": TABLE_TITLES[wildcards.table]},
        ),
    log:
        "results/{experiment}/logs/table_page/{table}.log",
    wildcard_constraints:
        table="|".join(TABLE_TITLES),
    conda:
        "../../environment.yml"
    params:
        title=lambda wildcards: TABLE_TITLES[wildcards.table],
    script:
        "../scripts/table_page.py"


rule run_pages:
    """Make the pages about the run: how long it took, what it ran on, and its config."""
    input:
        benchmarks=BENCHMARKS,
        evaluation=multiext("results/{experiment}/evaluation/", "landmarks.csv", "synthetic.csv"),
        code=code_of("run_pages"),
    output:
        times_csv="results/{experiment}/report/run_times.csv",
        times=report(
            "results/{experiment}/report/run_times.html",
            caption="../report/run_times.rst",
            category="7 Run",
            labels={"result": "Run times"},
        ),
        versions=report(
            "results/{experiment}/report/versions.html",
            caption="../report/versions.rst",
            category="7 Run",
            labels={"result": "Versions"},
        ),
        config=report(
            "results/{experiment}/report/config.html",
            caption="../report/config.rst",
            category="7 Run",
            labels={"result": "Config"},
        ),
    log:
        "results/{experiment}/logs/run_pages.log",
    conda:
        "../../environment.yml"
    script:
        "../scripts/run_pages.py"
