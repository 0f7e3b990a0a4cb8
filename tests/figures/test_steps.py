"""The steps that a figure shows by default."""

import numpy as np
import pytest
from support.planted_series import NO_GAPS

from grokscope import figures
from grokscope.series import Series


@pytest.mark.parametrize(
    ("evaluated", "train", "test", "required"),
    [
        ([0, 10, 100, 1000, 4000], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 100, 1000, 4000]),
        ([0, 10, 100, 1000, 4000], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 100, 4000]),
        ([0, 10, 100, 1000, 4000], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 4000]),
        ([0, 10, 100, 1000, 4000], [0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [0, 100, 4000]),
        ([0, 10, 100, 1000, 4000], [1, 1, 1, 1, 1], [0, 0, 0, 1, 1], [0, 1000, 4000]),
        ([0, 10, 100, 1000, 4000], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 4000]),
        ([0], [0], [0], [0]),
        ([0], [1], [1], [0]),
    ],
)
def test_representative_steps_include_the_landmarks(evaluated, train, test, required):
    arrays = {"train_accuracy": np.array(train, float), "test_accuracy": np.array(test, float)}
    log = Series("log", np.array(evaluated), arrays, {"gaps": NO_GAPS})
    checkpoints = np.arange(0, evaluated[-1] + 1, 50)
    steps = figures.representative_steps(log, checkpoints)
    assert steps == sorted(set(steps)) and len(steps) <= 6
    assert set(steps) <= set(checkpoints.tolist())
    assert set(required) <= set(steps)


def test_former_name_of_representative_steps_warns():
    with pytest.warns(DeprecationWarning, match="representative_steps"):
        assert figures.telling_steps is figures.representative_steps
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        figures.absent  # noqa: B018
