"""The log of a run as a Series: its columns, their descriptions, and means over all equations."""

import dataclasses

import numpy as np
import pytest

from grokscope import tasks
from grokscope.config import RunConfig
from grokscope.run_log import log_series
from grokscope.store.segment import LOG_COLUMNS
from grokscope.store.source import Log

ROWS = np.array([[0, 2.0, 3.0, 0.1, 0.0], [10, 0.5, 4.0, 1.0, 0.25]])


def test_columns_become_arrays_over_the_evaluated_steps(tiny_config: RunConfig):
    config = dataclasses.replace(tiny_config, loss="stablemax")
    series = log_series(Log(ROWS, LOG_COLUMNS, [(5, 7)]), [(20, 30), (1, 2)], "digest", config)
    assert series.measure == "log" and series.digest == "digest" and series.steps.tolist() == [0, 10]
    assert {name: array.tolist() for name, array in series.arrays.items()} == {
        name: ROWS[:, column].tolist() for column, name in enumerate(LOG_COLUMNS) if column
    }
    assert series["gaps"].tolist() == [[1, 2], [5, 7], [20, 30]]
    loss, accuracy = series.variable("test_loss"), series.variable("test_accuracy")
    assert (loss.label, loss.unit, loss.is_logarithmic) == ("stablemax test loss", "nats", True)
    assert (accuracy.label, accuracy.unit, accuracy.is_logarithmic) == ("test accuracy", "", False)


def test_further_columns_are_described_by_their_names(tiny_config: RunConfig):
    columns = (*LOG_COLUMNS, "sum_test_loss", "train_sequence_accuracy")
    series = log_series(Log(np.pad(ROWS, ((0, 0), (0, 2))), columns), [], "", tiny_config)
    assert series.variable("sum_test_loss").label == "softmax sum test loss"
    assert series.variable("sum_test_loss").is_logarithmic
    assert series.variable("train_sequence_accuracy").label == "train sequence accuracy"


def test_log_without_training_set_is_over_all_equations(tiny_config: RunConfig):
    task = tasks.build(tiny_config.task)
    share = round(0.6 * 49) / 49
    stored_over_all = np.array([[0, 1.5, np.nan, 0.5, np.nan]])
    series = log_series(Log(np.concatenate([stored_over_all, ROWS[1:]]), LOG_COLUMNS), [], "", tiny_config, task)
    assert list(series.arrays) == ["loss", "accuracy"]
    assert series["loss"].tolist() == pytest.approx([1.5, share * 0.5 + (1 - share) * 4.0])
    assert series["accuracy"].tolist() == pytest.approx([0.5, share * 1.0 + (1 - share) * 0.25])
    assert series.variable("loss").label == "softmax loss over all equations"
