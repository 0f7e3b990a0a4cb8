"""Options of a measure: its keyword-only arguments, checked against their annotations, and read from text."""

import inspect
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from grokscope.errors import GrokscopeError, quoted_value, unknown_name

_LARGEST = 2**62
"""The largest whole number, because seeds and counts are stored in 64 bits."""

_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
_WORDS = {
    "a valid number": "a finite number",
    "a valid integer": "a whole number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
    "a valid tuple": 'several values, as in ["…", "…"]',
}
"""Our words for pydantic's."""


def complete(measure: Callable[..., Any], name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a measure: the given ones, and the others at their defaults.

    A whole number becomes a float where the option is a float, so that 1 and 1.0 are the same option.

    Args:
        measure: The measure. Its keyword-only arguments are its options; an option without an annotation, or with one
            that only a type checker can import, accepts any value.
        name: The measure's name, for messages.
        given: Values by the option's name.

    Raises:
        GrokscopeError: An option is unknown, is missing, or has a value of the wrong type.
    """
    signature = inspect.signature(measure)
    defaults = {
        option: parameter.default
        for option, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for option, value in given.items():
        if option not in defaults:
            raise GrokscopeError(unknown_name(f"option of the measure {name!r}", option, list(defaults)))
        if type(value) is int and abs(value) > _LARGEST:
            raise GrokscopeError(
                f"{name}: {option} = {quoted_value(value)}; allowed: a whole number of at most {_LARGEST} in size."
            )
    options: dict[str, Any] = dict(given)
    for option, value in given.items():
        # A class of its own for each option, because pydantic reserves some field names.
        kind = _annotation(measure, option)
        model = create_model("Option", __config__=_STRICT, value=(kind, ...))
        try:
            options[option] = model.model_validate({"value": value}).value  # pyright: ignore[reportAttributeAccessIssue]
        except ValidationError as error:
            raise GrokscopeError(
                f"{name}: {option} = {quoted_value(value)}; allowed: {_allowed(error, kind)}."
            ) from error
    missing = [option for option, value in (defaults | options).items() if value is inspect.Parameter.empty]
    if missing:
        raise GrokscopeError(f"{name}: the option {missing[0]} has no default; set it.")
    return defaults | options


def _allowed(error: ValidationError, kind: Any) -> str:
    """Return what an option may be, in the words of the other messages."""
    reasons = {
        "a valid tuple" if len(fault["loc"]) > 1 else fault["msg"].removeprefix("Input should be ")
        for fault in error.errors()
    }
    words = sorted(_WORDS.get(reason, reason) for reason in reasons)
    return " or ".join([*words, *(["none"] if types.NoneType in typing.get_args(kind) else [])])


def from_text(text: str) -> tuple[str, Any]:
    """Return the name and the value of an option written as `name=value`.

    Args:
        text: The value is a TOML value such as `1e-4`, `true` or `["(0 1)", "(1 2)"]`, the word none, or else a
            string, which needs no quotes.

    Raises:
        GrokscopeError: The text does not have this form.
    """
    name, equals, written = text.partition("=")
    if not (name and equals and written):
        raise GrokscopeError(f"--set {text}: allowed: an option and its value, such as seed=1.")
    if written == "none":
        return name, None
    try:
        document = tomllib.loads(f"value = {written}")
    except (ValueError, RecursionError):
        document = {}
    value = document["value"] if len(document) == 1 else written
    return name, tuple(value) if isinstance(value, list) else value


def _annotation(measure: Callable[..., Any], option: str) -> Any:
    """Return the annotation of an option; Any if it has none, or one that only a type checker can import."""
    written = inspect.signature(measure).parameters[option].annotation
    if written is inspect.Parameter.empty:
        return Any
    holder = types.SimpleNamespace(__annotations__={option: written})
    try:
        return typing.get_type_hints(holder, getattr(inspect.unwrap(measure), "__globals__", {}))[option]
    except NameError:
        return Any
