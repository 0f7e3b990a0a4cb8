"""Training on sequences, on several tasks and on fresh data, against dense computations in torch."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import grokscope
from grokscope import Trajectory
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.model import losses
from grokscope.tasks import NO_TARGET
from grokscope.training.loop import Setup, loss_and_gradients, optimize

INDUCTION = TaskConfig(name="induction", n_tokens=12, length=10, n_repeated=3, n_examples=40, train_fraction=0.5)
MIXTURE = TaskConfig(name="mixture", mixture="addition p=5; division p=7 train_fraction=0.5", train_fraction=0.4)


def config_of(task: TaskConfig, **changes: object) -> RunConfig:
    model = ModelConfig(d_model=8, n_heads=2, d_mlp=8, n_layers=2)
    base = RunConfig(task=task, model=model, n_steps=4, checkpoints="every 2", evaluate_every=2)
    return dataclasses.replace(base, **changes)


@pytest.fixture
def setup() -> Setup:
    return Setup(config_of(INDUCTION))


def test_training_loss_is_the_mean_over_target_tokens(setup: Setup):
    state = setup.learner.initial_state()
    equations, labels = setup.batch(0)
    logits = setup.model.logits(state.parameters, equations.tokens)
    expected = F.cross_entropy(logits.double().flatten(0, 1), labels.flatten(), ignore_index=NO_TARGET)
    loss, gradients = loss_and_gradients(setup, state)
    torch.testing.assert_close(loss, expected.detach())
    dense = torch.autograd.grad(expected, [state.parameters[name] for name in setup.model.trained])
    for name, gradient in zip(setup.model.trained, dense, strict=True):
        torch.testing.assert_close(gradients[name], gradient, msg=name)


def test_log_row_counts_tokens_and_whole_sequences(setup: Setup):
    state = setup.learner.initial_state()
    updates = optimize(setup, state)
    for _ in range(3):
        next(updates)
    # A hand-made unembedding that answers one token always is right for some targets only.
    with torch.no_grad():
        state.parameters["unembed.b_U"][3] += 100
    row = setup.evaluator.evaluate(state)
    for name, examples in (("train", setup.dataset.train), ("test", setup.dataset.test)):
        labels = setup.dataset.labels[examples]
        logits = setup.model.logits(state.parameters, setup.dataset.inputs[examples]).double()
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_TARGET)
        assert row[f"{name}_loss"] == pytest.approx(float(loss.detach()))
        right, has_target = logits.argmax(-1) == labels, labels != NO_TARGET
        assert row[f"{name}_accuracy"] == pytest.approx(float(right[has_target].double().mean()))
        whole = (right | ~has_target).all(1).double().mean()
        assert row[f"{name}_sequence_accuracy"] == pytest.approx(float(whole))
    assert 0 < row["train_accuracy"] < 1


def test_unequal_numbers_of_targets_are_weighted_by_target():
    labels = torch.tensor([[NO_TARGET, 1, 0], [NO_TARGET, NO_TARGET, 2]])
    values = torch.tensor([1.0, 4.0], dtype=torch.float64)
    assert losses.mean_over(values, labels, torch.arange(2)) == 2.0
    assert losses.mean_over(values, labels, torch.tensor([1])) == 4.0


def test_evaluation_of_sequences_in_chunks_agrees(setup: Setup, monkeypatch: pytest.MonkeyPatch):
    parameters = setup.learner.initial_state().parameters
    arguments = setup.model, parameters, setup.dataset.inputs, setup.dataset.labels
    whole = losses.evaluate(*arguments)
    monkeypatch.setattr(losses, "EVALUATION_CHUNK", 33)
    for part, expected in zip(losses.evaluate(*arguments), whole, strict=True):
        torch.testing.assert_close(part, expected)


def test_each_task_of_a_run_has_its_own_log(tmp_path: Path):
    trajectory = grokscope.train(config_of(MIXTURE), root=tmp_path, progress=False)
    task, split, log = trajectory.task, trajectory.split, trajectory.log
    logits = trajectory.model.logits(trajectory.last.parameters, task.inputs).double()
    loss = F.cross_entropy(logits, task.labels, reduction="none")
    for part in task.parts:
        examples = split.test[(split.test >= part.examples.start) & (split.test < part.examples.stop)]
        assert log[f"test_loss_{part.name}"][-1] == pytest.approx(float(loss[examples].mean()))
        right = (logits[examples].argmax(-1) == task.labels[examples]).double().mean()
        assert log[f"test_accuracy_{part.name}"][-1] == pytest.approx(float(right))
    sizes = [len(split.test[(split.test >= p.examples.start) & (split.test < p.examples.stop)]) for p in task.parts]
    parts = [log[f"test_loss_{part.name}"][-1] for part in task.parts]
    mean = sum(n * value for n, value in zip(sizes, parts, strict=True)) / sum(sizes)
    assert log["test_loss"][-1] == pytest.approx(mean)


def test_own_data_train_and_open_again(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 6, (30, 3), generator=generator)
    task = grokscope.tasks.Task.from_arrays(inputs, inputs.roll(1, 1), formula="the token before")
    config = config_of(task.to_config(train_fraction=0.5))
    grokscope.train(config, "mine", root=tmp_path, progress=False)
    trajectory = Trajectory.open(tmp_path / "mine")
    assert trajectory.task.formula == "the token before" and trajectory.task.is_sequence
    assert torch.equal(trajectory.task.inputs, inputs) and torch.equal(trajectory.task.labels, inputs.roll(1, 1))
    assert "test_sequence_accuracy" in trajectory.log


@pytest.mark.parametrize("task", [INDUCTION, TaskConfig(p=7, train_fraction=0.5)])
def test_fresh_batch_excludes_the_test_set(task: TaskConfig):
    config = config_of(dataclasses.replace(task, fresh=True), batch_size=16)
    first, second = Setup(config), Setup(config)
    test = {tuple(row) for row in first.dataset.inputs[first.dataset.test].tolist()}
    batches = []
    for step in (5, 2, 9):
        (equations, labels), (repeated, repeated_labels) = first.batch(step), second.batch(step)
        assert torch.equal(equations.tokens, repeated.tokens) and torch.equal(labels, repeated_labels)
        batches += [tuple(row) for row in equations.tokens.tolist()]
    assert len(batches) == 48 and not test & set(batches)
    fixed = {tuple(row) for row in first.dataset.inputs[first.dataset.train].tolist()}
    assert (set(batches) <= fixed) == (task.name == "addition"), "drawn examples are new; all sums are in the task"


def test_ensemble_refuses_sequences_fresh_data_and_mixtures():
    from grokscope.training.ensemble import Ensemble

    fresh = TaskConfig(p=7, fresh=True)
    for task, words in ((INDUCTION, "several positions"), (fresh, "task.fresh"), (MIXTURE, "mixture")):
        with pytest.raises(GrokscopeError, match=words):
            Ensemble([config_of(task, batch_size=4)])


def test_fresh_run_claims_no_training_set(tmp_path: Path):
    from grokscope import report
    from grokscope.cli.training import training_summary

    config = config_of(dataclasses.replace(INDUCTION, fresh=True), batch_size=4)
    assert "fresh batches trained on, 40 equations evaluated" in training_summary(config, tmp_path)
    trajectory = grokscope.train(config, "fresh", root=tmp_path, progress=False)
    page = report.write(trajectory, tmp_path / "page.html").read_text()
    assert "trained on fresh batches, evaluated on" in page and "trained on 20 of" not in page
    assert "trained on fresh batches" in trajectory._repr_html_()
