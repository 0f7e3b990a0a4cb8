"""Trajectories in memory whose parameters are planted, so that what a measure must say is known."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from torch import Tensor

from grokscope import Trajectory, tasks
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.model import families

Plant = Callable[..., Trajectory]


def planted(
    steps: Mapping[int, Mapping[str, Tensor]],
    *,
    p: int = 11,
    name: str = "addition",
    split: Any = None,
    run: Mapping[str, Any] | None = None,
    **model: Any,
) -> Trajectory:
    """Return a trajectory with some parameters given at each step and the others as they are initialized."""
    config = RunConfig(
        task=TaskConfig(name=name, p=p, train_fraction=0.5),
        model=dataclasses.replace(ModelConfig(d_model=16, n_heads=2, d_mlp=24), **model),
        **(run or {}),
    )
    start = families.build(config.model, tasks.build(config.task)).initialize(config.init_seed)
    return Trajectory.from_state_dicts(config, {step: {**start, **given} for step, given in steps.items()}, split)


@pytest.fixture
def plant() -> Plant:
    """The function that makes a small trajectory with planted parameters."""
    return planted


@pytest.fixture(scope="session")
def plant_once() -> Plant:
    """The same function, for fixtures that are made once."""
    return planted
