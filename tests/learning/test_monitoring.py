"""What users see of a running training."""

import re
import sys

import pytest

from regnet.learning.monitoring import EventFiles, Progress, duration


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (720, "12 min"), (7500, "2 h 05 min"), (86400, "24 h 00 min")])
def test_durations_are_words(seconds, words):
    assert duration(seconds) == words


def test_a_line_has_step_errors_speed_and_time_left(caplog):
    caplog.set_level("INFO")
    progress = Progress("training", step=10, steps=40, patches=640)
    progress.started -= 20
    assert not progress.due()
    progress.logged -= 16
    assert progress.due()
    progress.log(20, 1280, 1.234, 2.345)
    assert re.search(r"training step 20 / 40, loss 1.23 mm, validation 2.3\d mm, 3\d patches/s, (39|40|41) s left", caplog.text)
    progress.log(20, 1280, 1.234, float("nan"))
    assert "validation" not in caplog.messages[-1]
    assert not progress.due()


def test_event_files_hold_the_curves_of_this_training_alone(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for patches, values in ((0, (5.0,)), (0, (1.0, 2.0, 3.0)), (128, (4.0,))):
        events = EventFiles(tmp_path, patches)
        for step, value in enumerate(values, start=1):
            events.add("training", patches + 64 * step, {"loss": value})
        events.close()
    points = accumulator.EventAccumulator(str(tmp_path)).Reload().Scalars("training/loss")
    # The training was killed after 192 patches and went on from a checkpoint at 128.
    assert [(point.step, point.value) for point in points] == [(64, 1.0), (128, 2.0), (192, 4.0)]


def test_without_tensorboard_there_are_no_event_files_and_no_error(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    events = EventFiles(tmp_path, 0)
    events.add("training", 64, {"loss": 1.0})
    events.close()
    assert list(tmp_path.iterdir()) == []
    assert "tensorboard is not installed" in caplog.text
