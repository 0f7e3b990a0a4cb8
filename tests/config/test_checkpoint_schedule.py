"""Checkpoint schedules against independent enumerations of each term."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokscope.config import checkpoint_schedule
from grokscope.errors import GrokscopeError


def every(k: int, n_steps: int) -> set[int]:
    return {step for step in range(n_steps + 1) if step % k == 0}


def logarithmic(n: int, n_steps: int) -> set[int]:
    """Return n points from 1 to n_steps with evenly spaced logarithms, computed in 50 decimal digits."""
    with localcontext(prec=50):
        exponents = [Decimal(i) / (n - 1) for i in range(n)] if n > 1 else [Decimal(0)]
        points = [(Decimal(n_steps).ln() * exponent).exp() for exponent in exponents]
        return {int(point.quantize(Decimal(1), ROUND_HALF_EVEN)) for point in points}


def pythia(k: int, n_steps: int) -> set[int]:
    powers, power = set(), 1
    while power < k:
        powers.add(power)
        power *= 2
    return {step for step in powers | every(k, n_steps) if step <= n_steps}


def window(first: int, last: int, k: int, n_steps: int) -> set[int]:
    return {step for step in range(n_steps + 1) if first <= step <= last and (step - first) % k == 0}


def steps(text: str, n_steps: int) -> list[int]:
    return checkpoint_schedule.parse(text).fixed_steps(n_steps).tolist()


@pytest.mark.parametrize("n_steps", [1, 2, 9, 10, 64, 1000, 1001])
@pytest.mark.parametrize("k", [1, 2, 3, 8, 10, 100, 1000, 5000])
def test_every_and_pythia_terms_match_enumeration(k: int, n_steps: int):
    ends = {0, n_steps}
    assert steps(f"every {k}", n_steps) == sorted(every(k, n_steps) | ends)
    assert steps(f"pythia {k}", n_steps) == sorted(pythia(k, n_steps) | ends)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 300, 40_000])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 57, 500])
def test_log_term_matches_enumeration(n: int, n_steps: int):
    assert steps(f"log {n}", n_steps) == sorted(logarithmic(n, n_steps) | {0, n_steps})


@pytest.mark.parametrize(("first", "last", "k"), [(0, 0, 1), (3, 3, 9), (5, 47, 7), (40, 100, 1), (0, 100, 30)])
def test_window_term_matches_enumeration(first: int, last: int, k: int):
    assert steps(f"window {first} {last} {k}", 100) == sorted(window(first, last, k, 100) | {0, 100})


def test_sum_of_terms_is_union_of_steps():
    text = "every 100 + log 20 + pythia 90 + window 200 400 5 + window 7 9 1 + adaptive 0.1"
    expected = every(100, 1000) | logarithmic(20, 1000) | pythia(90, 1000)
    expected |= window(200, 400, 5, 1000) | window(7, 9, 1, 1000)
    assert steps(text, 1000) == sorted(expected)
    assert checkpoint_schedule.parse(text).adaptive == 0.1


def test_adaptive_alone_fixes_only_first_and_last_step():
    assert steps("adaptive 0.5", 77) == [0, 77]
    assert checkpoint_schedule.parse("every 3").adaptive is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown term ''"),
        ("evry 5", "unknown term 'evry 5'"),
        ("every", "'every K'"),
        ("every 0", "K a whole number from 1"),
        ("every -1", "K a whole number from 1"),
        ("every 1.5", "K a whole number from 1"),
        ("every 5 5", "'every K'"),
        ("log 0", "N a whole number from 1"),
        ("window 5 4 1", "A <= B"),
        ("window 5 9 0", "K from 1"),
        ("window 5 9", "'window A B K'"),
        ("adaptive 0", "X a number above 0"),
        ("adaptive nan", "X a number above 0"),
        ("adaptive inf", "X a number above 0"),
        ("adaptive 0.1 + adaptive 0.2", "at most one"),
        ("every 5 +", "unknown term ''"),
    ],
)
def test_fault_names_the_mistake_and_what_is_allowed(text: str, message: str):
    (fault,) = checkpoint_schedule.faults(text)
    assert message in fault and ("allowed" in fault or "of the form" in fault)
    with pytest.raises(GrokscopeError) as refusal:
        checkpoint_schedule.parse(text)
    assert fault in str(refusal.value) and repr(text) in str(refusal.value)


def test_all_mistakes_of_a_schedule_are_reported():
    assert len(checkpoint_schedule.faults("evry 5 + log x + window 9 3 1 + adaptive -1 + every 10")) == 4


def test_window_beyond_last_step_is_fault_if_step_is_given():
    assert checkpoint_schedule.faults("window 5 101 1") == []
    assert checkpoint_schedule.faults("window 5 100 1", 100) == []
    (fault,) = checkpoint_schedule.faults("window 5 101 1", 100)
    assert "'window 5 101 1'" in fault and "n_steps = 100" in fault


WORDS = st.sampled_from(["every", "log", "pythia", "window", "adaptive", "+", "-", "0", "1", "7", "40", "0.1", "1e9"])
NEARLY_VALID = st.lists(st.one_of(WORDS, st.text(max_size=3)), max_size=9).map(" ".join)


@given(st.one_of(st.text(), NEARLY_VALID))
def test_random_text_parses_exactly_if_it_has_no_faults(text: str):
    faults = checkpoint_schedule.faults(text, 50)
    if checkpoint_schedule.faults(text):
        with pytest.raises(GrokscopeError):
            checkpoint_schedule.parse(text)
    else:
        schedule = checkpoint_schedule.parse(text)
        assert schedule.adaptive is None or schedule.adaptive > 0
    if not faults:
        fixed = steps(text, 50)
        assert fixed == sorted(set(fixed)) and fixed[0] == 0 and fixed[-1] == 50


@given(st.one_of(st.none(), st.integers(), st.floats(), st.binary(), st.lists(st.text())))
def test_value_that_is_not_text_is_one_fault(value: object):
    (fault,) = checkpoint_schedule.faults(value)
    assert "allowed" in fault
