"""A module of the user's own: the same bits as a loop over the module itself, exact resume, and its parts."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from grokscope import RunConfig, TaskConfig, Trajectory, densify, fork, measures, resume, train
from grokscope.errors import GrokscopeError
from grokscope.model import own

CONFIG = RunConfig(task=TaskConfig(p=5, train_fraction=0.6), n_steps=4, checkpoints="every 2", evaluate_every=2)


class Sums(nn.Module):
    """A network with an embedding, neurons and an unembedding."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(6, 8)
        self.layers = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5), nn.Dropout(dropout))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.layers(self.embed(tokens[:, :2]).sum(1))


@pytest.fixture(autouse=True)
def forget_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_MODULES", {})


def seeded_module() -> Sums:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Sums()


def test_training_is_adamw_on_the_module_itself(tmp_path: Path):
    config = dataclasses.replace(CONFIG, loss_dtype="float32")
    trajectory = train(config, "own", tmp_path, model=seeded_module(), progress=False)
    module, task = seeded_module(), trajectory.task
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98))
    inputs, labels = task.inputs[trajectory.split.train], task.labels[trajectory.split.train]
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(step / 10, 1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(trajectory.last.parameters[name], parameter.detach(), rtol=1e-4, atol=1e-6)


def test_run_resumes_exactly_with_the_module_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = train(dataclasses.replace(CONFIG, n_steps=6), "whole", tmp_path, model=seeded_module(), progress=False)
    train(CONFIG, "part", tmp_path, model=seeded_module(), progress=False)
    monkeypatch.setattr(own, "_MODULES", {})
    unknown = Trajectory.open(tmp_path / "part")
    assert unknown.parameter("embed.weight").shape == (3, 6, 8)
    with pytest.raises(GrokscopeError, match=r"the module Sums, which was not given here"):
        unknown.model.logits(unknown.last.parameters, unknown.task.inputs)
    resumed = resume(tmp_path / "part", n_steps=6, model=Sums(), progress=False)
    for name, tensor in whole.at(6).parameters.items():
        assert torch.equal(resumed.at(6).parameters[name], tensor)


def test_fork_and_densify_take_the_module_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = train(dataclasses.replace(CONFIG, n_steps=6), "whole", tmp_path, model=seeded_module(), progress=False)
    train(CONFIG, "part", tmp_path, model=seeded_module(), progress=False)
    monkeypatch.setattr(own, "_MODULES", {})
    longer = dataclasses.replace(Trajectory.open(tmp_path / "part").config, n_steps=6)
    with pytest.raises(GrokscopeError, match=r"as model=module to .* grokscope\.fork or grokscope\.densify"):
        fork(tmp_path / "part", 4, longer, "refused", tmp_path, progress=False)
    forked = fork(tmp_path / "part", 4, longer, "forked", tmp_path, progress=False, model=Sums())
    monkeypatch.setattr(own, "_MODULES", {})
    dense = densify(tmp_path / "part", 0, 4, progress=False, model=Sums())
    assert dense.steps.tolist() == [0, 1, 2, 3, 4]
    for name, tensor in whole.at(6).parameters.items():
        assert torch.equal(forked.at(6).parameters[name], tensor)


def test_measures_find_the_parts_of_a_module(tmp_path: Path):
    trajectory = train(CONFIG, "own", tmp_path, model=seeded_module(), progress=False)
    model, parameters = trajectory.model, trajectory.last.parameters
    torch.testing.assert_close(trajectory.matrix("embedding")[-1], parameters["embed.weight"])
    torch.testing.assert_close(model.matrix("neuron_logits").read(parameters).float(), parameters["layers.2.weight"])
    assert model.neurons == ("layers.1",) and model.components(model.trained).keys() == {"embed", "layers"}
    series = measures.evaluate("weight_norm", trajectory)
    assert series["components"].tolist() == ["embed", "layers"]
    with pytest.raises(GrokscopeError, match="family 'module', has no attention"):
        measures.evaluate("attention", trajectory)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Sums(dropout=0.5), "gives different results for the same parameters"),
        (nn.Flatten(), "has no parameter"),
        (nn.Linear(2, 5), "fails on tokens of shape"),
    ],
)
def test_module_that_cannot_be_trained_is_refused(module, message: str, tmp_path: Path):
    with pytest.raises(GrokscopeError, match=message):
        train(CONFIG, "own", tmp_path, model=module, progress=False)
    assert not list(tmp_path.iterdir())


def test_other_initial_parameters_are_not_the_initialization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trajectory = train(CONFIG, "own", tmp_path, model=seeded_module(), progress=False)
    assert torch.equal(trajectory.untrained["embed.weight"], seeded_module().embed.weight)
    monkeypatch.setattr(own, "_MODULES", {})
    own.remember(Sums())
    with pytest.raises(GrokscopeError, match="are not those that the run began with"):
        Trajectory.open(tmp_path / "own").model.initialize(0)
