# Needs images and lung masks at the network's spacing. Gives synthetic pairs with known DVFs, and the training samples. The volumes
# are most of what a run writes and made again in seconds: those that nothing is trained on are removed once nothing waits for them
# (--notemp keeps them). Those of a training stay: to make them again, for an evaluation or another variant, would repeat it.


rule synthesize:
    """Make the synthetic pairs of an image: three DVFs on the image itself, three on a deformed version of it."""
    input:
        image=f"results/{{experiment}}/images/{NETWORK_SPACING}mm/{{image}}.nii.gz",
        mask=f"results/{{experiment}}/images/{NETWORK_SPACING}mm/{{image}}_mask.nii.gz",
        code=code_of("synthesize"),
    output:
        original=temp("results/{experiment}/synthetic/{image}/original.npy"),
        deformed=temp("results/{experiment}/synthetic/{image}/deformed.npy"),
        deformation="results/{experiment}/synthetic/{image}/deformed_dvf.npz",
        deformed_mask="results/{experiment}/synthetic/{image}/deformed_mask.nii.gz",
        fixed=temp(expand("results/{experiment}/synthetic/{image}/{pair}/fixed.npy", pair=SYNTHETIC_PAIRS, allow_missing=True)),
        dvf=expand("results/{experiment}/synthetic/{image}/{pair}/dvf.npz", pair=SYNTHETIC_PAIRS, allow_missing=True),
    log:
        "results/{experiment}/logs/synthesize/{image}.log",
    benchmark:
        "results/{experiment}/benchmarks/synthesize/{image}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(20),
    params:
        synthesis=config["synthesis"],
        block=max(config["patches"]["block"], config["patches"]["evaluation_block"]),
        pairs=[str(pair) for pair in SYNTHETIC_PAIRS],
        seed=config["seed"],
    script:
        "../scripts/synthesize.py"


use rule synthesize as synthesize_to_train with:
    output:
        original="results/{experiment}/synthetic/{image}/original.npy",
        deformed="results/{experiment}/synthetic/{image}/deformed.npy",
        deformation="results/{experiment}/synthetic/{image}/deformed_dvf.npz",
        deformed_mask="results/{experiment}/synthetic/{image}/deformed_mask.nii.gz",
        fixed=expand("results/{experiment}/synthetic/{image}/{pair}/fixed.npy", pair=SYNTHETIC_PAIRS, allow_missing=True),
        dvf=expand("results/{experiment}/synthetic/{image}/{pair}/dvf.npz", pair=SYNTHETIC_PAIRS, allow_missing=True),
    wildcard_constraints:
        # Where nothing is trained: a pattern that no name matches.
        image="|".join(map(re.escape, TRAINING_IMAGES)) or "(?!)",


ruleorder: synthesize_to_train > synthesize


rule sample_patches:
    """Draw patch centres in the lungs, and the true displacements there, for the synthetic pairs of an image."""
    input:
        dvf=rules.synthesize.output.dvf,
        deformed_mask=rules.synthesize.output.deformed_mask,
        mask=f"results/{{experiment}}/images/{NETWORK_SPACING}mm/{{image}}_mask.nii.gz",
        code=code_of("sample_patches"),
    output:
        samples=expand("results/{experiment}/patches/{image}/{pair}.npz", pair=SYNTHETIC_PAIRS, allow_missing=True),
    log:
        "results/{experiment}/logs/sample_patches/{image}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(4000),
    params:
        patches=config["patches"],
        split=of_image("split"),
        pairs=[str(pair) for pair in SYNTHETIC_PAIRS],
        seed=config["seed"],
    script:
        "../scripts/sample_patches.py"
