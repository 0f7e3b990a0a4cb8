"""Crossings, departures and half-way points of hand-made curves."""

import numpy as np
import pytest

from grokscope import crossings, phases
from grokscope.series import Series


def log(train: list[float], test: list[float], every: int = 10) -> Series:
    steps = np.arange(len(train)) * every
    return Series("log", steps, {"train_accuracy": np.array(train), "test_accuracy": np.array(test)})


def test_crossing_has_first_step_at_level_and_step_before():
    series = log([0.1, 0.98, 0.99, 0.5, 1.0], [0.0, 0.1, 0.2, 0.989, 1.0])
    assert crossings.memorization_step(series) == crossings.Crossing(20, 10)
    assert crossings.generalisation_step(series) == crossings.Crossing(40, 30)
    assert crossings.first_crossing(series, "test_accuracy", level=0.2) == crossings.Crossing(20, 10)


def test_crossing_at_first_row_has_no_step_before():
    crossing = crossings.memorization_step(log([1.0, 1.0], [0.0, 0.0]))
    assert crossing == crossings.Crossing(0, -1)
    assert str(crossing) == "0"


def test_level_that_is_never_reached_gives_none():
    series = log([0.5, 0.9899], [0.0, np.nan])
    assert crossings.memorization_step(series) is None
    assert crossings.generalisation_step(series) is None


def test_text_of_crossing_names_the_interval():
    assert str(crossings.Crossing(12_340, 12_330)) == "12,340 (after 12,330)"


def test_departure_is_the_last_exit_from_the_control_band():
    steps = np.arange(10) * 10
    values = np.array([0, 5, 0.3, 0.1, 0.45, 0.5, 1, 2, 3, 3])
    n_shuffles, deviation = 4, 0.1
    arrays = {
        "x": values,
        "x_shuffled": np.zeros(10),
        "x_shuffled_stderr": np.full(10, deviation / n_shuffles**0.5),
    }
    series = Series("measure", steps, arrays, options={"n_shuffles": n_shuffles})
    assert crossings.departure(series, "x") == crossings.Crossing(40, 30)
    assert crossings.departure(series, "x", n_deviations=4.6) == crossings.Crossing(50, 40)
    assert crossings.departure(series, "x", n_deviations=31) is None
    below = Series("measure", steps, {**arrays, "x": -values}, options={"n_shuffles": n_shuffles})
    assert crossings.departure(below, "x") == crossings.Crossing(40, 30), "a departure below the band counts too"


def curve(values: list[float], every: int = 10) -> Series:
    return Series("measure", np.arange(len(values)) * every, {"x": np.array(values, float)})


@pytest.mark.parametrize(
    ("values", "since", "expected"),
    [
        # From 1e4 at step 10 to 1: half of the orders of magnitude is at 100.
        ([5, 1e4, 1e3, 101, 99, 1, 1], 10, crossings.Crossing(40, 30)),
        # A value that passes the half and returns has not completed half of its change.
        ([5, 1e4, 50, 1e3, 99, 1, 1], 10, crossings.Crossing(40, 30)),
        # A rise. Memorization between two checkpoints: the change begins at the next checkpoint.
        ([1, 1, 3, 50, 100, 100], 19, crossings.Crossing(30, 20)),
        # With values that are not positive the scale is linear.
        ([-1, 10, 6, 4, 0, 0], 10, crossings.Crossing(30, 20)),
        # Too small a change.
        ([5, 10, 12, 9, 8], 10, None),
        ([0, 0, 0], 0, None),
    ],
)
def test_half_way_is_half_of_the_change_to_the_end(values, since, expected):
    assert crossings.half_way(curve(values), "x", since) == expected


def test_half_way_ignores_the_rise_before_memorization():
    """The value rises to 60, then falls to 0.1. Counted from step 20, this would be a change by a factor of four."""
    series = Series("x", np.array([0, 20, 600, 1400, 2500]), {"x": np.array([0.4, 0.4, 60.0, 5.0, 0.1])})
    assert crossings.half_way(series, "x", 120) == crossings.Crossing(2500, 1400)
    assert crossings.half_way(series, "x", 2600) is None
    with_nan = Series("x", series.steps, {"x": np.array([0.4, 0.4, np.nan, 5.0, 0.1])})
    assert crossings.half_way(with_nan, "x", 120) == crossings.Crossing(2500, 1400)


def test_half_way_takes_the_median_of_the_last_tenth():
    """A spike at the last checkpoint does not change the end of the curve."""
    values = [*np.geomspace(1e4, 1, 18), *[1.0] * 12]
    spiked = [*values[:-1], 1e3]
    assert crossings.half_way(curve(values), "x", 0) == crossings.Crossing(90, 80)
    assert crossings.half_way(curve(spiked), "x", 0) is None, "the last value is back within the first half"
    assert crossings.half_way(curve([*values[:-2], 1e-6, 1.0]), "x", 0) == crossings.Crossing(90, 80)


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
def test_timing_follows_from_the_intervals(at, expected):
    assert (
        crossings.timing(crossings.Crossing(*at), crossings.Crossing(100, 90), crossings.Crossing(200, 190))
        == expected
    )


def test_crossing_before_first_row_is_unseen():
    accuracy = {name: np.ones(3) for name in ("train_accuracy", "test_accuracy")}
    for first, is_seen in ((0, True), (1_000, False)):
        series = Series("log", np.array([first, first + 10, first + 20]), accuracy)
        crossing = crossings.memorization_step(series)
        assert crossing is not None and crossing.is_seen == is_seen
        names = {name for name, _ in phases.landmarks(series, series.steps, np.arange(3))}
        assert ("memorized" in names) == is_seen


def test_failed_searches_have_no_resolved_value():
    arrays = {"radius": np.array([1.0, 2.0]), "radius_interval": np.array([[0.5, 1.5], [2.0, 2.0]])}
    series = Series("measure", np.array([0, 10]), {**arrays, "loss": np.array([3.0, 4.0])})
    np.testing.assert_array_equal(crossings.resolved_values(series, "radius"), [1.0, np.nan])
    np.testing.assert_array_equal(crossings.resolved_values(series, "loss"), [3.0, 4.0])


def test_old_name_of_resolved_values_warns():
    with pytest.warns(DeprecationWarning, match="grokscope.phases.known is now resolved_values"):
        assert phases.known is crossings.resolved_values
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        phases.unknown  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
