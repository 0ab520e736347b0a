"""Files that come with the package and are no Python: beside it in the repository, inside it once it is installed."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

REPOSITORY = PACKAGE.parents[2]

FOLDERS = {
    "elastix": "config/elastix",
    "schemas": "workflow/schemas",
    "viewer": "workflow/viewer",
    "weights": "resources/weights",
}
"""Where the files are in the repository; pyproject.toml installs each of these folders as ``regnet/data/<name>``."""


def shipped(name: str) -> Path:
    """The folder of one kind of files that come with the package, one of `FOLDERS`."""
    installed = PACKAGE / "data" / name
    return installed if installed.is_dir() else REPOSITORY / FOLDERS[name]
