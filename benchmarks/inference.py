"""The dense pass beside the patch network, RegNet beside elastix, memory, and the effect of stride and precision on accuracy.

Throughput and memory need no data. With ``--pair FOLDER`` (or the environment variable REGNET_PAIR), a folder with fixed,
moving and fixed_mask in a format that ITK reads, fixed_landmarks.txt and moving_landmarks.txt, and with ``--weights FILE`` (or
REGNET_WEIGHTS), the pair is registered by RegNet and by elastix's B-spline 3R at 1 mm after the same affine registration, and
the fields of both strides and precisions are compared. Without CUDA, the benchmarks that need it are left out with a message.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch
from harness import compare, save, timed
from with_network import register_with

from regnet.images.landmarks import read_landmark_pair
from regnet.images.transforms import compose, field_transform, read_transform, transform_points, write_transform
from regnet.images.volumes import Grid, read_ct, read_mask, resample, resample_ct, resample_mask, write_image
from regnet.learning import inference
from regnet.learning.inference import DenseNetwork
from regnet.learning.inference_settings import InferenceSettings
from regnet.learning.networks.regnet import RegNet
from regnet.learning.tiles import near_mask, output_lattice
from regnet.learning.weight_files import load_network
from regnet.registration import elastix, regnet
from regnet.synthesis.samples import window_size
from regnet.system.machine import usable_cores

WINDOW = (-1000, 400)
THREADS = usable_cores()
ELASTIX = Path(__file__).parents[1] / "config" / "elastix"
CPU = torch.device("cpu")
PREPARED = "REGNET_BENCHMARK_PREPARED"
"""Environment variable with the folder of the prepared files, for the processes that are measured."""


def random_pair(*shape: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(-1000, 400, shape, np.int16) for _ in range(2)]


def patch_network(precision: str) -> float:
    """Seconds per output of the network on single patches, as in training, in batches of 64."""
    torch.set_num_threads(THREADS)
    side = window_size(1)
    network = RegNet().eval().to(memory_format=torch.channels_last_3d)
    patches = [torch.rand(64, 1, side, side, side).contiguous(memory_format=torch.channels_last_3d) for _ in range(2)]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        network(*(batch[:4] for batch in patches))
        return timed(lambda: network(*patches)) / 64


def dense(precision: str, stride: int, side: int) -> float:
    """Seconds per output of the dense pass over a whole volume, everything included."""
    torch.set_num_threads(THREADS)
    pair = random_pair(side, side, side)
    network = DenseNetwork(RegNet(), window=WINDOW, settings=InferenceSettings(stride=stride, precision=precision))
    counts, _ = output_lattice(pair[0].shape, stride)
    return timed(lambda: network.predict(*pair)) / float(np.prod(counts))


def throughput() -> None:
    for precision in ("float32", "bfloat16"):
        ways = {
            "patches, batches of 64": partial(patch_network, precision),
            "dense, stride 2": partial(dense, precision, 2, 128),
            "dense, stride 1": partial(dense, precision, 1, 64),
        }
        table = compare(ways, repeats=3)
        table["outputs_per_second"] = 1 / table["seconds"]
        save(f"inference_{precision}", table)


def large_volume() -> float:
    """Seconds of a registration of 512 x 512 x 400 voxels, from images in memory to the composed transform."""
    torch.set_num_threads(THREADS)
    fixed, moving = (sitk.GetImageFromArray(volume) for volume in random_pair(400, 512, 512))
    return timed(lambda: register_with(RegNet(), fixed, moving, None))


def prepare(pair: Path, weights: Path, folder: Path) -> None:
    """Resample a pair to 1 mm and to the network's spacing, and register it affinely at 1 mm."""

    def file(name: str) -> Path:
        return next(path for path in sorted(pair.iterdir()) if path.name.partition(".")[0] == name)

    fixed, moving, mask = read_ct(file("fixed")), read_ct(file("moving")), read_mask(file("fixed_mask"))
    for spacing in {1.0, load_network(weights)[1]["spacing"]}:
        grid = Grid.of(fixed).isotropic(spacing)
        write_image(resample_ct(fixed, grid), folder / f"fixed_{spacing:g}.nii.gz")
        write_image(resample_ct(moving, Grid.of(moving).isotropic(spacing)), folder / f"moving_{spacing:g}.nii.gz")
        write_image(resample_mask(mask, grid), folder / f"mask_{spacing:g}.nii.gz")
    affine = elastix.register_with_file(
        *prepared(folder, 1.0)[:2],
        ELASTIX / "affine.txt",
        log=folder / "affine.log",
        fixed_mask=prepared(folder, 1.0)[2],
        threads=THREADS,
    )
    write_transform(affine, folder / "affine.h5")


def prepared(folder: Path, spacing: float) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """Fixed image, moving image and fixed mask that `prepare` wrote."""
    fixed, moving = (read_ct(folder / f"{name}_{spacing:g}.nii.gz") for name in ("fixed", "moving"))
    return fixed, moving, read_mask(folder / f"mask_{spacing:g}.nii.gz")


def register_with_elastix() -> float:
    folder = Path(os.environ[PREPARED])
    fixed, moving, mask = prepared(folder, 1.0)
    settings = {"fixed_mask": mask, "initial": read_transform(folder / "affine.h5"), "threads": THREADS}
    return timed(
        lambda: elastix.register_with_file(
            fixed, moving, ELASTIX / "bspline_3r.txt", log=folder / f"{os.getpid()}.log", **settings
        )
    )


def register_with_regnet(precision: str, stride: int) -> float:
    torch.set_num_threads(THREADS)
    folder = Path(os.environ[PREPARED])
    fixed, moving, mask = prepared(folder, 1.0)
    network, facts = load_network(os.environ["REGNET_WEIGHTS"])
    options = {"mask": mask, "window": facts["window"], "stride": stride, "precision": precision}
    return timed(lambda: register_with(network, fixed, moving, read_transform(folder / "affine.h5"), **options))


def registration() -> None:
    ways = {
        "elastix, B-spline 3R": register_with_elastix,
        "RegNet": partial(register_with_regnet, "auto", 2),
        "RegNet, float32": partial(register_with_regnet, "float32", 2),
    }
    save("inference_registration", compare(ways, repeats=3))


def accuracy(folder: Path, weights: Path, pair: Path) -> None:
    """The effect of stride 2 and bfloat16 at the network's own spacing: on the field in the mask, and on landmarks."""
    torch.set_num_threads(THREADS)
    network, facts = load_network(weights)
    fixed, moving, mask = prepared(folder, facts["spacing"])
    affine = read_transform(folder / "affine.h5")
    warped = resample(moving, affine, Grid.of(fixed), sitk.sitkBSpline)
    landmarks = read_landmark_pair(pair / "fixed_landmarks.txt", pair / "moving_landmarks.txt")

    def predict(stride: int, precision: str) -> tuple[np.ndarray, Grid]:
        dense_network = DenseNetwork(
            network, window=facts["window"], settings=InferenceSettings(stride=stride, precision=precision)
        )
        return regnet.predict_field(dense_network, fixed, warped, mask)

    exact, lattice = predict(1, "float32")
    inside = near_mask(sitk.GetArrayViewFromImage(mask), 1)
    rows = []
    for stride, precision in ((1, "float32"), (2, "float32"), (1, "bfloat16"), (2, "bfloat16")):
        field = field_transform(*predict(stride, precision))
        on_lattice = sitk.TransformToDisplacementField(
            field, sitk.sitkVectorFloat64, lattice.size, lattice.origin, lattice.spacing, lattice.direction
        )
        change = np.linalg.norm(sitk.GetArrayFromImage(on_lattice) - exact, axis=-1)[inside]
        error = np.linalg.norm(transform_points(compose(affine, field), landmarks[0]) - landmarks[1], axis=-1)
        rows.append(
            {
                "stride": stride,
                "precision": precision,
                "change_mean": change.mean(),
                "change_99": np.percentile(change, 99),
                "change_max": change.max(),
                "tre_mean": error.mean(),
                "tre_median": np.median(error),
            }
        )
    save("inference_accuracy", pd.DataFrame(rows).assign(unit="mm", spacing=facts["spacing"], landmarks=len(landmarks[0])))


def gpu() -> None:
    """A volume of 300^3 on the GPU: seconds, peak memory, and float32 against bfloat16."""
    pair = random_pair(300, 300, 300)
    versions = f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    precisions = ("float32", "bfloat16") if inference.has_correct_bfloat16(torch.device("cuda")) else ("float32",)
    torch.manual_seed(0)
    network = RegNet()
    rows = []
    for stride in (1, 2):
        fields = {}
        for precision in precisions:
            settings = InferenceSettings(stride=stride, precision=precision, max_memory_gib=32.0)
            dense_network = DenseNetwork(network, window=WINDOW, settings=settings, device="cuda")
            fields[precision] = dense_network.predict(*pair)
            torch.cuda.reset_peak_memory_stats()
            seconds = np.median([timed(partial(dense_network.predict, *pair)) for _ in range(5)])
            peak = torch.cuda.max_memory_allocated() / 2**30
            change = np.linalg.norm(fields[precision] - fields["float32"], axis=0).max()
            rows.append({"stride": stride, "precision": precision, "seconds": seconds, "peak_gib": peak, "change_max": change})
    save("inference_gpu", pd.DataFrame(rows).assign(unit="voxels", versions=versions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", type=Path, default=os.environ.get("REGNET_PAIR"), help="folder of a pair of scans")
    parser.add_argument("--weights", type=Path, default=os.environ.get("REGNET_WEIGHTS"), help="weights of RegNet")
    arguments = parser.parse_args()

    throughput()
    save("inference_memory", compare({"512 x 512 x 400": large_volume}, repeats=1))
    if arguments.pair and arguments.weights:
        with TemporaryDirectory() as name:
            folder, pair, weights = Path(name), Path(arguments.pair), Path(arguments.weights)
            prepare(pair, weights, folder)
            os.environ |= {PREPARED: name, "REGNET_WEIGHTS": str(weights)}
            registration()
            accuracy(folder, weights, pair)
    else:
        print("inference_registration, inference_accuracy: left out, no --pair and --weights\n")
    if torch.cuda.is_available():
        gpu()
    else:
        print("inference_gpu: left out, no CUDA device\n")


if __name__ == "__main__":
    main()
