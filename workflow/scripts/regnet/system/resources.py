"""Files other than Python that ship with the package: beside it in the repository, inside it once it is installed."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

REPOSITORY = PACKAGE.parents[2]

FOLDERS = {
    "elastix": "config/elastix",
    "schemas": "workflow/schemas",
    "viewer": "workflow/viewer",
    "weights": "resources/weights",
}
"""Folders of these files in the repository; pyproject.toml installs each one as ``regnet/data/<name>``."""


def shipped(name: str) -> Path:
    """The folder of one kind of shipped files, a key of `FOLDERS`."""
    installed = PACKAGE / "data" / name
    return installed if installed.is_dir() else REPOSITORY / FOLDERS[name]
