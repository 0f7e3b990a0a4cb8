"""Options of measures: parsing from text, defaults, and types."""

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
    """Return nothing; only the signature is read."""


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
def test_text_gives_a_name_and_a_value(text, value):
    option = _options.from_text(f"option={text}")
    assert option == ("option", value) and type(option[1]) is type(value)


@pytest.mark.parametrize("text", ["", "option", "=1", "option="])
def test_text_without_option_and_value_is_rejected(text):
    with pytest.raises(GrokscopeError, match="--set .*allowed: an option and its value"):
        _options.from_text(text)


@pytest.mark.parametrize(
    ("options", "completed"),
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
def test_defaults_complete_options_and_int_becomes_float(options, completed):
    defaults = {"share": 0.5, "n": 3, "perplexity": None, "names": None, "plain": 7, "is_shown": False}
    all_options = _options.complete(measure, "measure", options)
    assert all_options == {**defaults, **completed}
    assert [type(all_options[name]) for name in completed] == [type(value) for value in completed.values()]


@pytest.mark.parametrize(
    ("options", "message"),
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
def test_wrong_option_is_rejected_with_the_allowed_values(options, message):
    with pytest.raises(GrokscopeError, match=message):
        _options.complete(measure, "measure", options)


def third_party(
    trajectory: "Unknown",
    *,
    needed: int,
    word: Literal["a", "b"] = "a",
    pair: tuple[int, float] = (1, 2.0),
    listed: list[str] | None = None,
    several: Sequence[int] = (),
    unknown: "Unknown" = 0,
) -> None:
    """Return nothing; the annotations are those of a measure in a third-party package."""


def test_unknown_annotations_of_third_parties_are_accepted():
    options = {"needed": 1, "word": "b", "pair": (3, 4.5), "listed": ["x"], "several": (1,), "unknown": "y"}
    assert _options.complete(third_party, "third_party", options) == options
    with pytest.raises(GrokscopeError, match="word = 'c'; allowed: 'a' or 'b'"):
        _options.complete(third_party, "third_party", {**options, "word": "c"})
    with pytest.raises(GrokscopeError, match="the option needed has no default; set it"):
        _options.complete(third_party, "third_party", {})
