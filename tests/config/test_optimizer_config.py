"""OptimizerConfigs: settings that the chosen optimizer does not have."""

from typing import Any

import pytest
from support.configs import construct


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"optimizer.momentum": 1.0, "optimizer.name": "adam"}, ["momentum", "weight_decay"]),
        ({"optimizer.decay_centre": "mean", "optimizer.name": "adam"}, ["decay_centre", "weight_decay"]),
        (
            {"optimizer.weight_decay": -1, "optimizer.name": "sgd", "optimizer.decay_centre": "initialization"},
            ["weight_decay", "decay_centre"],
        ),
    ],
)
def test_invalid_setting_hides_no_other_contradiction(changes: dict[str, Any], names: list[str]):
    faults = construct(changes).faults()
    assert [fault.split(":")[0] for fault in faults] == [f"optimizer.{name}" for name in names]
