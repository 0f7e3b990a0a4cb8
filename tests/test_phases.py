"""Memorization, generalisation and stages from hand-made accuracies."""

import numpy as np
import pytest

from grokscope import phases
from grokscope.series import Series


def log(train: list[float], test: list[float], every: int = 10) -> Series:
    steps = np.arange(len(train)) * every
    return Series("log", steps, {"train_accuracy": np.array(train), "test_accuracy": np.array(test)})


def test_a_crossing_is_the_first_evaluated_step_at_the_level_and_bears_the_one_before():
    series = log([0.1, 0.98, 0.99, 0.5, 1.0], [0.0, 0.1, 0.2, 0.989, 1.0])
    assert phases.memorization_step(series) == phases.Crossing(20, 10)
    assert phases.generalisation_step(series) == phases.Crossing(40, 30)
    assert phases.first_crossing(series, "test_accuracy", level=0.2) == phases.Crossing(20, 10)


def test_what_was_so_from_the_start_has_no_step_before():
    crossing = phases.memorization_step(log([1.0, 1.0], [0.0, 0.0]))
    assert crossing == phases.Crossing(0, -1)
    assert str(crossing) == "0"


def test_what_never_came_is_none():
    series = log([0.5, 0.9899], [0.0, np.nan])
    assert phases.memorization_step(series) is None
    assert phases.generalisation_step(series) is None


def test_a_crossing_is_written_with_its_interval():
    assert str(phases.Crossing(12_340, 12_330)) == "12,340 (after 12,330)"


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


def test_landmarks_are_the_ends_the_highest_value_and_the_crossings_in_order():
    series = log([0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1])
    steps = np.array([0, 18, 25, 39, 50])  # Checkpoints lie elsewhere than the evaluations.
    found = phases.landmarks(series, steps, np.array([1.0, 2.0, 5.0, 3.0, 4.0]))
    assert sorted(found) == [("first", 0), ("generalised", 3), ("highest", 2), ("last", 4), ("memorized", 1)]
    assert [row for _, row in found] == [0, 1, 2, 3, 4]


def test_a_run_that_never_memorized_has_its_ends_and_its_highest_value_for_landmarks():
    found = phases.landmarks(log([0, 0], [0, 0]), np.array([0, 10]), np.array([2.0, 1.0]))
    assert sorted(found) == [("first", 0), ("highest", 0), ("last", 1)]


LEVELS = [
    # Train and test accuracy every 500 steps; 0.9 is the level and 1,000 the lag that is no longer comprehension.
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


@pytest.mark.parametrize(("train", "test", "phase"), LEVELS)
def test_a_run_s_phase_is_by_when_train_and_test_reach_ninety_percent(
    train: list[float], test: list[float], phase: str
):
    assert phases.liu_phase(log(train, test, every=500)) == phase


def test_one_step_fewer_than_the_lag_is_comprehension():
    train, test = np.ones(1001), np.ones(1001)
    test[:999] = 0
    assert phases.liu_phase(log(train.tolist(), test.tolist(), every=1)) == "comprehension"
    test[:1000] = 0
    assert phases.liu_phase(log(train.tolist(), test.tolist(), every=1)) == "grokking"


def test_lag_and_level_can_be_chosen():
    series = log([0.1, 0.8, 1, 1], [0.1, 0.1, 0.8, 0.8])
    assert phases.liu_phase(series) == "memorization"
    assert phases.liu_phase(series, level=0.8) == "comprehension"
    assert phases.liu_phase(series, level=0.8, lag=10) == "grokking"
    assert phases.liu_phase(series, level=0.8, lag=11) == "comprehension"


def progress(excluded: np.ndarray, test: np.ndarray, every: int = 100) -> Series:
    steps = np.arange(len(test)) * every
    return Series("progress", steps, {"excluded_loss": np.asarray(excluded), "test_loss": np.asarray(test)})


def course() -> tuple[np.ndarray, np.ndarray]:
    """An excluded loss that is smallest at step 1,000; a test loss that falls by e²⁰ from step 4,030 to 6,030."""
    step = np.arange(0, 10_001, 100)
    excluded = np.where(step <= 1_000, 5 - 4.9 * step / 1_000, 0.1 + 4.9 * (step - 1_000) / 9_000)
    test = 10 * np.exp(-np.clip((step - 4_030) / 100, 0, 20))
    return excluded, test


def test_nandas_phases_are_found_within_their_intervals():
    found = dict(phases.nanda_phases(progress(*course())))
    assert list(found) == ["memorization", "circuit formation", "cleanup"]
    assert found["memorization"] == phases.Crossing(1_100, 900)
    # 5% of the fall is gone at step 4,130, and 95% at 5,930.
    assert found["circuit formation"] == phases.Crossing(4_200, 4_100)
    assert found["cleanup"] == phases.Crossing(6_000, 5_900)


def test_nandas_phases_divide_a_run_without_a_gap():
    excluded, test = course()
    names, firsts, lasts = zip(*phases.nanda_stages(progress(excluded, test)), strict=True)
    assert names == ("memorization", "circuit formation", "cleanup", "after cleanup")
    assert firsts == (0, 1_100, 4_200, 6_000) and lasts == (1_100, 4_200, 6_000, 10_000)
    assert phases.nanda_stages(progress(excluded, np.full(101, 4.7)))[-1] == ("circuit formation", 1_100, 10_000)
    assert phases.nanda_stages(progress(-np.arange(101.0), test)) == []


def test_phases_do_not_depend_on_the_unit_of_the_loss_nor_on_a_spike_of_training():
    excluded, test = course()
    expected = phases.nanda_phases(progress(excluded, test))
    assert phases.nanda_phases(progress(7 * excluded, 3 * test)) == expected
    early = test.copy()
    early[20] = 1.0  # A dip before the fall, at step 2,000, is no beginning.
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
def test_a_phase_that_did_not_end_is_left_out(excluded, test, expected):
    assert [name for name, _ in phases.nanda_phases(progress(excluded, test))] == expected


def test_a_measure_departs_where_it_leaves_its_control_for_good():
    steps = np.arange(10) * 10
    values = np.array([0, 5, 0.3, 0.1, 0.45, 0.5, 1, 2, 3, 3])
    n_shuffles, deviation = 4, 0.1
    arrays = {
        "x": values,
        "x_shuffled": np.zeros(10),
        "x_shuffled_stderr": np.full(10, deviation / n_shuffles**0.5),
    }
    series = Series("some", steps, arrays, options={"n_shuffles": n_shuffles})
    assert phases.departure(series, "x") == phases.Crossing(40, 30)
    assert phases.departure(series, "x", n_deviations=4.6) == phases.Crossing(50, 40)
    assert phases.departure(series, "x", n_deviations=31) is None
    below = Series("some", steps, {**arrays, "x": -values}, options={"n_shuffles": n_shuffles})
    assert phases.departure(below, "x") == phases.Crossing(40, 30), "to leave it downwards is to leave it"


def of(values: list[float], name: str = "x", every: int = 10) -> Series:
    return Series("made", np.arange(len(values)) * every, {name: np.array(values, float)})


@pytest.mark.parametrize(
    ("values", "since", "expected"),
    [
        # From 1e4 at step 10 to 1: half of the orders of magnitude is 100.
        ([5, 1e4, 1e3, 101, 99, 1, 1], 10, phases.Crossing(40, 30)),
        # What passes the half and comes back has not made it yet.
        ([5, 1e4, 50, 1e3, 99, 1, 1], 10, phases.Crossing(40, 30)),
        # A rise; memorized between two checkpoints, it begins at the one before.
        ([1, 1, 3, 50, 100, 100], 19, phases.Crossing(30, 20)),
        # Of what is not positive half is half.
        ([-1, 10, 6, 4, 0, 0], 10, phases.Crossing(30, 20)),
        # Nothing has happened.
        ([5, 10, 12, 9, 8], 10, None),
        ([0, 0, 0], 0, None),
    ],
)
def test_half_way_is_half_of_the_change_since_memorization_for_good(values, since, expected):
    assert phases.half_way(of(values), "x", since) == expected


def test_what_rises_up_to_memorization_is_counted_from_there():
    """With few checkpoints the one before may lie far before: a rise to 60 and a fall to 0.1 is no change by four."""
    series = Series("x", np.array([0, 20, 600, 1400, 2500]), {"x": np.array([0.4, 0.4, 60.0, 5.0, 0.1])})
    assert phases.half_way(series, "x", 120) == phases.Crossing(2500, 1400)
    assert phases.half_way(series, "x", 2600) is None
    holed = Series("x", series.steps, {"x": np.array([0.4, 0.4, np.nan, 5.0, 0.1])})
    assert phases.half_way(holed, "x", 120) == phases.Crossing(2500, 1400)


def test_the_end_is_a_median_of_the_last_tenth():
    """One spike at the very end is not where a run of twenty checkpoints has come to."""
    values = [*np.geomspace(1e4, 1, 18), *[1.0] * 12]
    spiked = [*values[:-1], 1e3]
    assert phases.half_way(of(values), "x", 0) == phases.Crossing(90, 80)
    assert phases.half_way(of(spiked), "x", 0) is None, "it is not half way for good"
    assert phases.half_way(of([*values[:-2], 1e-6, 1.0]), "x", 0) == phases.Crossing(90, 80)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((90, 80), "precedes"),
        ((100, 90), "undecided"),
        ((150, 140), "accompanies"),
        ((220, 180), "undecided"),
        ((220, 200), "follows"),
    ],
)
def test_what_comes_before_during_or_after_is_told_by_the_intervals(at, expected):
    assert phases.timing(phases.Crossing(*at), phases.Crossing(100, 90), phases.Crossing(200, 190)) == expected


def test_what_was_so_when_the_log_began_is_not_seen_to_happen_unless_that_was_at_the_start():
    accuracy = {name: np.ones(3) for name in ("train_accuracy", "test_accuracy")}
    for first, is_seen in ((0, True), (1_000, False)):
        series = Series("log", np.array([first, first + 10, first + 20]), accuracy)
        found = phases.memorization_step(series)
        assert found is not None and found.is_seen == is_seen
        names = {name for name, _ in phases.landmarks(series, series.steps, np.arange(3))}
        assert ("memorized" in names) == is_seen
