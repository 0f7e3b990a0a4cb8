"""The search for values that are not finite: the faults of a check at every step, without reading a value back."""

import dataclasses
from itertools import islice

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from grokscope import training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.training import run as run_module
from grokscope.training.finiteness import FinitenessWatch
from grokscope.training.loop import Setup, optimize
from grokscope.training.optimizers import Optimizer
from grokscope.training.state import NotFiniteError

TINY = RunConfig(
    task=TaskConfig(p=7),
    model=ModelConfig(d_model=8, n_heads=2, d_mlp=8),
    n_steps=20,
    checkpoints="every 10",
    evaluate_every=10,
)
CONFIGS = {
    "merged": {},
    "LayerNorm": {"model": dataclasses.replace(TINY.model, n_layers=2, normalization_type="LN")},
    "minibatches": {"batch_size": 8},
    "dropout": {"residual_dropout": 0.1},
    "stablemax": {"loss": "stablemax"},
    "sharpness-aware": {"optimizer": OptimizerConfig(sam_radius=0.1)},
    "noise": {"optimizer": OptimizerConfig(weight_noise=0.1, update_noise=0.1, decay_centre="initialization")},
    "filter": {"optimizer": OptimizerConfig(gradient_filter="grokfast_ma", filter_window=2)},
    "orthogonal": {"optimizer": OptimizerConfig(gradient_filter="orthogonal")},
    "sgd": {"optimizer": OptimizerConfig(name="sgd", momentum=0.9)},
}
READS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select")


class ReadBack(Exception):
    """A value was read back from the device."""


class NoReads(TorchDispatchMode):
    """Refuses every operation that waits for the device to read a value back."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function.overloadpacket.__name__ in READS:
            raise ReadBack(str(function))
        return function(*arguments, **(keywords or {}))


def started(config: RunConfig, look_every: int):
    """Return a state and its updates, after the first update, which may build what later ones reuse."""
    setup = Setup(config)
    state = setup.learner.initial_state()
    updates = optimize(setup, state, look_every=look_every)
    next(updates)
    return state, updates


@pytest.mark.parametrize("name", CONFIGS)
def test_no_update_between_looks_reads_a_value_back(name: str):
    _, updates = started(dataclasses.replace(TINY, **CONFIGS[name]), 100)
    with NoReads():
        next(updates)
        next(updates)


def test_a_check_at_every_update_is_noticed():
    _, updates = started(TINY, 1)
    with NoReads(), pytest.raises(ReadBack):
        next(updates)


def break_at(monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> None:
    """Make one number of a gradient of the update after `step` not finite."""
    update = Optimizer.update

    def broken(self, gradients, u):
        if u == step:
            gradients = {**gradients, "unembed.W_U": gradients["unembed.W_U"].index_fill(0, torch.tensor([1]), value)}
        update(self, gradients, u)

    monkeypatch.setattr(Optimizer, "update", broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_late_look_reports_the_fault_of_a_check_at_every_step(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float
):
    break_at(monkeypatch, 4, value)
    config = dataclasses.replace(TINY, optimizer=OptimizerConfig(name=name, weight_decay=0.0))
    outcomes = []
    for look_every in (1, 100):
        state, updates = started(config, look_every)
        with pytest.raises(NotFiniteError) as caught:
            for _ in islice(updates, 9):
                pass
            state.require_finite()
        parameters = b"".join(tensor.detach().numpy().tobytes() for tensor in state.parameters.values())
        outcomes.append((str(caught.value), caught.value.step, caught.value.resumable, state.step, parameters))
        state.require_finite()  # The error is raised once.
    assert outcomes[0] == outcomes[1] and outcomes[0][1] == 5


def test_late_look_changes_no_bit():
    ends = []
    for look_every in (1, 3):
        state, updates = started(dataclasses.replace(TINY, **CONFIGS["filter"]), look_every)
        for _ in islice(updates, 8):
            pass
        tensors = {**state.parameters, **state.optimizer.state()}
        ends.append({name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()})
    assert ends[0] == ends[1]


def test_run_saves_nothing_after_an_undiscovered_fault(monkeypatch: pytest.MonkeyPatch, tmp_path):
    break_at(monkeypatch, 13, float("nan"))
    looks = []
    look = FinitenessWatch.look
    monkeypatch.setattr(FinitenessWatch, "look", lambda self: looks.append(self._state.step) or look(self))
    with pytest.raises(NotFiniteError, match="not finite at step 14; the last finite step is 13"):
        training.train(TINY, "run", tmp_path)
    assert run_module.MOST_UNCHECKED > 10 and looks and set(looks) <= {10, 20}
    assert training.run.Trajectory.open(tmp_path / "run").steps.tolist() == [0, 10]
