"""Rules that end a run: their form, and the row at which they end it."""

import pytest

from grokscope.config.stop_rule import Condition, StopWatch, is_stop_rule, parse


def stop_of(rule: str, values: list[float], quantity: str = "test_accuracy", every: int = 10) -> StopWatch:
    """Return a watch after rows at steps 0, every, 2 · every, … with these values of one quantity."""
    watch = StopWatch(rule)
    others = {"train_loss": 1.0, "test_loss": 1.0, "train_accuracy": 0.0, "test_accuracy": 0.0}
    for i, value in enumerate(values):
        watch.update(i * every, {**others, quantity: value})
    return watch


def test_rule_is_parsed_into_its_conditions():
    assert parse("test_accuracy >= 0.99 for 2000 or train_loss<1e-5") == (
        Condition("test_accuracy", ">=", 0.99, 2000),
        Condition("train_loss", "<", 1e-5, 0),
    )
    assert parse("") == () and is_stop_rule("")


@pytest.mark.parametrize(
    "text",
    [
        *("test_accuracy", "test_accuracy >= 99", "accuracy >= 0.9", "test_loss = 1", "test_loss < 1 for 0"),
        *(
            "test_loss < 1 and train_loss < 1",
            "test_loss < 1 or",
            "test_loss < nan",
            "test_loss < 1 for 1.5",
            7,
            None,
        ),
    ],
)
def test_text_of_another_form_is_no_rule(text: object):
    assert not is_stop_rule(text)


@pytest.mark.parametrize(("comparison", "step"), [(">=", 20), (">", 30), ("<=", 0), ("<", 0)])
def test_condition_ends_at_the_first_row_that_meets_it(comparison: str, step: int):
    watch = stop_of(f"test_accuracy {comparison} 0.5", [0.2, 0.4, 0.5, 0.6])
    assert watch.step == step
    assert watch.stop is not None and watch.stop.step == step


def test_lasting_condition_needs_an_unbroken_stretch():
    watch = stop_of("test_accuracy >= 0.9 for 20", [0.9, 0.9, 0.8, 0.9, 0.95, 0.99, 1.0])
    assert watch.step == 50
    assert str(watch.stop) == "stopped at 50: test accuracy ≥ 90% for 20 steps"
    assert stop_of("test_accuracy >= 0.9 for 20", [0.9, 0.9, 0.8, 0.9, 0.95]).stop is None


def test_duration_between_evaluations_counts_whole_stretches():
    assert stop_of("test_accuracy >= 0.9 for 15", [0.9, 0.9, 0.9]).step == 20


def test_condition_that_was_met_first_is_the_reason():
    watch = stop_of("test_accuracy >= 0.9 for 50 or test_loss < 0.1", [1.0, 0.05], "test_loss")
    assert str(watch.stop) == "stopped at 10: test loss < 0.1"
    both = stop_of("test_loss < 0.1 or test_accuracy >= 0", [0.05], "test_loss")
    assert str(both.stop) == "stopped at 0: test loss < 0.1 and test accuracy ≥ 0%"


def test_watch_that_has_stopped_ignores_later_rows():
    watch = stop_of("test_accuracy >= 0.9", [0.95, 0.1, 0.95])
    assert watch.step == 0 and watch.since == [0]


def test_watch_continues_from_its_state():
    first = stop_of("test_accuracy >= 0.9 for 20", [0.1, 0.9])
    second = StopWatch("test_accuracy >= 0.9 for 20", first.since, first.step)
    second.update(20, {"test_accuracy": 0.9})
    assert second.stop is None
    second.update(30, {"test_accuracy": 0.9})
    assert second.step == 30
