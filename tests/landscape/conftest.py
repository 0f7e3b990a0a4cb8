"""The shared tiny run and the losses of its checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.shared import own_losses

from grokscope import Trajectory


@pytest.fixture(scope="module")
def trajectory(tiny_run: Path) -> Trajectory:
    """The trajectory of the shared tiny run; checkpoints are at the steps 0, 10 … 60."""
    return Trajectory.open(tiny_run)


@pytest.fixture(scope="module")
def own(trajectory: Trajectory) -> Callable[[int], list[float]]:
    """The function that returns the losses and accuracies of the checkpoint at a step."""
    return own_losses(trajectory)
