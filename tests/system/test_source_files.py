"""Which modules use which."""

from pathlib import Path

from regnet.system.source_files import source_files


def test_source_files_follow_imports():
    names = {Path(path).stem for path in source_files("registration.regnet")}
    assert {"regnet", "inference", "network", "samples", "transforms", "volumes", "errors"} <= names
    assert "style" not in names
    inside = source_files("presentation.figures.chapter")
    assert {Path(path).stem for path in inside} >= {"chapter", "style", "long_tables", "summaries"}
    assert not {"training", "volumes", "samples"} & {Path(path).stem for path in inside}
