"""Training from given parameters and a given training set: digests, exact resume, vanished files."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support.shared import Saved, command_line, make_tiny_config

from grokscope import Trajectory, tasks, training
from grokscope.config import OptimizerConfig, RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import families
from grokscope.report.commands import retraining_recipe
from grokscope.store.record import Record
from grokscope.training.fork import fork
from grokscope.training.loop import Setup
from grokscope.training.train_ensemble import train_ensemble

Read = Callable[[Path], Saved]


def config(**changes: Any) -> RunConfig:
    tiny = dataclasses.replace(make_tiny_config(), n_steps=12, checkpoints="every 4", evaluate_every=4)
    optimizer = OptimizerConfig(lr=1e-2, warmup_steps=2, decay_centre="initialization")
    return dataclasses.replace(tiny, **{"optimizer": optimizer, **changes})


def parameters(seed: int = 9) -> dict[str, torch.Tensor]:
    start = config()
    return families.build(start.model, tasks.build(start.task)).initialize(seed)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A run from given parameters; its decay centre is its initialization, so every resume needs them."""
    training.train(config(), "given", tmp_path, initialization=parameters())
    return tmp_path / "given"


def checkpoints(folder: Path, saved: Read) -> Saved:
    return {key: value for key, value in saved(folder).items() if key[0] == "checkpoint"}


def test_given_parameters_train_as_the_drawn_ones_do(given: Path, tmp_path: Path, saved: Read):
    """The given parameters are those of init_seed 9, so both runs have the same bits and different digests."""
    training.train(config(init_seed=9), "drawn", tmp_path)
    assert checkpoints(given, saved) == checkpoints(tmp_path / "drawn", saved)
    digests = {RunConfig.digest.fget(Record.read(tmp_path / name).config) for name in ("given", "drawn")}  # pyright: ignore
    assert len(digests) == 2
    other = training.train(config(), "other", tmp_path, initialization=parameters(8))
    assert other.config.digest not in digests


def test_run_resumes_densifies_and_forks_without_the_parameters(given: Path, tmp_path: Path, saved: Read):
    before = checkpoints(given, saved)
    training.resume(given, n_steps=16)
    training.train(config(init_seed=9, n_steps=16), "long", tmp_path)
    assert before.items() <= checkpoints(given, saved).items()
    assert checkpoints(tmp_path / "long", saved).items() <= checkpoints(given, saved).items()
    assert 6 in training.densify(given, 5, 7).steps
    forked = fork(given, 6, run="fork", root=tmp_path)
    last = forked.at(16).parameters
    for name, tensor in Trajectory.open(given).at(16).parameters.items():
        assert torch.equal(tensor, last[name])
    assert forked.initialization is not None
    assert torch.equal(forked.initialization["embed.W_E"], parameters()["embed.W_E"])


def test_training_without_the_named_parameters_is_refused(given: Path, tmp_path: Path):
    named = Record.read(given).config
    with pytest.raises(GrokscopeError, match=r"are not given.*--init-from FILE"):
        training.train(named, "again", tmp_path)
    with pytest.raises(GrokscopeError, match="do not have the digest"):
        training.train(named, "again", tmp_path, initialization=parameters(8))
    assert not (tmp_path / "again").exists()
    training.train(named, "again", tmp_path, initialization=parameters())


def test_parameters_that_do_not_fit_are_named_together(tmp_path: Path):
    wrong = parameters()
    wrong["embed.W_E"] = wrong["embed.W_E"].T
    del wrong["unembed.W_U"]
    wrong["W_X"] = torch.zeros(2)
    with pytest.raises(GrokscopeError, match="cannot initialize the model") as raised:
        training.train(config(), "run", tmp_path, initialization=wrong)
    assert all(word in str(raised.value) for word in ("unembed.W_U is missing", "W_X", "embed.W_E has shape"))
    infinite = parameters()
    infinite["unembed.W_U"][0, 0] = float("inf")
    with pytest.raises(GrokscopeError, match=r"unembed\.W_U is not finite"):
        training.train(config(), "run", tmp_path, initialization=infinite)
    assert not (tmp_path / "run").exists()


def test_fork_cannot_change_the_initialization(given: Path, tmp_path: Path):
    other = dataclasses.replace(Record.read(given).config, initialization="0" * 64)
    with pytest.raises(GrokscopeError, match="initialization: .* changes the initialization"):
        fork(given, 4, other, run="fork", root=tmp_path)


def test_ensemble_refuses_given_parameters_in_one_sentence(given: Path, tmp_path: Path):
    named = dataclasses.replace(Record.read(given).config, optimizer=OptimizerConfig())
    with pytest.raises(GrokscopeError, match="An ensemble cannot train with initialization; train these runs one"):
        train_ensemble([named], [tmp_path / "a"])


def test_stored_initialization_must_have_the_digest(given: Path):
    record = Record.read(given)
    setup = Setup(record.config, lambda: parameters(8))
    with pytest.raises(GrokscopeError, match="do not have the digest"):
        setup.learner.initial_state()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    return command_line(capsys, monkeypatch, tmp_path / "cwd")


SETTINGS = [
    *("quick", "--task.p", 7, "--model.d-model", 16, "--model.n-heads", 2, "--model.d-mlp", 24),
    *("--n-steps", 8, "--checkpoints", "every 4"),
]


def test_command_trains_from_files_that_may_vanish(run: Any, tmp_path: Path):
    weights, split = tmp_path / "weights.safetensors", tmp_path / "split.json"
    safetensors.torch.save_file(parameters(), weights)
    split.write_text(json.dumps([0, 5, 6, 12, 30]))
    status, output, errors = run("train", *SETTINGS, "--init-from", weights, "--split-from", split, "--run", "a")
    assert status == 0, errors
    weights.unlink()
    split.unlink()
    trajectory = Trajectory.open("checkpoints/a")
    assert trajectory.split.train.tolist() == [0, 5, 6, 12, 30]
    assert torch.equal(trajectory.first.parameters["embed.W_E"], parameters()["embed.W_E"])
    assert run("resume", "a", "--n-steps", 12)[0] == 0
    recipe = retraining_recipe(Record.read(Path("checkpoints/a")), "a")
    train, resume = recipe.commands
    assert "--init-from a@0" in train and "--task.train-set" in train
    for command in (train, resume):
        status, _, errors = run(*shlex.split(command)[1:])
        assert status == 0, errors
    again = Trajectory.open("checkpoints/a-again")
    assert again.config == trajectory.config or again.config.digest == trajectory.config.digest
    for name, tensor in Trajectory.open("checkpoints/a").last.parameters.items():
        assert torch.equal(tensor, again.last.parameters[name])


def test_command_starts_from_a_checkpoint_of_a_run(run: Any):
    assert run("train", *SETTINGS, "--run", "a")[0] == 0
    assert run("train", *SETTINGS, "--init-from", "a@4", "--run", "b")[0] == 0
    a, b = Trajectory.open("checkpoints/a"), Trajectory.open("checkpoints/b")
    for name, tensor in a.at(4).parameters.items():
        assert torch.equal(tensor, b.at(0).parameters[name])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init-from", "nothing.pt"], "--init-from nothing.pt: "),
        (["--init-from", "a@4"], "--init-from a@4: "),
        (["--split-from", "nothing.npy"], "cannot be read: No such file"),
        (["--split-from", "bad.npy"], "--split-from bad.npy: allowed for 'addition'"),
        (["--init-from", "two.pt"], "it contains 2 state dicts, not one"),
        (["--split-from", "good.npy", "--task.train-fraction", "0.5"], "has no effect, because task.train_set"),
    ],
)
def test_command_refuses_an_unfit_file_in_one_sentence(run: Any, flags: list[str], message: str):
    np.save("bad.npy", np.array([1, 1, 99]))
    np.save("good.npy", np.array([1, 2, 40]))
    torch.save({"state_dicts": [parameters(), parameters(1)], "steps": [0, 1]}, "two.pt")
    status, _, errors = run("train", *SETTINGS, *flags)
    assert status and message in errors and not Path("checkpoints").exists()
