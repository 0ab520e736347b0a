"""Which modules a module uses."""

from pathlib import Path

from regnet.system.source_files import source_files


def test_source_files_follow_imports():
    names = {Path(path).stem for path in source_files("registration.regnet")}
    assert {"regnet", "inference", "interface", "samples", "transforms", "volumes", "errors"} <= names
    assert "style" not in names
    names = {Path(path).stem for path in source_files("presentation.figures.chapter")}
    assert {"chapter", "style", "long_tables", "summaries"} <= names
    assert not {"training", "volumes", "samples"} & names
