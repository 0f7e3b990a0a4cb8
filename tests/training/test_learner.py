"""The states from which training starts or resumes, and resume states that do not fit."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from grokscope.config import OptimizerConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from grokscope.training.learner import latest_state, require_resumable
from grokscope.training.loop import Setup, optimize


@pytest.fixture
def setup(tiny_config: RunConfig) -> Setup:
    return Setup(tiny_config)


@pytest.fixture
def resume_state(tiny_run: Path) -> dict[str, Tensor]:
    """The last resume state of the tiny run."""
    arrays = RunStore(tiny_run).resume_points()[-1].resume_state()
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_initial_state_has_the_model_s_initialization(setup: Setup):
    state = setup.learner.initial_state()
    initialization = setup.model.initialize(setup.config.init_seed)
    assert state.step == 0 and state.optimizer.state() == {}
    assert all(torch.equal(state.parameters[name].detach(), tensor) for name, tensor in initialization.items())
    trained = tuple(name for name, tensor in state.parameters.items() if tensor.requires_grad)
    assert trained == setup.model.trained


def test_resumed_state_is_a_copy_of_the_resume_state(setup: Setup, resume_state: dict[str, Tensor]):
    expected = {name: tensor.clone() for name, tensor in resume_state.items()}
    state = setup.learner.resumed_state(resume_state)
    assert state.step == 60
    assert all(
        torch.equal(tensor.detach(), expected[f"parameters/{name}"]) for name, tensor in state.parameters.items()
    )
    for name, tensor in state.optimizer.state().items():
        assert torch.equal(tensor, expected[f"optimizer/{name}"])
    next(optimize(setup, state))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resume_state.items())


@pytest.mark.parametrize("step", [10, 37, 60])
def test_latest_state_is_at_or_before_the_step(step: int, setup: Setup, tiny_run: Path):
    run = RunStore(tiny_run)
    state, resume_state = latest_state(setup.learner, run, step)
    resumable = [segment.resume_step or 0 for segment in run.resume_points()]
    assert state.step == int(resume_state["step"]) == max(resumed for resumed in resumable if resumed <= step)


def test_resume_state_of_the_run_fits(setup: Setup, resume_state: dict[str, Tensor]):
    require_resumable(resume_state, setup.config, setup.model)
    require_resumable(resume_state, setup.config, setup.model, complete=True)


def test_absent_optimizer_state_fits_unless_it_must_be_complete(setup: Setup, resume_state: dict[str, Tensor]):
    partial = {name: tensor for name, tensor in resume_state.items() if not name.startswith("optimizer/")}
    require_resumable(partial, setup.config, setup.model)
    with pytest.raises(GrokscopeError, match="it lacks optimizer/"):
        require_resumable(partial, setup.config, setup.model, complete=True)


def test_misfits_are_named_in_one_message(setup: Setup, resume_state: dict[str, Tensor]):
    resume_state["extra"] = resume_state.pop("step")
    resume_state["parameters/unembed.b_U"] = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(GrokscopeError) as raised:
        require_resumable(resume_state, setup.config, setup.model)
    assert str(raised.value) == (
        "The resume state does not fit the run: it lacks step; it has unknown extra; "
        "parameters/unembed.b_U is float64 of shape [3], not float32 of shape [7]."
    )


def test_resume_state_of_another_optimizer_does_not_fit(setup: Setup, resume_state: dict[str, Tensor]):
    sgd = OptimizerConfig(name="sgd", momentum=0.9, weight_decay=0.0)
    config = dataclasses.replace(setup.config, optimizer=sgd)
    with pytest.raises(GrokscopeError, match=r"it has unknown optimizer/blocks\.0\.attn\.W_K/exp_avg, "):
        require_resumable(resume_state, config, setup.model)
