# Needs the cohort's images as they are. Gives every image and its lung mask on the isotropic grids of the config.

if config["phantom"] is not None:

    rule phantom:
        """Make one subject of the embedded cohort: baseline, follow-up, landmarks and the true DVF."""
        input:
            code=source_files("phantom"),
        output:
            baseline=config["data_root"] + "/{subject}_baseline.nii.gz",
            followup=config["data_root"] + "/{subject}_followup.nii.gz",
            baseline_landmarks=config["data_root"] + "/{subject}_baseline.txt",
            followup_landmarks=config["data_root"] + "/{subject}_followup.txt",
            dvf=config["data_root"] + "/{subject}_dvf.nii.gz",
        log:
            RESULTS + "/logs/phantom/{subject}.log",
        benchmark:
            RESULTS + "/benchmarks/phantom/{subject}.tsv"
        conda:
            "../../environment.yml"
        resources:
            mem_mb=1500,
            runtime=10,
        params:
            phantom=config["phantom"],
            seed=config["seed"],
        script:
            "../scripts/phantom.py"


def given_mask(wildcards):
    """The mask that the cohort gives for an image, else the segmented one."""
    return (
        cohort.images.loc[wildcards.image, "mask"]
        or f"{RESULTS}/masks/{wildcards.image}.nii.gz"
    )


rule segment_lungs:
    """Segment the lungs of an image that comes without a mask."""
    input:
        image=lambda wildcards: cohort.images.loc[wildcards.image, "path"],
        code=source_files("lungs"),
    output:
        mask=RESULTS + "/masks/{image}.nii.gz",
    log:
        RESULTS + "/logs/segment_lungs/{image}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=3000,
        runtime=10,
    script:
        "../scripts/segment_lungs.py"


rule resample:
    """Resample an image and its lung mask to an isotropic grid."""
    input:
        image=lambda wildcards: cohort.images.loc[wildcards.image, "path"],
        mask=given_mask,
        code=source_files("volumes"),
    output:
        image=RESULTS + "/images/{spacing}mm/{image}.nii.gz",
        mask=RESULTS + "/images/{spacing}mm/{image}_mask.nii.gz",
    log:
        RESULTS + "/logs/resample/{spacing}mm/{image}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=3000,
        runtime=10,
    script:
        "../scripts/resample.py"
