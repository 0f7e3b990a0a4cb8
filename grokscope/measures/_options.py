"""Options of a measure: its keyword-only arguments, what each may hold, and how a text such as `1e-4` gives one."""

import inspect
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from grokscope.errors import GrokscopeError, unknown_name

_LARGEST = 2**62


def complete(measure: Callable[..., Any], name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of the measure `name`: those that are given, the others at their defaults.

    A whole number is made a float where the option is one, so that 1 and 1.0 are the same option. Raise
    GrokscopeError for an option that the measure lacks, for one without a default that is not given, and for a value
    that is not of the kind its annotation says; where that says nothing that is understood here, any value will do.
    """
    parameters = inspect.signature(measure).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    kinds = {option: _kind(measure, option) for option in defaults}
    options = dict(defaults)
    for option, value in given.items():
        if option not in defaults:
            raise GrokscopeError(unknown_name(f"option of the measure {name!r}", option, list(defaults)))
        kind = kinds[option]
        if not _is(value, kind):
            raise GrokscopeError(f"{name}: {option} = {value!r}; allowed: {_in_words(kind)}.")
        options[option] = float(value) if type(value) is int and not _is(value, kind, exact=True) else value
    for option, value in options.items():
        if value is inspect.Parameter.empty:
            raise GrokscopeError(f"{name}: {option} is not given; allowed: {_in_words(kinds[option])}.")
    return options


def from_text(text: str) -> tuple[str, Any]:
    """Return the name and the value of an option written `name=value`; raise GrokscopeError for anything else.

    The value is one of TOML's, such as `1e-4`, `true` or `["(0 1)", "(1 2)"]`, the word none, or else a text, which
    needs no quotes.
    """
    name, equals, written = text.partition("=")
    if not (name and equals and written):
        raise GrokscopeError(f"--set {text}: allowed: an option and its value, such as seed=1.")
    if written == "none":
        return name, None
    try:
        read = tomllib.loads(f"value = {written}")
    except (ValueError, RecursionError):
        read = {}
    value = read["value"] if len(read) == 1 else written
    return name, tuple(value) if isinstance(value, list) else value


def _kind(measure: Callable[..., Any], option: str) -> Any:
    """Return what an option is annotated with; Any if nothing, or a name that only a type checker sees."""
    written = inspect.signature(measure).parameters[option].annotation
    if written is inspect.Parameter.empty:
        return Any
    one = types.SimpleNamespace(__annotations__={option: written})
    try:
        return typing.get_type_hints(one, getattr(inspect.unwrap(measure), "__globals__", {}))[option]
    except NameError:
        return Any


def _is(value: object, kind: Any, *, exact: bool = False) -> bool:
    """Return whether a value is of an annotated kind; unless `exact`, a whole number is also a float."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, part, exact=exact) for part in parts)
    if origin is tuple and parts[-1] is ...:
        return isinstance(value, tuple) and all(_is(one, parts[0], exact=exact) for one in value)
    if origin is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if kind is int:
        return type(value) is int and abs(value) <= _LARGEST
    if kind is float:
        return (isinstance(value, float) and math.isfinite(value)) or (not exact and _is(value, int))
    return isinstance(value, kind) if origin is None and isinstance(kind, type) else True


def _in_words(kind: Any) -> str:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_in_words(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return f'several of {_in_words(typing.get_args(kind)[0])}, as in ["…", "…"]'
    words = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false"}
    return words.get(kind, "none" if kind is types.NoneType else str(kind))
