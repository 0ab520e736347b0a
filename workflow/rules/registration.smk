# Needs images and lung masks of the test pairs, the files that methods are made of and the weights. Gives one transform per method and pair.


rule registrations:
    """All test pairs with all methods, those without landmarks too."""
    input:
        expand(f"{RESULTS}/registrations/{{method}}/{{pair}}/transform.h5", method=METHODS, pair=cohort.test_pairs()),


rule register:
    """Register a pair with a method of the config, after the affine registration and composed with it."""
    input:
        fixed=pair_image("fixed"),
        moving=pair_image("moving"),
        fixed_mask=pair_image("fixed", "_mask"),
        moving_mask=pair_image("moving", "_mask"),
        initial=lambda wildcards: initial_transform(wildcards.method, wildcards.pair),
        files=lambda wildcards: method_files(SETTINGS[wildcards.method]),
        weights=lambda wildcards: method_weights(wildcards.method) or [],
    output:
        transform="results/{experiment}/registrations/{method}/{pair}/transform.h5",
        machine="results/{experiment}/registrations/{method}/{pair}/machine.json",
    log:
        job="results/{experiment}/logs/register/{method}/{pair}.log",
        tool="results/{experiment}/logs/register/{method}/{pair}.tool.log",
    benchmark:
        "results/{experiment}/benchmarks/register/{method}/{pair}.tsv"
    wildcard_constraints:
        method="|".join(name for name in METHODS if name != "regnet"),
    conda:
        "../../environment.yml"
    threads: config["registration"]["threads"]
    resources:
        gpu=lambda wildcards: int(SETTINGS[wildcards.method]["module"] == "pyramid"),
        mem_mb=growing(method_memory),
        runtime=growing(60),
    params:
        settings=lambda wildcards: full_settings(wildcards.method),
        margin=config["registration"]["margin"],
        # Not the threads that Snakemake grants: the result depends on their number.
        threads=config["registration"]["threads"],
        seed=config["seed"],
    script:
        "../scripts/register.py"


use rule register as register_again with:
    output:
        transform="results/{experiment}/seeds/{again}/{method}/{pair}/transform.h5",
        machine="results/{experiment}/seeds/{again}/{method}/{pair}/machine.json",
    log:
        job="results/{experiment}/logs/seeds/{again}/{method}/{pair}.log",
        tool="results/{experiment}/logs/seeds/{again}/{method}/{pair}.tool.log",
    benchmark:
        "results/{experiment}/benchmarks/seeds/{again}/{method}/{pair}.tsv"
    params:
        seed=lambda wildcards: config["seed"] + int(wildcards.again),


rule register_regnet:
    """Register a pair with the network, or stage by stage with several, after the affine registration and composed with it."""
    input:
        fixed=stage_images("fixed"),
        moving=stage_images("moving"),
        fixed_mask=stage_images("fixed", "_mask") if config["regnet"]["region"] == "mask" else [],
        initial=lambda wildcards: initial_transform("regnet", wildcards.pair),
        weights=lambda wildcards: [stage_weights(spacing) for spacing in STAGES],
        code=code_of("register_regnet"),
    output:
        transform="results/{experiment}/registrations/regnet/{pair}/transform.h5",
        machine="results/{experiment}/registrations/regnet/{pair}/machine.json",
    log:
        "results/{experiment}/logs/register/regnet/{pair}.log",
    benchmark:
        "results/{experiment}/benchmarks/register/regnet/{pair}.tsv"
    conda:
        "../../environment.yml"
    threads: config["training"]["threads"]
    resources:
        gpu=1,
        mem_mb=growing(network_memory()),
        runtime=growing(60),
    params:
        spacings=[float(spacing) for spacing in STAGES],
        inference={name: config["regnet"][name] for name in INFERENCE},
    script:
        "../scripts/register_regnet.py"
