"""Fields of plain dataclasses that know what they may hold, and the walks over a tree of them.

A config is made of these. Construction never raises: `faults` collects what is wrong over the whole tree, one
sentence each with what is allowed. `to_plain` and `from_plain` are the way to JSON and TOML and back.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grokscope import plugins
from grokscope.errors import quoted_value, unknown_name


@dataclass(frozen=True)
class Allowed:
    """What a field may hold: in words, as a test, and the type that its value has in ``config.json``."""

    words: str
    test: Callable[[Any], bool] | None
    """None for a value that other code judges: a registered name, a schedule."""
    kind: Callable[[Any], Any]
    registry: str = ""
    """Where a registered name is looked up: "tasks" or "optimizers"."""


def checked(default: Any, words: str, test: Callable[[Any], bool] | None, kind: Callable[[Any], Any]) -> Any:
    """Return a field whose values pass `test`, which `words` describe."""
    return field(default=default, metadata={"allowed": Allowed(words, test, kind)})


def is_number(value: object) -> bool:
    """Return whether `value` is a finite number, and no truth value."""
    # The comparison refuses what is not a number, infinite, or an integer too large to be a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def integer(default: int | None, low: int, high: int = 2**62, *, none: str = "") -> Any:
    """Return a field for a whole number from `low` to `high`, or none if it is said what none stands for."""
    words = f"a whole number from {low}" + (f" to {high}" if high < 2**62 else "")

    def test(value: object) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return whole or (bool(none) and value is None)

    return checked(default, words + (f", or none for {none}" if none else ""), test, lambda value: value)


def number(default: float, words: str, test: Callable[[float], bool]) -> Any:
    """Return a field for a finite number."""
    return checked(default, words, lambda value: is_number(value) and test(value), float)


def share(default: float, *, upper: str = "") -> Any:
    """Return a field for a number from 0 to below 1, or, with an `upper` in words, from above 0 to 1."""
    if upper:
        return number(default, f"a number above 0 and up to 1, {upper}", lambda value: 0 < value <= 1)
    return number(default, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def flag(default: bool) -> Any:
    """Return a field for true or false."""
    return checked(default, "true or false", lambda value: isinstance(value, bool), bool)


def choice(default: str | None, *allowed: str | None) -> Any:
    """Return a field for one of a few texts, none perhaps among them."""
    words = " or ".join("none" if name is None else repr(name) for name in allowed)
    return checked(default, words, lambda value: _is_among(value, allowed), lambda value: value)


def registered(default: str, registry: str) -> Any:
    """Return a field for a name that is registered in `registry`."""
    allowed = Allowed(f"a name that `grokscope list {registry}` prints", None, str, registry)
    return field(default=default, metadata={"allowed": allowed})


def faults(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield every field of the tree whose value is not allowed, with what is."""
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), prefix + item.name
        allowed: Allowed | None = item.metadata.get("allowed")
        if allowed is None:
            part = item.default_factory
            if isinstance(value, part):  # pyright: ignore[reportArgumentType]
                yield from faults(value, f"{name}.")
            else:
                yield f"{name}: {quoted_value(value)} is no {part.__name__}"  # pyright: ignore[reportAttributeAccessIssue]
        elif allowed.registry:
            if not _is_among(value, plugins.names(allowed.registry)):
                what = allowed.registry.removesuffix("s")
                yield f"{name}: " + unknown_name(what, value, plugins.names(allowed.registry)).rstrip(".")
        elif allowed.test is not None and not allowed.test(value):
            yield f"{name}: {quoted_value(value)}; allowed: {allowed.words}"


def to_plain(config: Any) -> dict[str, Any]:
    """Return the tree as plain JSON values, floats as floats, in the order of the fields."""
    values = {}
    for item in dataclasses.fields(config):
        value, allowed = getattr(config, item.name), item.metadata.get("allowed")
        values[item.name] = allowed.kind(value) if allowed else to_plain(value)
    return values


def from_plain(base: Any, values: Mapping[str, Any], prefix: str = "") -> tuple[Any, list[str]]:
    """Return `base` with nested plain values put in, and a sentence for each key that is no field.

    The text "none" stands for none in a field that admits it, since TOML has no null.
    """
    known = {item.name: item for item in dataclasses.fields(base)}
    changes, found = {}, []
    for key, value in values.items():
        if key not in known:
            found.append(unknown_name("setting", prefix + key, [prefix + name for name in known]))
        elif dataclasses.is_dataclass(getattr(base, key)):
            if isinstance(value, Mapping):
                changes[key], deeper = from_plain(getattr(base, key), value, f"{prefix}{key}.")
                found += deeper
            else:
                found.append(f"{prefix}{key}: {quoted_value(value)} is no table of settings")
        else:
            test = known[key].metadata["allowed"].test
            is_none = value == "none" and test is not None and test(None)
            changes[key] = None if is_none else tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(base, **changes), [fault.rstrip(".") for fault in found]


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Allowed]]:
    """Yield the dotted name of every setting of the tree, with what it may hold."""
    for item in dataclasses.fields(config):
        if "allowed" in item.metadata:
            yield prefix + item.name, item.metadata["allowed"]
        else:
            yield from leaves(getattr(config, item.name), f"{prefix}{item.name}.")


def _is_among(value: object, allowed: Sequence[str | None]) -> bool:
    # What is no text may not even be comparable, such as an array.
    return (value is None or isinstance(value, str)) and value in allowed
