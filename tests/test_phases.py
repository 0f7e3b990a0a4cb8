"""Stages, labels and phases of hand-made series, and slingshots in planted series and in a small run."""

from pathlib import Path

import numpy as np
import pytest

from grokscope import Trajectory, measures, phases, training
from grokscope.config import ModelConfig, OptimizerConfig, RunConfig, TaskConfig
from grokscope.series import Series


def log(train: list[float], test: list[float], every: int = 10) -> Series:
    steps = np.arange(len(train)) * every
    return Series("log", steps, {"train_accuracy": np.array(train), "test_accuracy": np.array(test)})


B, M, G = "before memorization", "memorized", "generalised"


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ([0, 0, 1, 1, 1], [0, 0, 0, 1, 1], [(B, 0, 20), (M, 20, 30), (G, 30, 40)]),
        ([0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [(B, 0, 20), (M, 20, 40)]),
        ([0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [(B, 0, 40)]),
        ([0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [(B, 0, 20), (G, 20, 40)]),
        ([0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [(B, 0, 20), (G, 20, 40)]),
        ([1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [(M, 0, 20), (G, 20, 40)]),
        ([0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [(B, 0, 20), (M, 20, 40)]),
        ([1], [1], []),
    ],
)
def test_stages_divide_the_steps_without_overlap(train, test, expected):
    assert phases.stages(log(train, test)) == expected


def test_landmarks_are_ends_highest_value_and_crossings():
    series = log([0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1])
    steps = np.array([0, 18, 25, 39, 50])  # The checkpoints and the evaluations have different steps.
    landmarks = phases.landmarks(series, steps, np.array([1.0, 2.0, 5.0, 3.0, 4.0]))
    assert sorted(landmarks) == [("first", 0), ("generalised", 3), ("highest", 2), ("last", 4), ("memorized", 1)]
    assert [row for _, row in landmarks] == [0, 1, 2, 3, 4]


def test_landmarks_without_crossings_are_ends_and_highest():
    landmarks = phases.landmarks(log([0, 0], [0, 0]), np.array([0, 10]), np.array([2.0, 1.0]))
    assert sorted(landmarks) == [("first", 0), ("highest", 0), ("last", 1)]


LABELS = [
    # Train and test accuracy every 500 steps. The level is 0.9; a delay of 1,000 steps or more is grokking.
    ([0.1, 1, 1, 1, 1], [0.1, 1, 1, 1, 1], "comprehension"),
    ([0.1, 0.9, 1, 1, 1], [0.1, 0.1, 0.9, 0.9, 1], "comprehension"),
    ([0.1, 0.9, 1, 1, 1], [0.1, 0.1, 0.1, 0.9, 1], "grokking"),
    ([0.1, 0.9, 1, 1, 1], [0.1, 0.1, 0.1, 0.899, 0.9], "grokking"),
    ([0.1, 0.899, 0.899, 0.9, 1], [0.1, 0.1, 0.1, 0.899, 0.9], "comprehension"),
    ([1, 1, 1, 1, 1], [0.1, 0.1, 0.1, 0.1, 0.9], "grokking"),
    ([0.1, 0.1, 0.1, 1, 1], [0.1, 1, 1, 1, 1], "comprehension"),
    ([0.1, 0.1, 0.1, 0.1, 0.1], [0.1, 0.9, 0.1, 0.1, 0.1], "comprehension"),
    ([0.1, 1, 1, 1, 1], [0.1, 0.1, 0.1, 0.1, 0.899], "memorization"),
    ([0.1, 0.9, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1, 0.1], "memorization"),
    ([0.1, 0.5, 0.8, 0.899, 0.899], [0.1, 0.1, 0.1, 0.1, 0.1], "confusion"),
    ([np.nan] * 5, [np.nan] * 5, "confusion"),
]


@pytest.mark.parametrize(("train", "test", "label"), LABELS)
def test_liu_label_depends_on_steps_at_90_percent(train: list[float], test: list[float], label: str):
    assert phases.liu_phase(log(train, test, every=500)) == label


def test_delay_below_the_lag_is_comprehension():
    train, test = np.ones(1001), np.ones(1001)
    test[:999] = 0
    assert phases.liu_phase(log(train.tolist(), test.tolist(), every=1)) == "comprehension"
    test[:1000] = 0
    assert phases.liu_phase(log(train.tolist(), test.tolist(), every=1)) == "grokking"


def test_lag_and_level_are_options():
    series = log([0.1, 0.8, 1, 1], [0.1, 0.1, 0.8, 0.8])
    assert phases.liu_phase(series) == "memorization"
    assert phases.liu_phase(series, level=0.8) == "comprehension"
    assert phases.liu_phase(series, level=0.8, lag=10) == "grokking"
    assert phases.liu_phase(series, level=0.8, lag=11) == "comprehension"


def progress(excluded: np.ndarray, test: np.ndarray, every: int = 100) -> Series:
    steps = np.arange(len(test)) * every
    return Series("progress", steps, {"excluded_loss": np.asarray(excluded), "test_loss": np.asarray(test)})


def planted_losses() -> tuple[np.ndarray, np.ndarray]:
    """Return an excluded loss with minimum at step 1,000 and a test loss that falls by e²⁰ from 4,030 to 6,030."""
    step = np.arange(0, 10_001, 100)
    excluded = np.where(step <= 1_000, 5 - 4.9 * step / 1_000, 0.1 + 4.9 * (step - 1_000) / 9_000)
    test = 10 * np.exp(-np.clip((step - 4_030) / 100, 0, 20))
    return excluded, test


def test_ends_of_nanda_phases_are_in_their_intervals():
    ends = dict(phases.nanda_phases(progress(*planted_losses())))
    assert list(ends) == ["memorization", "circuit formation", "cleanup"]
    assert ends["memorization"] == phases.Crossing(1_100, 900)
    # The loss has completed 5% of its fall at step 4,130 and 95% at step 5,930.
    assert ends["circuit formation"] == phases.Crossing(4_200, 4_100)
    assert ends["cleanup"] == phases.Crossing(6_000, 5_900)


def test_nanda_stages_divide_a_run_without_gaps():
    excluded, test = planted_losses()
    names, firsts, lasts = zip(*phases.nanda_stages(progress(excluded, test)), strict=True)
    assert names == ("memorization", "circuit formation", "cleanup", "after cleanup")
    assert firsts == (0, 1_100, 4_200, 6_000) and lasts == (1_100, 4_200, 6_000, 10_000)
    assert phases.nanda_stages(progress(excluded, np.full(101, 4.7)))[-1] == ("circuit formation", 1_100, 10_000)
    assert phases.nanda_stages(progress(-np.arange(101.0), test)) == []


def test_nanda_phases_ignore_the_unit_and_an_early_dip():
    excluded, test = planted_losses()
    expected = phases.nanda_phases(progress(excluded, test))
    assert phases.nanda_phases(progress(7 * excluded, 3 * test)) == expected
    early = test.copy()
    early[20] = 1.0  # A dip at step 2,000, before the fall, must not count as its beginning.
    assert phases.nanda_phases(progress(excluded, early)) == expected


@pytest.mark.parametrize(
    ("excluded", "test", "expected"),
    [
        (np.linspace(5, 0, 50), np.linspace(5, 20, 50), []),
        (
            np.concatenate([np.linspace(5, 0.1, 20), np.linspace(0.1, 3, 30)]),
            np.linspace(5, 20, 50),
            ["memorization"],
        ),
        (np.full(50, 4.7), np.full(50, 4.7), []),
    ],
    ids=["memorizes to the end", "never generalises", "learns nothing"],
)
def test_unfinished_nanda_phase_is_missing(excluded, test, expected):
    assert [name for name, _ in phases.nanda_phases(progress(excluded, test))] == expected


STEPS = np.arange(0, 4001, 10)


def planted(spikes: list[int], growths: list[int], slope: float = 1e-5, height: float = 1e6) -> tuple[Series, Series]:
    """Return a log with spikes of the train loss, and a norm that grows by 1 in the 100 steps before each growth."""
    loss = 1e-7 + np.where(STEPS < 100, 3.0, 0.0)
    for spike in spikes:
        loss = np.maximum(loss, 1e-7 * height * np.exp(-np.abs(STEPS - spike) / 10))
    norm = 5 + slope * STEPS
    for step in growths:
        norm = norm + np.clip((STEPS - (step - 100)) / 100, 0, 1)
    log = Series("log", STEPS, {"train_loss": loss, "train_accuracy": (STEPS >= 100).astype(float)})
    return log, Series("weight_norm", STEPS, {"weight_norm.unembed.W_U": norm})


def test_planted_slingshots_are_found_with_peak_and_growth():
    slings = phases.slingshots(*planted([1500, 3000], [1500, 3000]))
    assert [(sling.first, sling.peak, sling.last) for sling in slings] == [(1400, 1500, 1500), (2900, 3000, 3000)]
    assert [sling.height for sling in slings] == pytest.approx([0.1, 0.1])
    assert [sling.growth for sling in slings] == pytest.approx([1 / 5, 1 / 6], rel=0.01)


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
    ids=["nothing", "spike only", "growth only", "spike and growth apart", "steady growth", "low spike"],
)
def test_slingshot_needs_a_spike_and_fast_growth(spikes, growths, slope, height):
    assert phases.slingshots(*planted(spikes, growths, slope, height)) == []


def test_initial_fall_and_divergence_are_not_spikes():
    spiked, norms = planted([1500], [1500, 100])
    assert [sling.peak for sling in phases.slingshots(spiked, norms)] == [1500]
    diverged = Series(
        "log", STEPS, {**spiked.arrays, "train_loss": np.where(STEPS > 1500, 3.0, spiked["train_loss"])}
    )
    assert phases.slingshots(diverged, norms) == []
    never_memorized = Series("log", STEPS, {**spiked.arrays, "train_accuracy": 0.0 * STEPS})
    assert phases.slingshots(never_memorized, norms) == []


def test_two_spikes_in_one_growth_are_one_slingshot():
    (sling,) = phases.slingshots(*planted([1450, 1550], [1500, 1600]))
    assert (sling.first, sling.last) == (1400, 1600) and sling.peak in (1450, 1550)
    assert sling.growth == pytest.approx(2 / 5, rel=0.01)


def test_losses_below_float32_resolution_are_clipped():
    spiked, norms = planted([1500], [1500], height=20.0)
    vanishing = np.where(spiked["train_loss"] < 1.5e-7, 0.0, spiked["train_loss"])
    assert phases.slingshots(Series("log", STEPS, {**spiked.arrays, "train_loss": vanishing}), norms) == []


def slingshot_config(loss_dtype: str) -> RunConfig:
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
def test_adam_without_decay_slings_only_with_float32_loss(tmp_path: Path):
    """Softmax collapse unbalances the gradients, and the last layer's weights run away (arXiv 2605.06152)."""
    slings = {}
    for loss_dtype in ("float32", "float64"):
        training.train(slingshot_config(loss_dtype), loss_dtype, tmp_path)
        trajectory = Trajectory.open(tmp_path / loss_dtype)
        slings[loss_dtype] = phases.slingshots(trajectory.log, measures.evaluate("weight_norm", trajectory))
    assert slings["float64"] == []
    assert len(slings["float32"]) >= 1
    for sling in slings["float32"]:
        assert sling.height > 1e-3 and sling.growth > 0.01 and sling.first < sling.peak <= sling.last + 10
