"""Options of measures: what a text gives, and what a value of the right kind is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pytest

from grokscope.errors import GrokscopeError
from grokscope.measures import _options

if TYPE_CHECKING:
    from somewhere import Unknown  # pyright: ignore[reportMissingImports]


def measure(
    trajectory,
    *,
    share: float = 0.5,
    n: int = 3,
    perplexity: float | None = None,
    names: tuple[str, ...] | None = None,
    plain=7,
    is_shown: bool = False,
) -> None:
    """Return nothing; it is here for its signature."""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3", 3),
        ("-3", -3),
        ("0.25", 0.25),
        ("float64", "float64"),
        ("'float64'", "float64"),
        ("true", True),
        ("none", None),
        ('["(0 3)(1 4)", "(1 2)(3 4)"]', ("(0 3)(1 4)", "(1 2)(3 4)")),
        ("[", "["),
        ("a=b", "a=b"),
        ("[" * 5000, "[" * 5000),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_a_text_gives_a_name_and_a_value(text, value):
    found = _options.from_text(f"option={text}")
    assert found == ("option", value) and type(found[1]) is type(value)


@pytest.mark.parametrize("text", ["", "option", "=1", "option="])
def test_what_is_no_option_and_value_is_refused(text):
    with pytest.raises(GrokscopeError, match="--set .*allowed: an option and its value"):
        _options.from_text(text)


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ({}, {}),
        ({"share": 1}, {"share": 1.0}),
        ({"perplexity": 5}, {"perplexity": 5.0}),
        ({"perplexity": None}, {"perplexity": None}),
        ({"names": ("a", "b")}, {"names": ("a", "b")}),
        ({"n": 4, "plain": object}, {"n": 4, "plain": object}),
        ({"is_shown": True}, {"is_shown": True}),
    ],
)
def test_what_is_not_given_is_the_default_and_a_whole_number_may_stand_for_a_float(given, completed):
    defaults = {"share": 0.5, "n": 3, "perplexity": None, "names": None, "plain": 7, "is_shown": False}
    found = _options.complete(measure, "measure", given)
    assert found == {**defaults, **completed}
    assert [type(found[name]) for name in completed] == [type(value) for value in completed.values()]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"share": "x"}, "share = 'x'; allowed: a finite number"),
        ({"share": float("inf")}, "share = inf; allowed: a finite number"),
        ({"share": True}, "share = True; allowed: a finite number"),
        ({"n": 1.0}, "n = 1.0; allowed: a whole number"),
        ({"n": 2**63}, r"n = \d+; allowed: a whole number"),
        ({"perplexity": "x"}, "perplexity = 'x'; allowed: a finite number or none"),
        ({"names": (1,)}, "names = .*; allowed: several values, .* or none"),
        ({"names": "a"}, "names = 'a'; allowed: several values"),
        ({"is_shown": 1}, "is_shown = 1; allowed: true or false"),
        ({"shares": 1}, "'shares'; allowed: share, n, .*Did you mean 'share'"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_allowed(given, said):
    with pytest.raises(GrokscopeError, match=said):
        _options.complete(measure, "measure", given)


def elsewhere(
    trajectory: "Unknown",
    *,
    needed: int,
    word: Literal["a", "b"] = "a",
    pair: tuple[int, float] = (1, 2.0),
    listed: list[str] | None = None,
    several: Sequence[int] = (),
    unknown: "Unknown" = 0,
) -> None:
    """Return nothing; it is annotated as a measure in a package of somebody else's may be."""


def test_the_annotations_of_others_are_read_as_far_as_they_are_understood():
    given = {"needed": 1, "word": "b", "pair": (3, 4.5), "listed": ["x"], "several": (1,), "unknown": "y"}
    assert _options.complete(elsewhere, "elsewhere", given) == given
    with pytest.raises(GrokscopeError, match="word = 'c'; allowed: 'a' or 'b'"):
        _options.complete(elsewhere, "elsewhere", {**given, "word": "c"})
    with pytest.raises(GrokscopeError, match="the option needed has no default; set it"):
        _options.complete(elsewhere, "elsewhere", {})
