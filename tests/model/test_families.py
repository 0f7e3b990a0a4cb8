"""A family of networks of another package: training, exact resume, measures and the page."""

import dataclasses
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from grokscope import RunConfig, TaskConfig, Trajectory, measures, plugins, report, resume, rng, train
from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError
from grokscope.model.families import Matrix, Model, sizes

CONFIG = RunConfig(
    task=TaskConfig(p=5, train_fraction=0.6),
    model=ModelConfig(family="sums"),
    n_steps=4,
    checkpoints="every 2",
    evaluate_every=2,
)


class Sums(Model):
    """The sum of the operands' vectors, and a linear map."""

    @property
    def shapes(self):
        return {"table": (6, 8), "unembed": (8, 5)}

    @property
    def trained(self):
        return ("table", "unembed")

    def initialize(self, seed):
        return {
            name: torch.randn(shape, generator=rng.generator("init", seed, name))
            for name, shape in self.shapes.items()
        }

    def logits(self, parameters, tokens, dropout=None, hook=None):
        tokens = tokens if torch.is_tensor(tokens) else tokens.tokens
        return parameters["table"][tokens[:, :2]].sum(1) @ parameters["unembed"]

    @property
    def matrices(self):
        return {"embedding": Matrix(("table",), lambda parameters: parameters["table"])}


def sums(config, task):
    """Return the network, as the entry point of another package does."""
    return Sums(config, **sizes(config, task))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch):
    """Install the family as a package with an entry point."""
    point = EntryPoint("sums", f"{__name__}:sums", "grokscope.models")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    plugins._registered.cache_clear()
    yield
    plugins._registered.cache_clear()


def test_foreign_family_trains_and_resumes_exactly(tmp_path: Path):
    whole = train(dataclasses.replace(CONFIG, n_steps=6), "whole", tmp_path, progress=False)
    train(CONFIG, "part", tmp_path, progress=False)
    resumed = resume(tmp_path / "part", n_steps=6, progress=False)
    assert resumed.steps.tolist() == [0, 2, 4, 6]
    for name, tensor in whole.last.parameters.items():
        assert torch.equal(resumed.last.parameters[name], tensor)
        assert not torch.equal(resumed.at(0).parameters[name], tensor)


def test_foreign_family_is_measured_by_its_parts(tmp_path: Path):
    trajectory = train(CONFIG, "run", tmp_path, progress=False)
    torch.testing.assert_close(trajectory.matrix("embedding"), trajectory.parameter("table"))
    parts = [trajectory.parameter(name).double().flatten(1) for name in ("table", "unembed")]
    norm = torch.as_tensor(measures.evaluate("weight_norm", trajectory)["weight_norm"]).double()
    torch.testing.assert_close(norm, torch.cat(parts, 1).norm(dim=1), rtol=1e-5, atol=0)
    with pytest.raises(GrokscopeError, match="family 'sums', has no neurons"):
        measures.evaluate("neurons", trajectory)


def test_page_of_a_foreign_family_states_what_it_lacks(tmp_path: Path):
    train(CONFIG, "run", tmp_path, progress=False)
    page = report.write(Trajectory.open(tmp_path / "run")).read_text()
    assert "a + b mod 5" in page and "family &#x27;sums&#x27;, has no attention" in page.replace("&#39;", "&#x27;")
