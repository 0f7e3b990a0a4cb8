"""Schedules, against independent enumerations of what each term means."""

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokscope.config import checkpoint_schedule
from grokscope.errors import GrokscopeError


def every(k: int, n_steps: int) -> set[int]:
    return {step for step in range(n_steps + 1) if step % k == 0}


def logarithmic(n: int, n_steps: int) -> set[int]:
    """n points from 1 to n_steps whose logarithms are evenly spaced, in 50 decimal digits."""
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
def test_every_and_pythia_are_their_enumerations(k: int, n_steps: int):
    ends = {0, n_steps}
    assert steps(f"every {k}", n_steps) == sorted(every(k, n_steps) | ends)
    assert steps(f"pythia {k}", n_steps) == sorted(pythia(k, n_steps) | ends)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 300, 40_000])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 57, 500])
def test_log_is_its_enumeration(n: int, n_steps: int):
    assert steps(f"log {n}", n_steps) == sorted(logarithmic(n, n_steps) | {0, n_steps})


@pytest.mark.parametrize(("first", "last", "k"), [(0, 0, 1), (3, 3, 9), (5, 47, 7), (40, 100, 1), (0, 100, 30)])
def test_window_is_its_enumeration(first: int, last: int, k: int):
    assert steps(f"window {first} {last} {k}", 100) == sorted(window(first, last, k, 100) | {0, 100})


def test_the_sum_of_terms_is_the_union_of_their_steps():
    text = "every 100 + log 20 + pythia 90 + window 200 400 5 + window 7 9 1 + adaptive 0.1"
    expected = every(100, 1000) | logarithmic(20, 1000) | pythia(90, 1000)
    expected |= window(200, 400, 5, 1000) | window(7, 9, 1, 1000)
    assert steps(text, 1000) == sorted(expected)
    assert checkpoint_schedule.parse(text).adaptive == 0.1


def test_adaptive_alone_fixes_the_first_step_and_the_last():
    assert steps("adaptive 0.5", 77) == [0, 77]
    assert checkpoint_schedule.parse("every 3").adaptive is None


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_each_mistake_is_named_with_what_is_allowed(text: str, said: str):
    (fault,) = checkpoint_schedule.faults(text)
    assert said in fault and ("allowed" in fault or "of the form" in fault)
    with pytest.raises(GrokscopeError) as refusal:
        checkpoint_schedule.parse(text)
    assert fault in str(refusal.value) and repr(text) in str(refusal.value)


def test_every_mistake_of_a_schedule_is_named_at_once():
    assert len(checkpoint_schedule.faults("evry 5 + log x + window 9 3 1 + adaptive -1 + every 10")) == 4


def test_a_window_beyond_the_last_step_is_a_fault_only_when_that_step_is_known():
    assert checkpoint_schedule.faults("window 5 101 1") == []
    assert checkpoint_schedule.faults("window 5 100 1", 100) == []
    (fault,) = checkpoint_schedule.faults("window 5 101 1", 100)
    assert "'window 5 101 1'" in fault and "n_steps = 100" in fault


WORDS = st.sampled_from(["every", "log", "pythia", "window", "adaptive", "+", "-", "0", "1", "7", "40", "0.1", "1e9"])
ALMOST = st.lists(st.one_of(WORDS, st.text(max_size=3)), max_size=9).map(" ".join)


@given(st.one_of(st.text(), ALMOST))
def test_any_text_is_a_schedule_or_has_faults_that_parse_names(text: str):
    found = checkpoint_schedule.faults(text, 50)
    if checkpoint_schedule.faults(text):
        with pytest.raises(GrokscopeError):
            checkpoint_schedule.parse(text)
    else:
        parsed = checkpoint_schedule.parse(text)
        assert parsed.adaptive is None or parsed.adaptive > 0
    if not found:
        taken = steps(text, 50)
        assert taken == sorted(set(taken)) and taken[0] == 0 and taken[-1] == 50


@given(st.one_of(st.none(), st.integers(), st.floats(), st.binary(), st.lists(st.text())))
def test_what_is_no_text_is_a_fault(value: object):
    (fault,) = checkpoint_schedule.faults(value)
    assert "allowed" in fault
