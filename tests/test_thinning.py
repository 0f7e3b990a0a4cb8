"""The four rules that thin a series of steps, on steps with known answers."""

from collections.abc import Sequence

import numpy as np
import pytest

from grokscope.thinning import nearest_row, spread_by_log_step, spread_by_step, spread_by_stride, spread_evenly

RULES = [spread_by_step, spread_by_log_step, spread_evenly, spread_by_stride]
EVERY_100, POWERS = range(0, 16_001, 100), [0, *2 ** np.arange(15)]


@pytest.mark.parametrize("spread", RULES)
@pytest.mark.parametrize("steps", [EVERY_100, POWERS, range(5_000, 9_000, 20), [7]])
@pytest.mark.parametrize("n_max", [3, 12, 24, 60])
def test_rows_increase_and_include_both_ends(spread, steps: Sequence[int], n_max: int):
    rows = spread(np.array(steps), n_max)
    assert rows[0] == 0 and rows[-1] == len(steps) - 1
    assert (np.diff(rows) > 0).all() and len(rows) <= n_max


@pytest.mark.parametrize("steps", [EVERY_100, POWERS, range(5_000, 9_000, 20), [7]])
@pytest.mark.parametrize("n_max", [1, 2, 12, 24, 60])
def test_gaps_by_step_are_at_most_twice_the_even_gap(steps: Sequence[int], n_max: int):
    """A gap counts in row number plus log step. A gap between neighbouring rows cannot be narrower."""
    array = np.array(steps)
    rows = spread_by_step(array, n_max)
    assert min(n_max, len(steps)) - 2 <= len(rows) <= n_max
    assert rows[-1] == len(steps) - 1 and (np.diff(rows) > 0).all()
    if n_max > 1:
        assert rows[0] == 0
    if len(rows) > 1:
        logs = np.log1p(array - array[0])[rows] / np.log1p(array[-1] - array[0])
        wide = np.diff(rows) > 1
        gaps = np.diff(rows)[wide] / (len(steps) - 1) + np.diff(logs)[wide]
        assert (gaps <= 4 / (len(rows) - 1)).all()


def test_early_steps_are_dense_by_step():
    """The preset nanda2023 memorizes at step 140. Rows spread evenly would jump from step 0 to step 700."""
    steps = np.array(EVERY_100)
    assert spread_by_step(steps, 24)[:4].tolist() == [0, 1, 2, 3]
    assert steps[spread_evenly(steps, 24)][:2].tolist() == [0, 700]


def test_rows_by_log_step_double_on_powers_of_two():
    steps = np.arange(1025)
    assert spread_by_log_step(steps, 12).tolist() == [0, *2 ** np.arange(11)]
    assert spread_by_log_step(steps[::32], 4).tolist() == [0, 1, 32]


def test_rows_spread_evenly_are_equally_spaced():
    assert spread_evenly(np.arange(0, 50, 10), 100).tolist() == [0, 1, 2, 3, 4]
    assert spread_evenly(np.array([0, 1, 2, 500, 900]), 3).tolist() == [0, 2, 4]
    assert spread_evenly(np.arange(5), 2).tolist() == [0, 4]
    rows = spread_evenly(np.arange(3000), 200)
    assert len(rows) == 200 and rows[0] == 0 and rows[-1] == 2999
    assert np.ptp(np.diff(rows)) <= 1


def test_stride_is_the_smallest_sufficient_power_of_two():
    assert spread_by_stride(np.arange(9), 10).tolist() == list(range(9))
    assert spread_by_stride(np.arange(9), 9).tolist() == [0, 2, 4, 6, 8]
    assert spread_by_stride(np.arange(10), 9).tolist() == [0, 2, 4, 6, 8, 9]


@pytest.mark.parametrize("n_max", [2, 3, 13, 49])
def test_rows_by_stride_never_return_while_a_run_grows(n_max: int):
    earlier: set[int] = set()
    for n in range(1, 400):
        rows = spread_by_stride(np.arange(n), n_max).tolist()
        assert rows[0] == 0 and rows[-1] == n - 1 and len(set(rows)) == len(rows) <= n_max
        assert set(rows) - earlier <= set(rows[-2:]) | {n - 1}
        earlier |= set(rows)


def test_nearest_row_is_the_earlier_of_two_equally_near():
    steps = np.array([0, 10, 20])
    assert [nearest_row(steps, step) for step in (-5, 5, 6, 10.4, 1e6)] == [0, 0, 1, 1, 2]
