"""The settings that differ between two configs, and those that a fork cannot change."""

import dataclasses
from typing import Any

import pytest

from grokscope import tasks
from grokscope.config import MlpConfig, ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.training.fork_settings import compare_settings, require_same_parameters

ORIGIN = RunConfig(task=TaskConfig(p=7), model=ModelConfig(d_model=16, n_heads=2, d_mlp=24))


def test_comparison_returns_only_settings_that_differ():
    fork = dataclasses.replace(ORIGIN, optimizer=OptimizerConfig(lr=0.5), batch_size=8)
    assert compare_settings(ORIGIN, fork) == {"optimizer.lr": (0.001, 0.5), "batch_size": (None, 8)}
    assert compare_settings(ORIGIN, ORIGIN) == {}


def check(fork: RunConfig, origin: RunConfig = ORIGIN) -> None:
    changed = compare_settings(origin, fork)
    require_same_parameters(origin, fork, changed, tasks.build(origin.task), tasks.build(fork.task))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": dataclasses.replace(ORIGIN.model, act_fn="gelu", biases="all")},
        {"task": dataclasses.replace(ORIGIN.task, name="subtraction", train_fraction=0.5)},
        {"optimizer": OptimizerConfig(lr=0.1), "split_seed": 3, "training_seed": 4},
    ],
    ids=["model", "task", "training"],
)
def test_settings_without_effect_on_parameters_may_change(changes: dict[str, Any]):
    check(dataclasses.replace(ORIGIN, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_seed": 1}, "init_seed: 1 changes the initialization, .*Allowed in a fork: 0"),
        (
            {"model": dataclasses.replace(ORIGIN.model, d_mlp=8)},
            "model.d_mlp: 8 changes the parameters' shapes. Allowed in a fork: 24",
        ),
        (
            {"task": TaskConfig(p=5)},
            "task.p: 5 changes the meaning of the tokens. Allowed in a fork: 7",
        ),
    ],
    ids=["initialization", "shapes", "tokens"],
)
def test_setting_that_changes_parameters_is_named(changes: dict[str, Any], message: str):
    with pytest.raises(GrokscopeError, match=f"^{message}"):
        check(dataclasses.replace(ORIGIN, **changes))


def test_setting_of_an_mlp_that_changes_shapes_is_named():
    origin = dataclasses.replace(ORIGIN, model=ModelConfig(family="mlp", mlp=MlpConfig(d_hidden=8)))
    wider = dataclasses.replace(origin, model=ModelConfig(family="mlp", mlp=MlpConfig(d_hidden=9)))
    with pytest.raises(GrokscopeError, match=r"^model\.mlp\.d_hidden: 9 changes the parameters' shapes"):
        check(wider, origin)
    other = dataclasses.replace(origin, model=ModelConfig(family="mlp", mlp=MlpConfig(d_hidden=8, act_fn="gelu")))
    check(other, origin)
