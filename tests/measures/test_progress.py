"""Restricted and excluded loss on transformers made by hand, and against a dense implementation with loops."""

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
# For division n = 10, and its last frequency is 5, which has no sine.
PLANTED = {
    "addition": {2: 3.0, 5: 1.5},
    "subtraction": {1: 2.0, 4: 3.0},
    "multiplication": {3: 3.0, 4: 2.0},
    "division": {3: 3.0, 5: 2.0},
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(plant, table: torch.Tensor, name: str = "addition", **more):
    return plant({7: lookup(table)}, p=P, name=name, **sizes(P, P * P), **more)


def cross_entropy(logits: np.ndarray, label: int) -> float:
    return math.log(sum(math.exp(one - logits[label]) for one in logits))


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_logits_that_are_cosines_are_nothing_else(plant, name):
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
    """Return the same quantities from all n² pairs' projections on Nanda et al.'s u_k and v_k, one by one."""
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
        found = np.zeros((n, n, task.d_vocab_out))
        for direction in directions:
            size = np.sqrt((direction**2).sum())
            if size < 1e-9:
                continue
            unit = direction / size
            for label in range(task.d_vocab_out):
                grid = np.array([[table[a, b, label] for b in tokens] for a in tokens])
                found[:, :, label] += (grid * unit).sum() * unit
        projections[k] = found
    means = np.array([[table[a, b] for b in tokens] for a in tokens]).mean((0, 1))
    restricted, excluded, train_losses, test_losses = [], [], [], []
    one_out = {k: [] for k in key}
    for i, a in enumerate(tokens):
        for j, b in enumerate(tokens):
            where = example[a, b]
            learned, right = int(task.labels[where]), tokens[(i + sign * j) % n]
            kept = sum((projections[k][i, j] for k in key), np.zeros(task.d_vocab_out))
            restricted.append(cross_entropy(kept + means, right))
            (train_losses if where in train else test_losses).append(cross_entropy(table[a, b], learned))
            if where in train:
                excluded.append(cross_entropy(table[a, b] - kept, learned))
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
def test_losses_are_those_of_a_dense_implementation(plant, name):
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
def test_coefficients_and_shares_are_a_least_squares_fits(plant, name):
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


def test_outliers_are_trained_on_but_the_restricted_loss_asks_for_the_right_answer(plant):
    """Planted is a table that knows the outliers by heart, over the cosines of the right answers."""
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
def test_multiplying_the_residues_moves_the_frequencies_alone(plant, factor):
    """a ↦ u·a is an automorphism of Z_p; where it does not keep the split, train and test are not compared."""
    table = 2 * cosines(TaskConfig(p=P), PLANTED["addition"]) + noise(P, P, P)
    renamed = torch.arange(P) * factor % P
    moved = table[renamed][:, renamed][:, :, renamed]
    one, other = (measures.evaluate("progress", made(plant, t)) for t in (table, moved))
    assert sorted(min(k * factor % P, -k * factor % P) for k in one["key_frequencies"]) == list(
        other["key_frequencies"]
    )
    for name in ("restricted_loss", "logit_variance_share"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-10)
    where = [min(k * factor % P, -k * factor % P) - 1 for k in one["frequencies"]]
    np.testing.assert_allclose(other["cosine_coefficients"][:, where], one["cosine_coefficients"], rtol=1e-9)


def by_heart(config: TaskConfig, table: torch.Tensor) -> Trajectory:
    model = dataclasses.replace(ModelConfig(), **sizes(P, P * P))
    return Trajectory.from_state_dicts(RunConfig(task=config, model=model), {0: lookup(table)})


def known(config: TaskConfig, size: float) -> torch.Tensor:
    """Return the table that gives the learned answer of each training pair a logit, and nothing else any."""
    task, split = tasks.load(config, 0)
    table = torch.zeros(P, P, P, dtype=torch.float64)
    a, b = task.operands[split.train].T
    table[a, b, task.labels[split.train]] = size
    return table


def test_a_model_that_knows_random_answers_by_heart_has_no_key_frequency():
    config = TaskConfig(p=P, train_fraction=0.5, random_labels=True)
    series = measures.evaluate("progress", by_heart(config, known(config, 9.0)))
    assert series["key_frequencies"].tolist() == []
    assert series["excluded_loss"][0] == series["train_loss"][0] < 0.01
    assert series["restricted_loss"][0] > 0.95 * math.log(P)
    assert series["logit_variance_share"][0] == 0


def test_a_table_of_right_answers_has_a_part_in_every_frequency_alike():
    """Its mean over the pairs of an answer singles out that answer: what Nanda et al.'s projections see in it."""
    config = TaskConfig(p=P, train_fraction=0.5)
    task, split = tasks.load(config, 0)
    series = measures.evaluate("progress", by_heart(config, known(config, 9.0)))
    expected = 2 * 9.0 * len(split.train) / len(task.inputs) / P
    np.testing.assert_allclose(series["cosine_coefficients"][0], expected, rtol=1e-9)


def test_the_key_frequencies_are_those_of_the_last_step(plant):
    early, late = (lookup(cosines(TaskConfig(p=P), alpha)) for alpha in ({1: 4.0}, {2: 4.0, 3: 4.0}))
    series = measures.evaluate("progress", plant({0: early, 5: late}, p=P, **sizes(P, P * P)))
    assert series["key_frequencies"].tolist() == [2, 3]
    np.testing.assert_allclose(series["logit_variance_share"], [0, 1], atol=1e-12)
    assert series["restricted_loss"][0] == pytest.approx(math.log(P))
    assert series["restricted_loss_initialization"] == pytest.approx(series["restricted_loss"][0])


@pytest.mark.parametrize("name", ["progress", "fourier", "neurons", "ablations", "parallelograms"])
def test_a_task_without_a_circle_is_refused(plant, name):
    with pytest.raises(GrokscopeError, match="is not circular"):
        measures.evaluate(name, plant({0: {}}, name="a2_b2"))


@pytest.mark.parametrize("name", ["progress", "fourier", "neurons", "parallelograms"])
def test_a_single_shuffle_has_no_error_and_is_refused(plant, name):
    with pytest.raises(GrokscopeError, match="n_shuffles: 1. Allowed: from 2"):
        measures.evaluate(name, plant({0: {}}), n_shuffles=1)
