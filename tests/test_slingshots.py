"""Slingshots: found in planted series where they were put, in a small run of Adam's, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest

from grokscope import Trajectory, measures, phases, training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.series import Series

STEPS = np.arange(0, 4001, 10)


def planted(spikes: list[int], growths: list[int], slope: float = 1e-5, height: float = 1e6) -> tuple[Series, Series]:
    """Return a log with spikes of the train loss and a last layer's norm that grows fast, by 1, before some steps."""
    loss = 1e-7 + np.where(STEPS < 100, 3.0, 0.0)
    for spike in spikes:
        loss = np.maximum(loss, 1e-7 * height * np.exp(-np.abs(STEPS - spike) / 10))
    norm = 5 + slope * STEPS
    for step in growths:
        norm = norm + np.clip((STEPS - (step - 100)) / 100, 0, 1)
    log = Series("log", STEPS, {"train_loss": loss, "train_accuracy": (STEPS >= 100).astype(float)})
    return log, Series("weight_norm", STEPS, {"weight_norm.unembed.W_U": norm})


def test_each_planted_slingshot_is_found_with_its_peak_and_its_growth():
    found = phases.slingshots(*planted([1500, 3000], [1500, 3000]))
    assert [(one.first, one.peak, one.last) for one in found] == [(1400, 1500, 1500), (2900, 3000, 3000)]
    assert [one.height for one in found] == pytest.approx([0.1, 0.1])
    assert [one.growth for one in found] == pytest.approx([1 / 5, 1 / 6], rel=0.01)


@pytest.mark.parametrize(
    ("spikes", "growths", "slope", "height"),
    [
        ([], [], 1e-5, 1e6),
        ([1500], [], 1e-5, 1e6),
        ([], [1500], 1e-5, 1e6),
        ([1500], [2500], 1e-5, 1e6),
        ([1500, 3000], [], 1e-2, 1e6),
        ([1500], [1500], 1e-5, 50),
    ],
    ids=["nothing", "a spike", "a growth", "each elsewhere", "steady growth", "too low a spike"],
)
def test_what_lacks_a_spike_or_fast_growth_is_none(spikes, growths, slope, height):
    assert phases.slingshots(*planted(spikes, growths, slope, height)) == []


def test_the_fall_before_memorization_and_a_loss_that_never_comes_back_are_no_spikes():
    log, norms = planted([1500], [1500, 100])
    assert [one.peak for one in phases.slingshots(log, norms)] == [1500]
    diverged = Series("log", STEPS, {**log.arrays, "train_loss": np.where(STEPS > 1500, 3.0, log["train_loss"])})
    assert phases.slingshots(diverged, norms) == []
    never = Series("log", STEPS, {**log.arrays, "train_accuracy": 0.0 * STEPS})
    assert phases.slingshots(never, norms) == []


def test_two_spikes_in_one_stretch_of_growth_are_one_slingshot():
    (one,) = phases.slingshots(*planted([1450, 1550], [1500, 1600]))
    assert (one.first, one.last) == (1400, 1600) and one.peak in (1450, 1550)
    assert one.growth == pytest.approx(2 / 5, rel=0.01)


def test_losses_below_the_resolution_of_float32_are_no_lower_than_it():
    log, norms = planted([1500], [1500], height=20.0)
    vanishing = np.where(log["train_loss"] < 1.5e-7, 0.0, log["train_loss"])
    assert phases.slingshots(Series("log", STEPS, {**log.arrays, "train_loss": vanishing}), norms) == []


def slinging(loss_dtype: str) -> RunConfig:
    return RunConfig(
        task=TaskConfig(p=11, train_fraction=0.6),
        model=ModelConfig(d_model=32, n_heads=2, d_mlp=64),
        optimizer=OptimizerConfig(name="adam", lr=1e-2, weight_decay=0.0),
        loss_dtype=loss_dtype,
        n_steps=2200,
        checkpoints="every 10",
        evaluate_every=1,
    )


@pytest.mark.slow
def test_adam_without_decay_slings_with_a_float32_loss_and_does_not_with_float64(tmp_path: Path):
    """Softmax collapse breaks the balance of the gradients, and the last layer's weights run away (2605.06152)."""
    found = {}
    for loss_dtype in ("float32", "float64"):
        training.train(slinging(loss_dtype), loss_dtype, tmp_path)
        trajectory = Trajectory.open(tmp_path / loss_dtype)
        found[loss_dtype] = phases.slingshots(trajectory.log, measures.evaluate("weight_norm", trajectory))
    assert found["float64"] == []
    assert len(found["float32"]) >= 1
    for one in found["float32"]:
        assert one.height > 1e-3 and one.growth > 0.01 and one.first < one.peak <= one.last + 10
