# Needs the samples and volumes of the synthetic pairs of the training and validation images. Gives weights and curves.


rule train:
    """Train RegNet or one of its variants; a training that was killed goes on from its last checkpoint."""
    input:
        training=synthetic_pairs("train", "patches/{image}/{moving}_{frequency}.npz"),
        training_fixed=synthetic_pairs("train", "synthetic/{image}/{moving}_{frequency}/fixed.npy"),
        training_moving=synthetic_pairs("train", "synthetic/{image}/{moving}.npy"),
        validation=synthetic_pairs("validation", "patches/{image}/{moving}_{frequency}.npz"),
        validation_fixed=synthetic_pairs("validation", "synthetic/{image}/{moving}_{frequency}/fixed.npy"),
        validation_moving=synthetic_pairs("validation", "synthetic/{image}/{moving}.npy"),
        code=source_files("training"),
    output:
        best="results/{experiment}/models/{variant}/model.safetensors",
        last="results/{experiment}/models/{variant}/last.safetensors",
        curves="results/{experiment}/models/{variant}/training.csv",
    log:
        "results/{experiment}/logs/train/{variant}.log",
    benchmark:
        "results/{experiment}/benchmarks/train/{variant}.tsv"
    conda:
        "../../environment.yml"
    threads: config["training"]["threads"]
    resources:
        gpu=config["training"]["gpus"],
        mem_mb=6000,
        runtime=1440,
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
