"""The model card: its numbers are the run's, and its code loads the run."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

import grokscope
from grokscope import cli, training
from grokscope.config import ModelConfig, RunConfig
from grokscope.hub import model_card
from grokscope.trajectory import Trajectory


def code(card: str, language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)
    return block


def test_card_states_the_numbers_of_the_run(tiny_run: Path):
    trajectory = Trajectory.open(tiny_run)
    card = model_card.text(trajectory, "org/grokked", "cc-by-4.0")
    assert card.startswith('---\nlicense: "cc-by-4.0"\nlibrary_name: grokscope\n') and "\n# grokked\n" in card
    n_train, n_parameters = len(trajectory.split.train), sum(p.numel() for p in trajectory.last.parameters.values())
    assert f"{n_train} of the 49 equations of `a + b mod 7`" in card and f": {n_parameters:,} parameters." in card
    assert "7 checkpoints, from step 0 to 60" in card and model_card.PICTURE in card and trajectory.digest in card
    accuracy = trajectory.log["test_accuracy"][-1]
    assert f"| {accuracy:.1%} |" in card or f"| {accuracy:.2%} |" in card or f"| {accuracy:.0%} |" in card


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
def test_code_of_the_card_loads_the_step(tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    trajectory = Trajectory.open(tiny_run)
    card = model_card.text(trajectory, "org/grokked", "mit")
    monkeypatch.setattr(grokscope, "pull", {"org/grokked": trajectory}.__getitem__, raising=False)
    names: dict = {}
    exec(code(card, "python"), names)
    logits = names["model"](trajectory.task.inputs)[:, -1]
    assert (logits - trajectory.model.logits(trajectory.last.parameters, trajectory.task.inputs)).abs().max() < 1e-4


def test_command_of_the_card_trains_the_run_again(tiny_run: Path, tmp_path: Path, monkeypatch, capsys):
    trajectory = Trajectory.open(tiny_run)
    card = model_card.text(trajectory, "org/grokked", "mit")
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(code(card, "bash"))
    cli.main(arguments)
    assert program == "grokscope" and "gives the same bits" in card
    assert Trajectory.open(tmp_path / "checkpoints" / "tiny-again").digest == trajectory.digest
    capsys.readouterr()


def test_network_without_transformerlens_gives_parameters(tiny_config: RunConfig, tmp_path: Path):
    model = ModelConfig(family="mlp")
    trajectory = training.train(dataclasses.replace(tiny_config, model=model, n_steps=2), "mlp", tmp_path)
    card = model_card.text(trajectory, "org/mlp", "mit")
    assert 'A network of the family "mlp"' in card and ".model" not in card
    assert "parameters = trajectory.at(2).parameters" in code(card, "python")
