"""Several processes that train one network: one line if one of them fails."""

import os

import pytest

from regnet.errors import RegNetError
from regnet.learning.processes import launch, process_count, share


def fail_in_the_second(reason):
    if os.environ["RANK"] == "1":
        raise RegNetError(reason)


@pytest.mark.slow
def test_a_failing_process_ends_all_with_its_reason():
    with pytest.raises(RegNetError, match="process 2 of 2: the loss is nan"):
        launch(2, fail_in_the_second, "the loss is nan")


def test_a_single_process_takes_everything():
    assert process_count() == 1
    assert list(range(5))[share()] == [0, 1, 2, 3, 4]
