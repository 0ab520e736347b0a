"""The command ``regnet``: registers two scans, moves and measures points, makes cohorts, checks experiments (docs/register.md).

Each problem with the user's input is one line on stderr, and the exit status is 2. Modules that take seconds to import are
imported by the commands that need them, so that ``--help`` and wrong arguments get an answer at once.
"""

import argparse
import io
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from regnet import __version__
from regnet.datasets.public_sets import DATASETS
from regnet.errors import ConfigError, InputError, RegNetError, printable
from regnet.images.landmark_formats import LANDMARK_FORMATS, SLICER_FORMATS, SUFFIXES, VOXEL_FORMATS
from regnet.learning.released import DEFAULT, PYRAMID_SETTINGS, REGNET_SETTINGS, find_weights
from regnet.system.files import refuse_undecodable
from regnet.system.jobs import output_to
from regnet.system.machine import usable_cores

if TYPE_CHECKING:
    import pandas as pd

REFUSED = 2
"""Exit status for input that cannot be used."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""

PIPE_CLOSED = 141
"""Exit status if the program that reads the output has ended, as of ``| head``; as shells report SIGPIPE."""

INFERENCE_OPTIONS = ("passes", "mirrors", "smoothing", "stride")
"""Options of ``register`` that say how networks are applied; their defaults depend on the network."""

REGISTER_EXAMPLES = """\
examples:
  regnet register baseline.nii.gz followup.nii.gz --output out
      segments the lungs, registers affinely, then with the feature pyramid

  regnet register dicom/baseline dicom/followup --output out
      folders with one DICOM series each

  regnet register fixed.mha moving.mha --fixed-mask fixed_lungs.mha --moving-mask moving_lungs.mha \\
      --fixed-landmarks fixed.txt --moving-landmarks moving.txt --output out --force
      uses your masks; prints the distances between landmarks before and after

the folder out gets:
  transform.h5   ITK composite transform, affine and field, mm, fixed -> moving; opens in SimpleITK and 3D Slicer
  dvf.nii.gz     displacement of every voxel of the fixed image, x y z in mm (LPS), affine included
  warped.nii.gz  the deformed moving image on the grid of the fixed image, HU
  report.json    versions, device, seconds, lung volumes, Jacobian determinant, seeds
  overview.png   fixed, moving and registered images, and their differences
"""

POINTS_EXAMPLES = """\
examples:
  regnet transform-points points.csv --transform out/transform.h5
      a CSV table with the columns x, y, z in mm (LPS); keeps other columns; prints the table

  regnet transform-points fixed.txt --transform out/transform.h5 --output moved.txt
      an elastix point file; files of 3D Slicer (.mrk.json, .fcsv) work too

Points move from the fixed to the moving image. Outside the fixed image only the affine part moves them.
"""

INVERT_EXAMPLES = """\
example:
  regnet invert out/transform.h5 --fixed baseline.nii.gz --output inverse.h5
      a transform that moves points from the moving to the fixed image; prints how far a round trip ends from where it began

Where a transform folds, several points go to one: the command says in how much of the image it does.
"""

APPLY_EXAMPLES = """\
examples:
  regnet apply followup_pet.nii.gz --transform out/transform.h5 --like baseline.nii.gz --output warped
      another image of the moving scan on the grid of the fixed one: warped/followup_pet.nii.gz

  regnet apply lobes.nii.gz nodules.nii.gz --labels --transform out/transform.h5 --like baseline.nii.gz --output warped
      segmentations: each label stays a whole number

Images move from the moving to the fixed scan. For the other way, give the inverse (regnet invert) and --like the moving scan.
"""

EVALUATE_EXAMPLES = """\
example:
  regnet evaluate fixed.txt moving.txt --transform out/transform.h5 --output errors.csv
      distances in mm between T(fixed landmark) and moving landmark, before registration and with each transform

Landmarks are elastix point files, CSV tables with the columns x, y, z, or points of 3D Slicer, in mm. Points correspond by
their labels where both files have labels, otherwise row i of one file to row i of the other.
"""


DATASET_EXAMPLES = """\
examples:
  regnet dataset dirlab_4dct --source Downloads/DIRLAB --output data/dirlab_4dct
      makes a folder with images in HU, landmarks in mm, images.tsv, pairs.tsv, a config and a card; then run
      snakemake --cores all --configfile data/dirlab_4dct/config.yaml

  regnet dataset lung_followup --output data/lung_followup --training first.nii.gz second.nii.gz
      downloads a public pair of one patient to test on; the network trains on the other CT images that you name

  regnet dataset check data/dirlab_4dct
      compares the distances between landmarks before registration with the published ones

What each set is and where to get it: docs/datasets.md.
"""


CHECK_EXAMPLES = """\
examples:
  regnet check --configfile config/mine.yaml
      checks what snakemake checks before it starts: the config, the tables, and the images, masks and landmarks they name

  regnet check --configfile config/lung_followup.yaml --config data_root=/data/ct --voxels
      also reads every voxel, and so finds truncated files

Run it in the folder of the workflow. Each problem is one line on stderr.
"""

CONVERT_EXAMPLES = """\
examples:
  regnet convert-points case1_300_T00_xyz.txt --image case1_T00.mha --kind fcsv --system RAS --output case1_T00.fcsv
      converts voxel numbers of DIR-Lab to points of 3D Slicer

  regnet convert-points points.mrk.json --image fixed.nii.gz --kind index --output fixed.txt
      converts points of 3D Slicer to an elastix index file

kinds of files:
"""

PLAN_EXAMPLES = """\
examples:
  regnet plan --configfile config/mine.yaml
      shows how many jobs snakemake would run now, and what the whole run takes: core hours, GPU hours, peak disk space

  regnet plan --configfile config/chapter.yaml config/spread.yaml --gpu-tflops 100
      assumes a GPU that reaches 100 TFLOP/s in these networks

Run it in the folder of the workflow. Hours are right within a factor of about two; see docs/cluster.md.
"""

PROVENANCE_EXAMPLES = """\
examples:
  regnet provenance results/phantom
      shows config, seed, code, commit, machines, and the checksums of the inputs of Table 2.1

  regnet provenance results/phantom/tables/table_2_1.csv Downloads/table_2_1.provenance.json
      says whether the two tables should be equal, and if not, what differs
"""

VERDICTS = {
    "equal": "the tables should be equal, byte for byte",
    "close": "the tables should agree up to rounding errors, which training amplifies",
    "different": "the tables need not agree",
}
"""What the verdicts of `regnet.experiment.provenance.compare` mean."""


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments without the name of the program; None for those of the process.

    Returns
    -------
    int
        The exit status: 0, `REFUSED`, `INTERRUPTED` or `PIPE_CLOSED`.

    Raises
    ------
    SystemExit
        If the arguments cannot be parsed, and after ``--help`` and ``--version``.
    """
    is_open = _open_streams()
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as end:
        # --help and --version have printed into a buffer, which may not fit on the disk.
        if not end.code and (status := _print("", is_open)):
            raise SystemExit(status) from None
        raise
    try:
        for word in sys.argv[1:] if argv is None else argv:
            refuse_undecodable(word)
        # ITK and its format libraries print many lines about a problem that our message describes in one.
        with open(os.devnull, "w", encoding="utf-8") as nowhere, output_to(nowhere) as (_, terminal), _progress(terminal):
            results = arguments.run(arguments)
    except (RegNetError, OSError) as error:
        # One line for each problem: checks of a whole config or cohort list several.
        _complain(f"regnet: error: {' '.join(line.split())}\n" for line in str(error).splitlines())
        return REFUSED
    except KeyboardInterrupt:
        _complain(["regnet: interrupted\n"])
        return INTERRUPTED
    return _print(results, is_open)


def _open_streams() -> bool:
    """Open the null device for each standard stream that is closed; returns whether stdout was open.

    Otherwise the next file that is opened would get its number, and all that is printed.
    """
    is_open = sys.stdout is not None
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(descriptor)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            stream = open(descriptor, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
    return is_open


def _print(text: str, is_open: bool) -> int:
    """Write text to stdout, and all that is waiting there; returns the exit status."""
    if text and not is_open:
        _complain(["regnet: error: stdout: cannot be written (it is closed)\n"])
        return REFUSED
    try:
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            # Files are read and written in UTF-8, whatever the locale says.
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is left would be written, and fail, once more when Python ends.
        _to_nowhere(1)
        if isinstance(error, BrokenPipeError):
            return PIPE_CLOSED
        _complain([f"regnet: error: stdout: cannot be written ({error.strerror})\n"])
        return REFUSED
    return 0


def _complain(lines: Iterable[str]) -> None:
    """Write lines to stderr, if that is possible."""
    try:
        sys.stderr.writelines(lines)
        sys.stderr.flush()
    except OSError:
        _to_nowhere(2)


def _to_nowhere(descriptor: int) -> None:
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), descriptor)


@contextmanager
def _progress(descriptor: int) -> Iterator[None]:
    """Write the log of the package to a descriptor during the block: all messages to a terminal, otherwise only warnings."""
    logger = logging.getLogger("regnet")
    level = logger.level
    with open(os.dup(descriptor), "w", buffering=1, encoding="utf-8") as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO if os.isatty(descriptor) else logging.WARNING)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="regnet", description="Register chest CT scans with RegNet, a learned nonrigid registration.")
    parser.add_argument("--version", action="version", version=f"regnet {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_register(commands)
    _add_transform_points(commands)
    _add_apply(commands)
    _add_invert(commands)
    _add_evaluate(commands)
    _add_convert_points(commands)
    _add_dataset(commands)
    _add_check(commands)
    _add_plan(commands)
    _add_provenance(commands)
    return parser


def _add_register(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "register", _register, "Register two chest CT scans.", REGISTER_EXAMPLES)
    parser.add_argument("fixed", help="CT in HU, whose grid the results have: NIfTI, MetaImage, NRRD, DICOM or its folder")
    parser.add_argument("moving", help="CT in HU, which is deformed: NIfTI, MetaImage, NRRD, DICOM or its folder")
    parser.add_argument("--output", "-o", required=True, metavar="FOLDER", help="the folder to make for the results")
    parser.add_argument("--force", action="store_true", help="replace earlier results in the output folder")
    parser.add_argument("--inverse", action="store_true", help="write inverse.h5, from the moving to the fixed scan, too")
    parser.add_argument("--fixed-mask", metavar="FILE", help="lungs of the fixed image, not 0 inside (default: segmented)")
    parser.add_argument("--moving-mask", metavar="FILE", help="lungs of the moving image; only the report uses them")
    parser.add_argument("--fixed-landmarks", metavar="FILE", help="points of the fixed image: elastix point file or CSV, mm")
    parser.add_argument("--moving-landmarks", metavar="FILE", help="the corresponding points of the moving image")
    parser.add_argument(
        "--weights",
        action="append",
        metavar="FILE|NAME",
        help="weights of the feature pyramid or of RegNet: a safetensors file or a released name; RegNet's may be repeated for "
        f"the stages of a registration, from coarse to fine (default: {', '.join(DEFAULT)})",
    )
    options: dict[str, dict[str, Any]] = {
        "passes": {"type": _positive, "metavar": "N", "help": "how often each network is applied"},
        "mirrors": {"type": int, "choices": (1, 2, 4, 8), "help": "mirror images of the pair to average over"},
        "smoothing": {"type": _length, "metavar": "MM", "help": "standard deviation of a Gaussian that smooths each field"},
        "stride": {
            "type": int,
            "choices": (1, 2),
            "help": "1 predicts a displacement at every voxel, RegNet only, 2 at every second",
        },
    }
    for name in INFERENCE_OPTIONS:
        of_pyramid, of_regnet = (f"{getattr(settings, name):g}" for settings in (PYRAMID_SETTINGS, REGNET_SETTINGS))
        default = of_pyramid if of_pyramid == of_regnet else f"{of_pyramid}, of RegNet {of_regnet}"
        options[name]["help"] += f" (default: {default})"
        parser.add_argument(f"--{name}", **options[name])
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--affine",
        choices=("fast", "chapter"),
        default="fast",
        help="5 x 250 iterations, or the chapter's 5 x 1000 (default: fast)",
    )
    start.add_argument("--no-affine", action="store_true", help="skip the affine registration: the scans already overlap")
    start.add_argument("--initial", metavar="FILE", help="start from this ITK transform, fixed -> moving, instead")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where networks run (default: auto)")
    parser.add_argument(
        "--threads",
        type=_positive,
        default=usable_cores(),
        metavar="N",
        help="CPU threads (default: the cores that this process may use, %(default)s)",
    )
    parser.add_argument("--seed", type=_not_negative, default=2017, help="seed of the affine registration (default: 2017)")


def _add_transform_points(commands: argparse._SubParsersAction) -> None:
    parser = _command(
        commands, "transform-points", _transform_points, "Move points from the fixed to the moving scan.", POINTS_EXAMPLES
    )
    parser.add_argument("points", help="CSV table with the columns x, y, z, elastix point file, or points of 3D Slicer, in mm")
    parser.add_argument("--transform", "-t", required=True, metavar="FILE", help="ITK transform, fixed -> moving")
    parser.add_argument("--output", "-o", metavar="FILE", help="where to write them, in the format of the input")


def _add_apply(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "apply", _apply, "Warp further images or segmentations of the moving scan.", APPLY_EXAMPLES)
    parser.add_argument("images", nargs="+", metavar="image", help="in the space of the moving scan; formats as for register")
    parser.add_argument("--transform", "-t", required=True, metavar="FILE", help="ITK transform, fixed -> moving")
    parser.add_argument("--like", metavar="FILE", help="an image with the grid of the results (default: its own for each)")
    parser.add_argument("--labels", action="store_true", help="the images are segmentations")
    parser.add_argument("--output", "-o", required=True, metavar="FOLDER", help="the folder to make for NAME.nii.gz of each")
    parser.add_argument("--force", action="store_true", help="replace earlier results in the output folder")


def _add_invert(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "invert", _invert, "Invert a transform.", INVERT_EXAMPLES)
    parser.add_argument("transform", help="ITK transform, fixed -> moving")
    parser.add_argument("--fixed", required=True, metavar="FILE", help="the fixed image, on whose grid it is inverted")
    parser.add_argument("--mask", metavar="FILE", help="where the round trip is measured, on that grid (default: everywhere)")
    parser.add_argument("--output", "-o", required=True, metavar="FILE", help="where to write it, a name that ends in .h5")


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "evaluate", _evaluate, "Measure transforms at corresponding landmarks.", EVALUATE_EXAMPLES)
    parser.add_argument("fixed_landmarks", help="points of the fixed image")
    parser.add_argument("moving_landmarks", help="the corresponding points of the moving image")
    parser.add_argument(
        "--transform", "-t", required=True, action="append", metavar="FILE", help="ITK transform; may be repeated"
    )
    parser.add_argument("--output", "-o", metavar="FILE", help="CSV table with the errors at each landmark")


def _add_dataset(commands: argparse._SubParsersAction) -> None:
    description = "Turn a public data set into a cohort, or check such a cohort."
    parser = commands.add_parser(
        "dataset",
        help=description,
        description=description,
        epilog=DATASET_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sets = parser.add_subparsers(title="data sets", metavar="NAME", required=True)
    for name, dataset in DATASETS.items():
        make = _command(sets, name, _dataset, f"{dataset.title}. {dataset.notes}", "")
        make.set_defaults(name=name)
        make.add_argument("--source", required=dataset.download is None, metavar="FOLDER", help="the set as downloaded")
        make.add_argument("--output", "-o", required=True, metavar="FOLDER", help="the folder to make, usually data/" + name)
        make.add_argument("--force", action="store_true", help="replace an earlier cohort in the output folder")
        make.add_argument("--test", nargs="+", default=(), metavar="CASE", help="the cases to test on, such as 01 02")
        make.add_argument(
            "--training", nargs="+", default=(), metavar="FILE", help="CT images to train on instead; the last validates"
        )
    check = _command(sets, "check", _check_dataset, "Compare a cohort with the published figures of its data set.", "")
    check.add_argument("folder", help="the folder of the cohort")


def _add_convert_points(commands: argparse._SubParsersAction) -> None:
    kinds = "".join(f"  {name:<10} {meaning}\n" for name, meaning in LANDMARK_FORMATS.items())
    parser = _command(
        commands, "convert-points", _convert_points, "Convert landmarks to another kind of file.", CONVERT_EXAMPLES + kinds
    )
    parser.add_argument("points", help="landmarks of any of these kinds; the kind is read from the file")
    parser.add_argument("--output", "-o", required=True, metavar="FILE", help="where to write them")
    parser.add_argument("--kind", choices=LANDMARK_FORMATS, required=True, help="the kind of file to write")
    parser.add_argument("--image", metavar="FILE", help="the image of the landmarks, for kinds with voxel numbers")
    parser.add_argument("--system", choices=("LPS", "RAS"), default="LPS", help="axes of 3D Slicer's files (default: LPS)")


def _add_check(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "check", _check, "Check an experiment before running it.", CHECK_EXAMPLES)
    _add_config(parser)
    parser.add_argument("--voxels", action="store_true", help="read all voxels of all images and masks: about a second each")


def _add_plan(commands: argparse._SubParsersAction) -> None:
    description = "Estimate what an experiment takes: jobs, hours, disk space."
    parser = _command(commands, "plan", _plan, description, PLAN_EXAMPLES)
    _add_config(parser)
    parser.add_argument(
        "--gpu-tflops",
        type=_positive,
        default=50,
        metavar="N",
        help="speed of the GPU in these networks, in 10^12 operations per second (default: 50)",
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--configfile", nargs="+", default=(), metavar="FILE", help="as for snakemake; merged in this order")
    parser.add_argument("--config", nargs="+", default=(), metavar="KEY=VALUE", help="as for snakemake")


def _add_provenance(commands: argparse._SubParsersAction) -> None:
    description = "Show where a table of a run comes from, or whether two tables should be equal."
    parser = _command(commands, "provenance", _provenance, description, PROVENANCE_EXAMPLES)
    parser.add_argument("table", help="a table in results/, its .provenance.json, or results/<experiment> for Table 2.1")
    parser.add_argument("other", nargs="?", help="the same table of another run, or its .provenance.json")


def _command(
    commands: argparse._SubParsersAction, name: str, run: Callable[[argparse.Namespace], str], description: str, examples: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=description, description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _positive(text: str) -> int:
    return _integer(text, 1)


def _not_negative(text: str) -> int:
    return _integer(text, 0)


def _length(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a length of at least 0 mm")
    return value


def _integer(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected an integer of at least {least}")
    return int(text)


def _register(arguments: argparse.Namespace) -> str:
    """Register the scans; return the table of landmark errors, or "" without landmarks."""
    landmarks = arguments.fixed_landmarks, arguments.moving_landmarks
    if any(landmarks) and not all(landmarks):
        raise ConfigError("--fixed-landmarks, --moving-landmarks: found one of them, expected both or neither")
    weights = [find_weights(name) for name in arguments.weights or DEFAULT]
    from regnet.register_scans import register_scans  # slow to import: wrong arguments are refused first

    _, errors = register_scans(
        arguments.fixed,
        arguments.moving,
        arguments.output,
        weights=weights,
        fixed_mask=arguments.fixed_mask,
        moving_mask=arguments.moving_mask,
        landmarks=landmarks if all(landmarks) else None,
        affine=None if arguments.no_affine else arguments.affine,
        initial=arguments.initial,
        inference={name: value for name in INFERENCE_OPTIONS if (value := getattr(arguments, name)) is not None},
        device=arguments.device,
        threads=arguments.threads,
        seed=arguments.seed,
        inverse=arguments.inverse,
        replace=arguments.force,
    )
    return "" if errors is None else _table(errors)


def _transform_points(arguments: argparse.Namespace) -> str:
    """Move points; return them as text, or "" if they were written to a file."""
    from regnet.images.landmarks import format_landmarks, landmark_kind, read_labels, read_landmarks, read_point_table
    from regnet.images.transforms import read_transform, transform_points
    from regnet.system.files import whole_file

    transform = read_transform(arguments.transform)
    kind = landmark_kind(arguments.points)
    if kind == "table":
        table, points = read_point_table(arguments.points)
        table[["x", "y", "z"]] = [[f"{value:.4f}" for value in point] for point in transform_points(transform, points)]
        text = table.to_csv(index=False, lineterminator="\n")
    else:
        moved = transform_points(transform, read_landmarks(arguments.points))
        text = format_landmarks(moved, kind, labels=read_labels(arguments.points))
    if arguments.output is None:
        return text
    with whole_file(arguments.output) as partial:
        partial.write_text(text, encoding="utf-8")
    return ""


def _apply(arguments: argparse.Namespace) -> str:
    """Warp images; return "", as the results are files."""
    from regnet.images.transforms import read_transform, warp_image
    from regnet.images.volumes import Grid, file_stem, is_constant, read_grid, read_image, write_image
    from regnet.system.files import whole_folder

    names = [f"{file_stem(path)}.nii.gz" for path in arguments.images]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"found two images whose result would be {twice}, expected different names")
    transform = read_transform(arguments.transform)
    like = None if arguments.like is None else read_grid(arguments.like)
    with whole_folder(arguments.output, names, replace=arguments.force) as folder:
        for path, name in zip(arguments.images, names, strict=True):
            image = read_image(path)
            warped = warp_image(image, transform, like or Grid.of(image), labels=arguments.labels)
            if is_constant(warped) and not is_constant(image):
                raise InputError(f"{path}: found nothing of it on the grid of the result, expected the transform of its scan")
            write_image(warped, folder / name)
    return ""


def _invert(arguments: argparse.Namespace) -> str:
    """Invert a transform; return how good the inverse is."""
    from regnet.images.inverse import invert
    from regnet.images.transforms import read_transform, write_transform
    from regnet.images.volumes import read_grid, read_mask

    if not arguments.output.lower().endswith(".h5"):
        raise ConfigError(f"--output: found {arguments.output!r}, expected a name that ends in .h5")
    grid = read_grid(arguments.fixed)
    mask = None if arguments.mask is None else read_mask(arguments.mask, grid)
    inverse = invert(read_transform(arguments.transform), grid, mask)
    write_transform(inverse.transform, arguments.output)
    lines = [f"round trip in mm: mean {inverse.mean_residual:.2f}, largest {inverse.largest_residual:.2f}\n"]
    if inverse.folded_fraction > 0:
        lines.append(f"folded: {inverse.folded_fraction:.3%}, where several points go to one\n")
    return "".join(lines)


def _evaluate(arguments: argparse.Namespace) -> str:
    """Measure transforms; return the table of their errors."""
    from regnet.evaluation.landmark_errors import landmark_table, transform_errors
    from regnet.evaluation.long_tables import write_errors
    from regnet.images.landmarks import read_landmark_pair
    from regnet.images.transforms import read_transform
    from regnet.images.volumes import IDENTITY

    points = read_landmark_pair(arguments.fixed_landmarks, arguments.moving_landmarks)
    transforms = {"before": IDENTITY} | {path: read_transform(path) for path in arguments.transform}
    errors = transform_errors(transforms, *points)
    if arguments.output is not None:
        write_errors(errors, arguments.output)
    return _table(landmark_table(errors))


def _dataset(arguments: argparse.Namespace) -> str:
    """Make a cohort; return the distances between its landmarks and the command to run next."""
    from regnet.datasets.adapters import make_cohort, workflow_command

    distances = make_cohort(
        arguments.name,
        arguments.source,
        arguments.output,
        test=arguments.test,
        training=arguments.training,
        replace=arguments.force,
    )
    return f"{_table(distances)}next, in the folder of the workflow: {workflow_command(arguments.output)}\n"


def _check_dataset(arguments: argparse.Namespace) -> str:
    """Check a cohort; return the distances between its landmarks."""
    from regnet.datasets.adapters import check_cohort

    return _table(check_cohort(arguments.folder))


def _convert_points(arguments: argparse.Namespace) -> str:
    """Convert landmarks to another kind of file; return their number and the file."""
    from regnet.images.landmarks import read_labels, read_landmarks, write_landmarks
    from regnet.images.volumes import read_grid

    kind, name = arguments.kind, arguments.output.lower()
    suffix = SUFFIXES.get(kind)
    if not name.endswith(suffix) if suffix else name.endswith((*SUFFIXES.values(), ".json")):
        expected = f"a name that ends in {suffix}" if suffix else "a name that ends in .txt"
        raise ConfigError(f"--output: found {arguments.output!r}, expected {expected} for the kind {kind}")
    if arguments.system != "LPS" and kind not in SLICER_FORMATS:
        raise ConfigError(f"--system: found {arguments.system}, expected LPS for the kind {kind}, which has no other")
    if kind in VOXEL_FORMATS and arguments.image is None:
        raise ConfigError(f"--image: found none, expected that of the points: the kind {kind} holds voxel numbers")
    grid = None if arguments.image is None else read_grid(arguments.image)
    points = read_landmarks(arguments.points, grid)
    write_landmarks(points, arguments.output, kind, grid, arguments.system, read_labels(arguments.points))
    return f"{len(points)} points: {arguments.output}\n"


def _check(arguments: argparse.Namespace) -> str:
    """Check an experiment; return the numbers of its images and pairs."""
    from regnet.experiment.checking import checked_cohort, describe, read_config

    cohort = checked_cohort(read_config(arguments.configfile, arguments.config), voxels=arguments.voxels)
    return f"nothing wrong: {describe(cohort)}\n"


def _plan(arguments: argparse.Namespace) -> str:
    """Plan an experiment; return what it takes."""
    from regnet.experiment.checking import checked_cohort, read_config
    from regnet.experiment.plan import describe, image_volumes, plan_run, remaining_jobs

    config = read_config(arguments.configfile, arguments.config)
    cohort = checked_cohort(config)
    jobs = remaining_jobs(arguments.configfile, arguments.config)
    return describe(plan_run(config, cohort, image_volumes(config, cohort), jobs), arguments.gpu_tflops)


def _provenance(arguments: argparse.Namespace) -> str:
    """Describe one provenance, or compare two; return the text."""
    from regnet.experiment.provenance import changed_tables, compare, describe, find_provenance, read_provenance

    paths = [find_provenance(path) for path in (arguments.table, arguments.other) if path is not None]
    changed = [
        f"changed since the run: {printable(str(path.parent / name))}\n" for path in paths for name in changed_tables(path)
    ]
    first, *others = (read_provenance(path) for path in paths)
    if not others:
        return "".join([*changed, describe(first)])
    verdict, differences = compare(first, *others)
    equality = "are equal" if first["tables"] == others[0]["tables"] else "are not equal"
    return "".join([*changed, f"{VERDICTS[verdict]}; they {equality}\n", *(f"  {printable(line)}\n" for line in differences)])


def _table(table: "pd.DataFrame") -> str:
    """Format a table of distances between landmarks for the terminal."""
    return f"TRE in mm\n{table.to_string(float_format='{:.2f}'.format)}\n"
