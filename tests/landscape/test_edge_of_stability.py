"""Thresholds against optimizers that diverge above them and not below, and sharpness against dense matrices."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grokscope import Trajectory, training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.landscape import edge_of_stability
from grokscope.landscape.objective import objectives
from grokscope.training.optimizers import Optimizer

CONFIG = RunConfig(
    task=TaskConfig(p=5, train_fraction=0.6),
    model=ModelConfig(d_model=8, n_heads=2, d_mlp=6),
    optimizer=OptimizerConfig(lr=1e-2, warmup_steps=4),
    n_steps=6,
    checkpoints="every 1",
)


def growth(config: OptimizerConfig, a: float) -> float:
    """Return the factor by which 400 updates of the optimizer move x away from the minimum of a P x²/2.

    For adam the second moment is loaded as 4, and this β₂ keeps it constant, so P is 2.
    """
    x = torch.tensor([1e-30], dtype=torch.float64)
    optimizer = Optimizer(config, {"x": x})
    P = 1.0
    if config.name != "sgd":
        P, zero = 2.0, torch.zeros(1, dtype=torch.float64)
        state = {"x/step": torch.tensor(1e9), "x/exp_avg": zero, "x/exp_avg_sq": torch.full_like(zero, 4)}
        optimizer.load(state)
    sizes = []
    for u in range(400):
        optimizer.update({"x": a * P * x}, u)
        sizes.append(abs(float(x)))
        if sizes[-1] > 1e-20:  # A larger x would change the second moment.
            return float("inf")
    if config.name != "sgd":
        assert float(optimizer.preconditioner()["x"]) == pytest.approx(2, rel=1e-3)
    return max(sizes[-20:]) / max(sizes[:20])


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig("sgd", lr=0.1, weight_decay=0.0, warmup_steps=0),
        OptimizerConfig("sgd", lr=0.1, weight_decay=0.0, momentum=0.8, warmup_steps=0),
        OptimizerConfig("adam", lr=1e-3, weight_decay=0.0, betas=(0.9, 1 - 1e-8), warmup_steps=0),
        OptimizerConfig("adam", lr=1e-3, weight_decay=0.0, betas=(0.5, 1 - 1e-8), warmup_steps=0),
        OptimizerConfig("adamw", lr=1e-2, weight_decay=30.0, betas=(0.9, 1 - 1e-8), warmup_steps=0),
    ],
    ids=["gd", "momentum", "adam", "adam with a small beta", "adamw with much decay"],
)
def test_optimizer_diverges_only_above_its_threshold(config):
    edge = edge_of_stability.threshold(config, config.lr)
    assert growth(config, 0.97 * edge) < 0.5
    assert growth(config, 1.03 * edge) > 2


def test_weight_decay_adds_to_curvature_for_sgd():
    config = OptimizerConfig("sgd", lr=0.1, weight_decay=5.0, warmup_steps=0)
    edge = edge_of_stability.threshold(config, config.lr) - config.weight_decay
    assert growth(config, 0.97 * edge) < 0.5 and growth(config, 1.03 * edge) > 2


def test_thresholds_equal_those_of_the_papers():
    assert edge_of_stability.threshold(OptimizerConfig("sgd"), 0.01) == pytest.approx(200)
    assert edge_of_stability.threshold(OptimizerConfig("sgd", momentum=0.9), 0.01) == pytest.approx(380)
    assert edge_of_stability.threshold(OptimizerConfig("adam", betas=(0.9, 0.999)), 0.01) == pytest.approx(3800)
    assert edge_of_stability.threshold(OptimizerConfig("adamw"), 0.0) == float("inf")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run with a resume state at every third checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grokscope.training.checkpointer.SEGMENT_CHECKPOINTS", 3)
        training.train(CONFIG, "edge", tmp_path_factory.mktemp("edge"))
    return next(tmp_path_factory.getbasetemp().glob("edge*/edge"))


@pytest.mark.slow
def test_effective_sharpness_is_that_of_dense_matrices(run):
    """The second moments are computed here from the gradients at all checkpoints, by Adam's definition."""
    trajectory = Trajectory.open(run)
    series = edge_of_stability.edge_of_stability(trajectory.select([0, 2, 6]))
    beta_1, beta_2 = CONFIG.optimizer.betas
    v, expected = torch.zeros(0), []
    for t, (_, objective) in enumerate(objectives(trajectory), start=1):
        product, n = objective.hessian()
        g = objective.value_and_gradient(objective.point)[1]
        v = beta_2 * (v if len(v) else torch.zeros(n).double()) + (1 - beta_2) * g**2
        P = (1 - beta_1**t) * ((v / (1 - beta_2**t)).sqrt() + 1e-8)
        if t in (3, 7):
            H = torch.stack([product(unit) for unit in torch.eye(n, dtype=torch.float64)])
            scaled = H / P.sqrt() / P.sqrt()[:, None]
            expected.append([np.linalg.eigvalsh(matrix.numpy())[-1] for matrix in (H, (scaled + scaled.T) / 2)])
    sharpness, effective_sharpness = np.transpose(expected)
    np.testing.assert_allclose(series["sharpness"][1:], sharpness, rtol=1e-6)
    # Training computes gradients in float32.
    np.testing.assert_allclose(series["effective_sharpness"][1:], effective_sharpness, rtol=1e-3)
    lr = np.array([0, 0.5, 1]) * 1e-2
    np.testing.assert_allclose(series["lr"], lr)
    np.testing.assert_allclose(series["threshold"][1:], 1.9 * (2 - lr[1:]) / (0.1 * lr[1:]))
    assert series["threshold"][0] == np.inf and series["stability_ratio"][0] == 0
    assert (series["effective_sharpness_residual"] <= 1e-6 * series["effective_sharpness"]).all()


def test_subset_of_checkpoints_agrees_and_writes_nothing(run):
    trajectory = Trajectory.open(run)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    whole, part = (edge_of_stability.edge_of_stability(trajectory.select(steps)) for steps in ([1, 4, 5], [1, 5]))
    np.testing.assert_array_equal(part["effective_sharpness"], whole["effective_sharpness"][[0, 2]])
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before
    assert part.digest == trajectory.select([1, 5]).digest


def test_sgd_in_memory_uses_sharpness_plus_decay(run):
    checkpoints = {0: Trajectory.open(run).last.parameters}
    optimizer = OptimizerConfig("sgd", lr=0.1, weight_decay=0.5, momentum=0.5, warmup_steps=0)
    trajectory = Trajectory.from_state_dicts(dataclasses.replace(CONFIG, optimizer=optimizer), checkpoints)
    series = edge_of_stability.edge_of_stability(trajectory)
    assert series["effective_sharpness"][0] == series["sharpness"][0] + 0.5
    assert series["threshold"][0] == pytest.approx(30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "in memory has no resume state"),
        ({"gradient_filter": "grokfast_ema"}, "optimizer.gradient_filter: grokfast_ema changes the updates"),
        ({"sam_radius": 0.05}, "optimizer.sam_radius: 0.05"),
    ],
)
def test_unknown_threshold_or_moments_are_refused(run, change: dict[str, Any], message):
    config = dataclasses.replace(CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, **change))
    trajectory = Trajectory.from_state_dicts(config, {0: Trajectory.open(run).last.parameters})
    with pytest.raises(GrokscopeError, match=message):
        edge_of_stability.edge_of_stability(trajectory)


def test_preconditioner_requires_adam_and_an_update():
    x = {"x": torch.ones(2)}
    for config in (OptimizerConfig("sgd"), OptimizerConfig("adam", weight_decay=0.0)):
        with pytest.raises(GrokscopeError, match="Allowed: adam or adamw"):
            Optimizer(config, x).preconditioner()
