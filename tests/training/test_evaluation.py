"""The evaluation of a state, which makes a log row."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.model import losses
from grokscope.training.evaluation import require_finite_losses
from grokscope.training.loop import Setup, loss_and_gradients, optimize
from grokscope.training.state import NotFiniteError, State


@pytest.fixture
def config() -> RunConfig:
    """A two-layer model with LayerNorm, in full batches."""
    return RunConfig(
        task=TaskConfig(p=7, train_fraction=0.6, form="a ∘ b ="),
        model=ModelConfig(
            n_layers=2, d_model=12, n_heads=3, d_mlp=8, normalization_type="LN", positions="sinusoidal"
        ),
        optimizer=OptimizerConfig(lr=1e-2),
    )


def trained_state(setup: Setup) -> State:
    """Return the state after a few updates, where no loss is special."""
    state = setup.learner.initial_state()
    updates = optimize(setup, state)
    for _ in range(13):
        next(updates)
    return state


def test_row_has_the_configured_loss(config: RunConfig):
    rows, state = {}, trained_state(Setup(config))
    for loss in ("softmax", "stablemax"):
        setup = Setup(dataclasses.replace(config, loss=loss))
        rows[loss] = setup.evaluator.evaluate(state)
        # In full batches the training loss is the log's train loss.
        assert rows[loss]["train_loss"] == pytest.approx(float(loss_and_gradients(setup, state)[0]), rel=1e-6)
    assert rows["softmax"]["train_accuracy"] == rows["stablemax"]["train_accuracy"]
    assert abs(rows["softmax"]["train_loss"] - rows["stablemax"]["train_loss"]) > 1e-3


def test_loss_that_is_not_finite_raises(tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch):
    setup = Setup(tiny_config)
    state, cross_entropy = setup.learner.initial_state(), losses.cross_entropy

    def poisoned_cross_entropy(*arguments: Any) -> torch.Tensor:
        loss = cross_entropy(*arguments).detach().clone()
        loss[setup.dataset.split.test[0]] = torch.inf
        return loss

    monkeypatch.setattr(losses, "cross_entropy", poisoned_cross_entropy)
    with pytest.raises(NotFiniteError, match="^The test_loss is not finite at step 0; "):
        setup.evaluator.evaluate(state)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_only_losses_must_be_finite(value: float):
    row = {"train_loss": 1.0, "test_loss": 2.0, "train_accuracy": value, "test_accuracy": value}
    assert require_finite_losses(row, 5) is row
    with pytest.raises(NotFiniteError, match="^The train_loss is not finite at step 5; the last finite step is 4"):
        require_finite_losses({**row, "train_loss": value}, 5)
