"""A training set that the config names, instead of a drawn one."""

import numpy as np
import pytest

from grokscope import tasks
from grokscope.config import RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.store.record import packed_indices

INDICES = np.array([0, 3, 24, 48])
P7 = packed_indices(INDICES, 49)


def test_named_training_set_replaces_the_drawn_one():
    _, split = tasks.load(TaskConfig(p=7, train_set=P7), seed=5)
    assert split.train.tolist() == INDICES.tolist()
    assert sorted([*split.train.tolist(), *split.test.tolist()]) == list(range(49))


@pytest.mark.parametrize("train_set", [P7[:-2], P7 + "00", "0" * 14, "ff" * 6 + "80", P7[:-2] + "81"])
def test_set_that_does_not_fit_the_task_is_a_fault(train_set: str):
    (fault,) = RunConfig(task=TaskConfig(p=7, train_set=train_set)).faults()
    assert fault.startswith("task.train_set: ") and "49 equations" in fault
    with pytest.raises(GrokscopeError, match=r"task\.train_set: .* do not fit the 49 equations"):
        tasks.load(TaskConfig(p=7, train_set=train_set), 0)


def test_size_of_a_named_set_limits_batch_and_outliers():
    small = TaskConfig(p=7, train_set=P7)
    (fault,) = RunConfig(task=small, batch_size=5).faults({"batch_size"})
    assert "the training set has 4 equations" in fault
    (fault,) = RunConfig(task=TaskConfig(p=7, train_set=P7, outliers=5)).faults()
    assert "5 of 4 training equations" in fault


def test_settings_of_the_draw_have_no_effect_with_a_named_set():
    config = RunConfig(task=TaskConfig(p=7, train_set=P7))
    for name in ("task.train_fraction", "task.split", "split_seed"):
        (fault,) = config.faults({name})
        assert fault.startswith(name) and "task.train_set names the training set" in fault
    outliers = RunConfig(task=TaskConfig(p=7, train_set=P7, outliers=2))
    assert outliers.faults({"split_seed"}) == []
