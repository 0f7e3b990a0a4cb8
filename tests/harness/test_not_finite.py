"""Numbers that are not finite, at many places: the run stops, says where, and keeps what it had."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from grokscope import Trajectory, training
from grokscope.config import RunConfig
from grokscope.disk.lock import is_locked
from grokscope.store.run_store import RunStore
from grokscope.training import loop
from grokscope.training.loop import NotFiniteError
from grokscope.training.optimizers import Optimizer
from harness.lives import compute_little, said, small_config

pytestmark = pytest.mark.usefixtures("segments_by_count")

ADAMW, ADAM = {"name": "adamw"}, {"name": "adam", "weight_decay": 0.0}
SGD = {"name": "sgd", "lr": 0.02, "momentum": 0.9}
NAN, INF = math.nan, math.inf

# What is made so, in which tensor, after or in which update, with what, under which optimizer; what the error names,
# at which step, and which step it calls the last finite one.
PLACES: list[tuple[str, str, int, float, dict[str, Any], str, int, int]] = [
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
    # The first is seen in the next update; an infinite second moment, which makes updates zero, only at a commit.
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


def poison(patch: pytest.MonkeyPatch, what: str, name: str, at: int, value: float) -> None:
    """Make one number what it should not be."""
    update, compute, evaluate = Optimizer.update, loop.loss_and_gradients, loop.Setup.evaluate

    def updated(self: Optimizer, gradients: Any, u: int) -> None:
        update(self, gradients, u)
        if u == at and what == "parameter":
            self._parameters[name].data.view(-1)[-1] = value
        elif u == at and "loss" not in what and what != "gradient":
            self._torch.state[self._parameters[name]][what].view(-1)[0] = value

    def computed(setup: loop.Setup, state: loop.State) -> tuple[Tensor, dict[str, Tensor]]:
        loss, gradients = compute(setup, state)
        if state.step == at and what == "loss":
            loss = torch.full_like(loss, value)
        if state.step == at and what == "gradient":
            gradients[name].view(-1)[1] = value
        return loss, gradients

    def evaluated(self: loop.Setup, state: loop.State) -> loop.Row:
        row = evaluate(self, state)
        return loop.require_finite_losses(row | ({what: value} if state.step == at else {}), state.step)

    patch.setattr(Optimizer, "update", updated)
    patch.setattr(loop, "loss_and_gradients", computed)
    if what.endswith("_loss"):
        patch.setattr(loop.Setup, "evaluate", evaluated)


def check_saved(run: Path, last: int) -> None:
    """Check that a run has its checkpoints up to the last finite step, that all is finite, and that it is sound."""
    trajectory, opened = Trajectory.open(run), RunStore(run)
    assert list(opened.damage()) == [] and not is_locked(run)
    assert set(range(0, last + 1, 3)) | {0} <= set(trajectory.steps.tolist())
    for segment in opened.segments:
        arrays = segment.file.read_all(segment.file.shapes)
        assert all(np.isfinite(array).all() for array in arrays.values()), f"{segment.path} was committed"


def config_of(optimizer: dict[str, Any]) -> RunConfig:
    """Return a run of 15 steps with one of the optimizers."""
    config = small_config()
    return dataclasses.replace(config, n_steps=15, optimizer=dataclasses.replace(config.optimizer, **optimizer))


@pytest.mark.parametrize("trains", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_run_stops_names_the_tensor_and_keeps_what_it_had(
    trains: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not trains:
        compute_little(monkeypatch)
    for i, (what, name, at, value, optimizer, named, step, last) in enumerate(PLACES):
        with monkeypatch.context() as patch:
            poison(patch, what, name, at, value)
            sentence = rf"^{re.escape(named)} is not finite at step {step}; the last finite step is {last}\. What was"
            with pytest.raises(NotFiniteError, match=sentence):
                training.train(config_of(optimizer), str(i), tmp_path)
        check_saved(tmp_path / str(i), last)
        # What was so once does not come again: from what is kept, the run goes on as it should have gone.
        training.resume(tmp_path / str(i))
    expected = {
        one["name"]: training.train(config_of(one), one["name"], tmp_path).digest for one in (ADAMW, ADAM, SGD)
    }
    resumed = [Trajectory.open(tmp_path / str(i)).digest for i in range(len(PLACES))]
    differ = [p for p, digest in zip(PLACES, resumed, strict=True) if digest != expected[p[4]["name"]]]
    said("places that are not finite, all named", {"places": len(PLACES), "differ once resumed": len(differ)})
    assert len(PLACES) >= 20 and differ == []


def test_without_the_check_it_would_be_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The control: what the test above looks at in the files does notice."""
    compute_little(monkeypatch)
    monkeypatch.setattr(loop, "_require_finite", lambda *given, **named: None)
    poison(monkeypatch, "parameter", "embed.W_E", 4, NAN)
    training.train(config_of({**SGD, "momentum": 0.0}), "run", tmp_path)
    with pytest.raises(AssertionError, match="was committed"):
        check_saved(tmp_path / "run", 4)
