# Needs the cohort's images as they are. Gives every image and its lung mask on the isotropic grids of the config.

if config["phantom"] is not None:

    rule phantom:
        """Make one subject of the embedded cohort: baseline, follow-up, landmarks and the true DVF."""
        input:
            code=code_of("phantom"),
        output:
            baseline=f"{DATA_ROOT}/{{subject}}_baseline.nii.gz",
            followup=f"{DATA_ROOT}/{{subject}}_followup.nii.gz",
            baseline_landmarks=f"{DATA_ROOT}/{{subject}}_baseline.txt",
            followup_landmarks=f"{DATA_ROOT}/{{subject}}_followup.txt",
            dvf=f"{DATA_ROOT}/{{subject}}_dvf.nii.gz",
        log:
            f"{RESULTS}/logs/phantom/{{subject}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/phantom/{{subject}}.tsv"
        conda:
            "../../environment.yml"
        params:
            phantom=config["phantom"],
            seed=config["seed"],
        script:
            "../scripts/phantom.py"


rule segment_lungs:
    """Segment the lungs of an image that comes without a mask."""
    input:
        image=of_image("path"),
        code=code_of("segment_lungs"),
    output:
        mask="results/{experiment}/masks/{image}.nii.gz",
    log:
        "results/{experiment}/logs/segment_lungs/{image}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(3000),
    script:
        "../scripts/segment_lungs.py"


rule resample:
    """Resample an image and its lung mask to an isotropic grid."""
    input:
        image=of_image("path"),
        mask=given_mask,
        code=code_of("resample"),
    output:
        image="results/{experiment}/images/{spacing}mm/{image}.nii.gz",
        mask="results/{experiment}/images/{spacing}mm/{image}_mask.nii.gz",
    log:
        "results/{experiment}/logs/resample/{spacing}mm/{image}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(3000),
    script:
        "../scripts/resample.py"
