"""Files that are whole or do not exist."""

import pytest

from regnet.system.files import whole_file


def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "folder" / "table.csv"
    with whole_file(path) as partial:
        partial.write_text("old", encoding="utf-8")

    def fail():
        with whole_file(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(path.parent.iterdir()) == [path]
