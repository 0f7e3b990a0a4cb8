"""Forks with a fresh optimizer: of imported runs, which have no optimizer state, and of trained ones."""

import dataclasses
from pathlib import Path

import pytest
import torch
from support.shared import command_line, make_tiny_config

from grokscope import Trajectory, tasks, training
from grokscope.errors import GrokscopeError
from grokscope.interop.import_run import import_checkpoints
from grokscope.model import families
from grokscope.report.commands import retraining_recipe
from grokscope.store.record import Record
from grokscope.store.run_store import RunStore
from grokscope.training.fork import fork, prepare_fork
from grokscope.training.loop import Setup, loss_and_gradients
from grokscope.training.optimizers import Optimizer, learning_rate

CONFIG = dataclasses.replace(make_tiny_config(), n_steps=12, checkpoints="every 4", evaluate_every=4)
TRAIN = [0, 4, 8, 15, 16, 23, 42]


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A run that was imported from two state dicts, with its training set."""
    model = families.build(CONFIG.model, tasks.build(CONFIG.task))
    for seed, step in ((0, 5), (1, 8)):
        torch.save({"model": model.initialize(seed), "step": step, "train_indices": TRAIN}, tmp_path / f"{step}.pt")
    files = [tmp_path / "5.pt", tmp_path / "8.pt"]
    return import_checkpoints(files, CONFIG, "imported", tmp_path).path or tmp_path


@pytest.mark.filterwarnings("ignore")
def test_imported_checkpoint_trains_with_an_empty_optimizer(imported: Path, tmp_path: Path):
    longer = dataclasses.replace(prepare_fork(imported, 5, None, fresh_optimizer=True).setup.config, n_steps=20)
    forked = fork(imported, 5, longer, "fork", tmp_path, fresh_optimizer=True)
    assert forked.split.train.tolist() == TRAIN and forked.steps.tolist() == [5, 8, 12, 16, 20]
    # One update by hand: AdamW without memory, with the learning rate of absolute step 5.
    setup = Setup(longer)
    state = setup.learner.initial_state()
    start = {name: tensor.clone() for name, tensor in Trajectory.open(imported).at(5).parameters.items()}
    for name, tensor in state.parameters.items():
        tensor.data.copy_(start[name])
    _, gradients = loss_and_gradients(setup, state)
    training.densify(tmp_path / "fork", 6, 6)
    after = Trajectory.open(tmp_path / "fork").at(6).parameters
    lr = learning_rate(longer.optimizer, 5)
    for name, gradient in gradients.items():
        moved = start[name] * (1 - lr * longer.optimizer.weight_decay) - lr * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(after[name], moved, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_fork_of_an_import_is_a_trained_run(imported: Path, tmp_path: Path):
    config = dataclasses.replace(prepare_fork(imported, 5, fresh_optimizer=True).setup.config, n_steps=9)
    fork(imported, 5, config, "fork", tmp_path, fresh_optimizer=True)
    record = Record.read(tmp_path / "fork")
    assert record.imported is None and record.has_split and record.origin is not None
    assert training.resume(tmp_path / "fork", n_steps=12).steps[-1] == 12
    recipe = retraining_recipe(record, "fork")
    assert recipe.commands == ("grokscope fork imported --step 5 --fresh-optimizer --n-steps 9 --run fork-again",)
    assert "Its origin was imported, so import the same files first." in recipe.remarks
    with pytest.raises(GrokscopeError, match="fork RUN --step N --fresh-optimizer"):
        fork(imported, 5, run="no", root=tmp_path)
    with pytest.raises(GrokscopeError, match="There is no checkpoint at step 6; the nearest: 5 and 8"):
        fork(imported, 6, run="no", root=tmp_path, fresh_optimizer=True)


def test_import_without_a_training_set_forks_onto_its_own(tmp_path: Path):
    model = families.build(CONFIG.model, tasks.build(CONFIG.task))
    torch.save({"model": model.initialize(0), "step": 5}, tmp_path / "5.pt")
    with pytest.warns(UserWarning):
        import_checkpoints([tmp_path / "5.pt"], CONFIG, "imported", tmp_path)
    config = dataclasses.replace(CONFIG, n_steps=8)
    prepared = prepare_fork(tmp_path / "imported", 5, config, fresh_optimizer=True)
    assert any("The training set of its origin is unknown" in sentence for sentence in prepared.describe())
    expected = tasks.load(CONFIG.task, CONFIG.split_seed)[1]
    assert torch.equal(prepared.setup.dataset.split.train, expected.train)


def test_fresh_optimizer_of_a_trained_run_differs_from_its_own(tiny_run: Path, tmp_path: Path):
    own = fork(tiny_run, 20, run="own", root=tmp_path)
    fresh = fork(tiny_run, 20, run="fresh", root=tmp_path, fresh_optimizer=True)
    assert torch.equal(own.at(20).parameters["embed.W_E"], fresh.at(20).parameters["embed.W_E"])
    assert not torch.equal(own.at(60).parameters["embed.W_E"], fresh.at(60).parameters["embed.W_E"])
    state = RunStore(tmp_path / "fresh").resume_points()[0].resume_state()
    assert not [name for name in state if name.startswith("optimizer/")]
    assert isinstance(Setup(own.config).learner.initial_state().optimizer, Optimizer)


@pytest.mark.filterwarnings("ignore")
def test_command_trains_an_imported_checkpoint(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    run = command_line(capsys, monkeypatch, tmp_path / "cwd")
    status, _, errors = run("fork", imported, "--step", 8, "--n-steps", 12)
    assert status == 1 and "--fresh-optimizer" in errors
    status, output, errors = run("fork", imported, "--step", 8, "--fresh-optimizer", "--n-steps", 12, "--run", "f")
    assert status == 0, errors
    assert "Its optimizer starts empty" in output and "differ from its origin" not in output
    assert Trajectory.open("checkpoints/f").split.train.tolist() == TRAIN
