# Needs the samples and volumes of the synthetic pairs of the training and validation images, or weights that are there. Gives
# weights, and the curves of a training.

if TRAINED:

    rule train:
        """Train RegNet or one of its variants; a training that was killed goes on from its last checkpoint."""
        input:
            training=synthetic_pairs("train", "patches/{image}/{pair}.npz"),
            training_fixed=synthetic_pairs("train", "synthetic/{image}/{pair}/fixed.npy"),
            training_moving=synthetic_pairs("train", "synthetic/{image}/{moving}.npy"),
            validation=synthetic_pairs("validation", "patches/{image}/{pair}.npz"),
            validation_fixed=synthetic_pairs("validation", "synthetic/{image}/{pair}/fixed.npy"),
            validation_moving=synthetic_pairs("validation", "synthetic/{image}/{moving}.npy"),
            start=lambda wildcards: given_weights(wildcards.variant) if config["training"]["mode"] == "finetune" else [],
            code=code_of("train"),
        output:
            best="results/{experiment}/models/{variant}/model.safetensors",
            last="results/{experiment}/models/{variant}/last.safetensors",
            curves="results/{experiment}/models/{variant}/training.csv",
            facts="results/{experiment}/models/{variant}/facts.json",
            machine="results/{experiment}/models/{variant}/machine.json",
        log:
            "results/{experiment}/logs/train/{variant}.log",
        benchmark:
            "results/{experiment}/benchmarks/train/{variant}.tsv"
        conda:
            "../../environment.yml"
        threads: config["training"]["threads"]
        resources:
            gpu=config["training"]["gpus"],
            mem_mb=growing(6000),
            runtime=growing(1440),
        params:
            training=config["training"],
            synthesis=config["synthesis"],
            spacing=float(NETWORK_SPACING),
            window=config["regnet"]["window"],
            seed=config["seed"],
            checkpoints="results/{experiment}/checkpoints/{variant}",
            events="results/{experiment}/logs/tensorboard/{variant}",
        script:
            "../scripts/train.py"

else:

    rule released:
        """Take the weights that the config names, after a look whether they are of the variant and for the spacing."""
        input:
            weights=lambda wildcards: given_weights(wildcards.variant),
            code=code_of("released"),
        output:
            weights="results/{experiment}/models/{variant}/model.safetensors",
            facts="results/{experiment}/models/{variant}/facts.json",
        log:
            "results/{experiment}/logs/released/{variant}.log",
        conda:
            "../../environment.yml"
        params:
            spacing=float(NETWORK_SPACING),
        script:
            "../scripts/released.py"


rule prepare_crops:
    """Put an image and its lung mask into one file, from which the training cuts crops."""
    input:
        image="results/{experiment}/images/{spacing}mm/{image}.nii.gz",
        mask="results/{experiment}/images/{spacing}mm/{image}_mask.nii.gz",
        code=code_of("prepare_crops"),
    output:
        volume=temp("results/{experiment}/crops/{spacing}mm/{image}.npz"),
    log:
        "results/{experiment}/logs/prepare_crops/{spacing}mm/{image}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(10),
    script:
        "../scripts/prepare_crops.py"


rule train_pyramid:
    """Train the feature pyramid; a training that was killed goes on from its last checkpoint."""
    input:
        training=crop_volumes("train"),
        validation=crop_volumes("validation"),
        start=os.path.relpath(find_weights(config["pyramid"]["start"])) if config["pyramid"]["start"] else [],
        code=code_of("train_pyramid"),
    output:
        best="results/{experiment}/models/regnet_pyramid/model.safetensors",
        last="results/{experiment}/models/regnet_pyramid/last.safetensors",
        curves="results/{experiment}/models/regnet_pyramid/training.csv",
        facts="results/{experiment}/models/regnet_pyramid/facts.json",
        machine="results/{experiment}/models/regnet_pyramid/machine.json",
    log:
        "results/{experiment}/logs/train/regnet_pyramid.log",
    benchmark:
        "results/{experiment}/benchmarks/train/regnet_pyramid.tsv"
    conda:
        "../../environment.yml"
    threads: config["training"]["threads"]
    resources:
        gpu=config["training"]["gpus"],
        mem_mb=growing(8000),
        runtime=growing(1440),
    params:
        training={**config["pyramid"], **{key: config["training"][key] for key in ("precision", "checkpoint_minutes")}},
        window=config["regnet"]["window"],
        seed=config["seed"],
        checkpoints="results/{experiment}/checkpoints/regnet_pyramid",
        events="results/{experiment}/logs/tensorboard/regnet_pyramid",
    script:
        "../scripts/train_pyramid.py"
