"""Values that are not finite, in many tensors: the run stops, names the tensor, and keeps its finite steps."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.shared import damage_of
from torch import Tensor

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from grokscope.disk.lock import is_locked
from grokscope.store.run_store import RunStore
from grokscope.training import loop
from grokscope.training.evaluation import Evaluator, Row, require_finite_losses
from grokscope.training.finiteness import FinitenessWatch
from grokscope.training.optimizers import Optimizer
from grokscope.training.state import NotFiniteError, State
from harness.scenarios import fake_computation, report, small_config

pytestmark = pytest.mark.usefixtures("segments_by_count")

ADAMW, ADAM = {"name": "adamw"}, {"name": "adam", "weight_decay": 0.0}
SGD = {"name": "sgd", "lr": 0.02, "momentum": 0.9}
NAN, INF = math.nan, math.inf

# Each case: the quantity, its tensor, the update, the value and the optimizer; then the name, the step and the last
# finite step in the error.
CASES: list[tuple[str, str, int, float, dict[str, Any], str, int, int]] = [
    ("parameter", "embed.W_E", 0, NAN, ADAMW, "The parameter embed.W_E", 1, 0),
    ("parameter", "unembed.W_U", 4, INF, ADAMW, "The parameter unembed.W_U", 5, 4),
    ("parameter", "blocks.0.mlp.b_in", 5, -INF, SGD, "The parameter blocks.0.mlp.b_in", 6, 5),
    ("parameter", "blocks.0.attn.W_Q", 11, NAN, ADAM, "The parameter blocks.0.attn.W_Q", 12, 11),
    ("parameter", "pos_embed.W_pos", 7, INF, SGD, "The parameter pos_embed.W_pos", 8, 7),
    ("gradient", "embed.W_E", 0, NAN, ADAMW, "The gradient of embed.W_E", 0, -1),
    ("gradient", "blocks.0.mlp.b_out", 3, INF, ADAMW, "The gradient of blocks.0.mlp.b_out", 3, 2),
    ("gradient", "blocks.0.attn.W_O", 6, -INF, ADAM, "The gradient of blocks.0.attn.W_O", 6, 5),
    ("gradient", "blocks.0.mlp.W_out", 11, NAN, SGD, "The gradient of blocks.0.mlp.W_out", 11, 10),
    ("loss", "", 0, NAN, ADAMW, "The training loss", 0, -1),
    ("loss", "", 4, INF, SGD, "The training loss", 4, 3),
    ("loss", "", 9, NAN, ADAM, "The training loss", 9, 8),
    ("train_loss", "", 3, NAN, ADAMW, "The train_loss", 3, 2),
    ("test_loss", "", 6, INF, SGD, "The test_loss", 6, 5),
    ("test_loss", "", 12, NAN, ADAM, "The test_loss", 12, 11),
    # An invalid first moment shows in the next update. An infinite second moment makes updates zero until a commit.
    ("exp_avg", "embed.W_E", 4, NAN, ADAMW, "The parameter embed.W_E", 6, 5),
    ("exp_avg", "unembed.W_U", 2, INF, ADAM, "The optimizer's unembed.W_U/exp_avg", 3, 0),
    ("exp_avg_sq", "blocks.0.mlp.W_in", 4, INF, ADAMW, "The optimizer's blocks.0.mlp.W_in/exp_avg_sq", 6, 3),
    ("exp_avg_sq", "embed.W_E", 9, NAN, ADAM, "The parameter embed.W_E", 11, 10),
    ("momentum_buffer", "blocks.0.attn.W_V", 6, INF, SGD, "The parameter blocks.0.attn.W_V", 8, 7),
    (
        "momentum_buffer",
        "blocks.0.mlp.b_out",
        11,
        NAN,
        SGD,
        "The optimizer's blocks.0.mlp.b_out/momentum_buffer",
        12,
        9,
    ),
]


def poison(patch: pytest.MonkeyPatch, quantity: str, name: str, poisoned_step: int, value: float) -> None:
    """Set one element of a tensor, or a loss, to a value at one step."""
    update, compute, evaluate = Optimizer.update, loop.loss_and_gradients, Evaluator.evaluate

    def poisoned_update(self: Optimizer, gradients: Any, step: int) -> None:
        update(self, gradients, step)
        if step == poisoned_step and quantity == "parameter":
            self._parameters[name].data.view(-1)[-1] = value
        elif step == poisoned_step and "loss" not in quantity and quantity != "gradient":
            self._torch[0].state[self._parameters[name]][quantity].view(-1)[0] = value

    def poisoned_compute(setup: loop.Setup, state: State) -> tuple[Tensor, dict[str, Tensor]]:
        loss, gradients = compute(setup, state)
        if state.step == poisoned_step and quantity == "loss":
            loss = torch.full_like(loss, value)
        if state.step == poisoned_step and quantity == "gradient":
            gradients[name].view(-1)[1] = value
        return loss, gradients

    def poisoned_evaluate(self: Evaluator, state: State) -> Row:
        row = evaluate(self, state)
        return require_finite_losses(row | ({quantity: value} if state.step == poisoned_step else {}), state.step)

    patch.setattr(Optimizer, "update", poisoned_update)
    patch.setattr(loop, "loss_and_gradients", poisoned_compute)
    if quantity.endswith("_loss"):
        patch.setattr(Evaluator, "evaluate", poisoned_evaluate)


def check_saved(run: Path, last_finite: int) -> None:
    """Assert that a run is undamaged and finite, and has its checkpoints up to the last finite step."""
    trajectory, store = Trajectory.open(run), RunStore(run)
    assert damage_of(store) == [] and not is_locked(run)
    assert set(range(0, last_finite + 1, 3)) | {0} <= set(trajectory.steps.tolist())
    for segment in store.segments:
        arrays = segment.file.read_all(segment.file.shapes)
        assert all(np.isfinite(array).all() for array in arrays.values()), f"{segment.path} was committed"


def config_of(optimizer: dict[str, Any]) -> RunConfig:
    """Return a config of 15 steps with one of the optimizers."""
    config = small_config()
    return dataclasses.replace(config, n_steps=15, optimizer=dataclasses.replace(config.optimizer, **optimizer))


@pytest.mark.parametrize("trains", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_run_stops_at_first_invalid_value_and_names_it(trains: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if not trains:
        fake_computation(monkeypatch)
    for i, (quantity, name, poisoned_step, value, optimizer, reported, step, last_finite) in enumerate(CASES):
        with monkeypatch.context() as patch:
            poison(patch, quantity, name, poisoned_step, value)
            message = f"{reported} is not finite at step {step}; the last finite step is {last_finite}. "
            with pytest.raises(NotFiniteError, match=f"^{re.escape(message)}"):
                training.train(config_of(optimizer), str(i), tmp_path)
        check_saved(tmp_path / str(i), last_finite)
        # Without the poison, a resume completes the run.
        training.resume(tmp_path / str(i))
    expected = {
        optimizer["name"]: training.train(config_of(optimizer), optimizer["name"], tmp_path).digest
        for optimizer in (ADAMW, ADAM, SGD)
    }
    digests = [Trajectory.open(tmp_path / str(i)).digest for i in range(len(CASES))]
    differing = [case for case, digest in zip(CASES, digests, strict=True) if digest != expected[case[4]["name"]]]
    report("invalid values, all named", {"cases": len(CASES), "differ after a resume": len(differing)})
    assert len(CASES) >= 20 and differing == []


def test_invalid_value_without_the_check_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: `check_saved` detects values that are not finite."""
    fake_computation(monkeypatch)
    monkeypatch.setattr(loop, "require_finite", lambda *arguments, **options: None)
    monkeypatch.setattr(FinitenessWatch, "look", lambda self: None)
    poison(monkeypatch, "parameter", "embed.W_E", 4, NAN)
    training.train(config_of({**SGD, "momentum": 0.0}), "run", tmp_path)
    with pytest.raises(AssertionError, match="was committed"):
        check_saved(tmp_path / "run", 4)
