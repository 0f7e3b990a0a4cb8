"""The measure `progress` on transformers made by hand, and against a dense implementation with loops."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from support.circuits import cosines, lookup, sizes

from grokscope import Trajectory, measures, tasks
from grokscope.config import ModelConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks.circle import on_circle

P = 11
# For division n = 10, whose last frequency 5 has no sine.
PLANTED = {
    "addition": {2: 3.0, 5: 1.5},
    "subtraction": {1: 2.0, 4: 3.0},
    "multiplication": {3: 3.0, 4: 2.0},
    "division": {3: 3.0, 5: 2.0},
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(plant, table: torch.Tensor, name: str = "addition", **more):
    return plant({7: lookup(table)}, p=P, name=name, **sizes(P, P * P), **more)


def cross_entropy(logits: np.ndarray, label: int) -> float:
    """Return −log p of the label."""
    return math.log(sum(math.exp(logit - logits[label]) for logit in logits))


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_logits_that_are_cosines_are_fully_explained(plant, name):
    alpha = PLANTED[name]
    table = cosines(TaskConfig(name=name, p=P), alpha)
    trajectory = made(plant, table, name)
    series = measures.evaluate("progress", trajectory)
    expected = [alpha.get(k, 0.0) for k in series["frequencies"]]
    np.testing.assert_allclose(series["cosine_coefficients"][0], expected, atol=1e-12)
    assert series["logit_variance_share"][0] == pytest.approx(1, abs=1e-12)
    for rule in ("", "_neuron_logits", "_removal"):
        assert series[f"key_frequencies{rule}"].tolist() == sorted(alpha)
    squares = np.square(expected) * np.where(2 * series["frequencies"] == len(trajectory.task.circle), 2, 1)
    np.testing.assert_allclose(series["logit_variance_shares"][0], squares / squares.sum(), atol=1e-12)
    circle = on_circle(trajectory.task)
    losses = [
        cross_entropy(table[circle.tokens[i], circle.tokens[j]].numpy(), int(circle.tokens[circle.answers[i, j]]))
        for i in range(len(circle))
        for j in range(len(circle))
    ]
    assert series["restricted_loss"][0] == pytest.approx(np.mean(losses), rel=1e-10)
    for measured in ("train_loss", "test_loss"):
        assert series[measured][0] == pytest.approx(np.mean(losses), rel=1e-10)
    assert series["restricted_to_test_ratio"][0] == pytest.approx(1, rel=1e-10)
    assert series["excluded_loss"][0] == pytest.approx(math.log(P), rel=1e-10)
    assert series["logit_variance_share_shuffled"][0] < 0.5
    assert series["restricted_loss_shuffled"][0] > 4 * series["restricted_loss"][0]
    assert series["logit_variance_share_initialization"] < 0.01


def dense(trajectory, table: np.ndarray, key: list[int]) -> dict[str, float]:
    """Return the losses from the projections of all n² pairs on Nanda et al.'s u_k and v_k, one at a time."""
    task, split = trajectory.task, trajectory.split
    tokens, sign = task.circle.tolist(), task.circle_sign
    n = len(tokens)
    t = np.arange(n)
    example = {tuple(pair): where for where, pair in enumerate(task.operands.tolist())}
    train = set(split.train.tolist())
    projections = {}
    for k in key:
        c, s = np.cos(2 * np.pi * k * t / n), np.sin(2 * np.pi * k * t / n)
        directions = [np.outer(c, c) - sign * np.outer(s, s), np.outer(s, c) + sign * np.outer(c, s)]
        projection = np.zeros((n, n, task.d_vocab_out))
        for direction in directions:
            size = np.sqrt((direction**2).sum())
            if size < 1e-9:
                continue
            unit = direction / size
            for label in range(task.d_vocab_out):
                grid = np.array([[table[a, b, label] for b in tokens] for a in tokens])
                projection[:, :, label] += (grid * unit).sum() * unit
        projections[k] = projection
    means = np.array([[table[a, b] for b in tokens] for a in tokens]).mean((0, 1))
    restricted, excluded, train_losses, test_losses = [], [], [], []
    one_out = {k: [] for k in key}
    for i, a in enumerate(tokens):
        for j, b in enumerate(tokens):
            where = example[a, b]
            learned, right = int(task.labels[where]), tokens[(i + sign * j) % n]
            projected = sum((projections[k][i, j] for k in key), np.zeros(task.d_vocab_out))
            restricted.append(cross_entropy(projected + means, right))
            (train_losses if where in train else test_losses).append(cross_entropy(table[a, b], learned))
            if where in train:
                excluded.append(cross_entropy(table[a, b] - projected, learned))
                for k in key:
                    one_out[k].append(cross_entropy(table[a, b] - projections[k][i, j], learned))
    return {
        "restricted_loss": float(np.mean(restricted)),
        "excluded_loss": float(np.mean(excluded)),
        "train_loss": float(np.mean(train_losses)),
        "test_loss": float(np.mean(test_losses)),
        **{f"without {k}": float(np.mean(one_out[k])) for k in key},
    }


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_losses_equal_those_of_a_dense_implementation(plant, name):
    table = 2 * cosines(TaskConfig(name=name, p=P), PLANTED[name]) + noise(P, P, P)
    trajectory = made(plant, table, name)
    series = measures.evaluate("progress", trajectory)
    key = series["key_frequencies"].tolist()
    assert key == sorted(PLANTED[name])
    oracle = dense(trajectory, table.numpy(), key)
    for measured in ("restricted_loss", "excluded_loss", "train_loss", "test_loss"):
        assert series[measured][0] == pytest.approx(oracle[measured], rel=1e-9), measured
    expected = [oracle[f"without {k}"] for k in key]
    np.testing.assert_allclose(series["excluded_loss_by_frequency"][0], expected, rtol=1e-9)


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_coefficients_and_shares_equal_a_least_squares_fit(plant, name):
    table = cosines(TaskConfig(name=name, p=P), PLANTED[name]) + noise(P, P, P)
    trajectory = made(plant, table, name)
    series = measures.evaluate("progress", trajectory)
    circle = on_circle(trajectory.task)
    n = len(circle)
    i, j, at = np.meshgrid(np.arange(n), np.arange(n), np.arange(n), indexing="ij")
    columns = np.stack([np.cos(2 * np.pi * k * (i + circle.sign * j - at) / n).ravel() for k in range(1, n // 2 + 1)])
    logits = table[circle.tokens][:, circle.tokens][:, :, circle.tokens].numpy()
    logits = logits - logits.mean(-1, keepdims=True)
    alpha, *_ = np.linalg.lstsq(columns.T, logits.ravel(), rcond=None)
    np.testing.assert_allclose(series["cosine_coefficients"][0], alpha, rtol=1e-9)
    chosen = series["key_frequencies"] - 1
    left = logits.ravel() - alpha[chosen] @ columns[chosen]
    assert series["logit_variance_share"][0] == pytest.approx(1 - (left**2).sum() / (logits**2).sum(), rel=1e-9)


def test_restricted_loss_uses_correct_answers_of_outliers(plant):
    """The table has the cosines of the correct answers, and memorizes the outliers."""
    config = TaskConfig(p=P, train_fraction=0.5, outliers=12)
    task, split = tasks.load(config, 0)
    table = cosines(config, PLANTED["addition"])
    for where in split.train.tolist():
        a, b = task.operands[where].tolist()
        table[a, b, task.labels[where]] += 20 * float(task.labels[where] != (a + b) % P)
    trajectory = by_heart(config, table)
    series = measures.evaluate("progress", trajectory)
    assert series["restricted_loss"][0] < 0.4
    oracle = dense(trajectory, table.numpy(), series["key_frequencies"].tolist())
    for measured in ("restricted_loss", "excluded_loss", "train_loss", "test_loss"):
        assert series[measured][0] == pytest.approx(oracle[measured], rel=1e-9), measured


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_multiplying_the_residues_only_moves_the_frequencies(plant, factor):
    """a ↦ u·a is an automorphism of Z_p, which does not keep the split into train and test."""
    table = 2 * cosines(TaskConfig(p=P), PLANTED["addition"]) + noise(P, P, P)
    renamed = torch.arange(P) * factor % P
    moved = table[renamed][:, renamed][:, :, renamed]
    before, after = (measures.evaluate("progress", made(plant, t)) for t in (table, moved))
    assert sorted(min(k * factor % P, -k * factor % P) for k in before["key_frequencies"]) == list(
        after["key_frequencies"]
    )
    for name in ("restricted_loss", "logit_variance_share"):
        np.testing.assert_allclose(after[name], before[name], rtol=1e-10)
    indices = [min(k * factor % P, -k * factor % P) - 1 for k in before["frequencies"]]
    np.testing.assert_allclose(after["cosine_coefficients"][:, indices], before["cosine_coefficients"], rtol=1e-9)


def by_heart(config: TaskConfig, table: torch.Tensor) -> Trajectory:
    model = dataclasses.replace(ModelConfig(), **sizes(P, P * P))
    return Trajectory.from_state_dicts(RunConfig(task=config, model=model), {0: lookup(table)})


def known(config: TaskConfig, size: float) -> torch.Tensor:
    """Return the table with a logit at the learned answer of each train pair, and zero elsewhere."""
    task, split = tasks.load(config, 0)
    table = torch.zeros(P, P, P, dtype=torch.float64)
    a, b = task.operands[split.train].T
    table[a, b, task.labels[split.train]] = size
    return table


def test_memorized_random_answers_have_no_key_frequency():
    config = TaskConfig(p=P, train_fraction=0.5, random_labels=True)
    series = measures.evaluate("progress", by_heart(config, known(config, 9.0)))
    assert series["key_frequencies"].tolist() == []
    assert series["excluded_loss"][0] == series["train_loss"][0] < 0.01
    assert series["restricted_loss"][0] > 0.95 * math.log(P)
    assert series["logit_variance_share"][0] == 0


def test_memorized_correct_answers_have_all_frequencies_equally():
    """The mean over the pairs of an answer peaks at that answer, which has all frequencies."""
    config = TaskConfig(p=P, train_fraction=0.5)
    task, split = tasks.load(config, 0)
    series = measures.evaluate("progress", by_heart(config, known(config, 9.0)))
    expected = 2 * 9.0 * len(split.train) / len(task.inputs) / P
    np.testing.assert_allclose(series["cosine_coefficients"][0], expected, rtol=1e-9)


def test_key_frequencies_are_those_of_the_last_step(plant):
    early, late = (lookup(cosines(TaskConfig(p=P), alpha)) for alpha in ({1: 4.0}, {2: 4.0, 3: 4.0}))
    series = measures.evaluate("progress", plant({0: early, 5: late}, p=P, **sizes(P, P * P)))
    assert series["key_frequencies"].tolist() == [2, 3]
    np.testing.assert_allclose(series["logit_variance_share"], [0, 1], atol=1e-12)
    assert series["restricted_loss"][0] == pytest.approx(math.log(P))
    assert series["restricted_loss_initialization"] == pytest.approx(series["restricted_loss"][0])


@pytest.mark.parametrize("name", ["progress", "fourier", "neurons", "ablations", "parallelograms"])
def test_task_without_a_circle_is_rejected(plant, name):
    with pytest.raises(GrokscopeError, match="is not circular"):
        measures.evaluate(name, plant({0: {}}, name="a2_b2"))


@pytest.mark.parametrize("name", ["progress", "fourier", "neurons", "parallelograms"])
def test_single_shuffle_is_rejected(plant, name):
    with pytest.raises(GrokscopeError, match="n_shuffles: 1. Allowed: from 2"):
        measures.evaluate(name, plant({0: {}}), n_shuffles=1)
