"""Dataclass fields that define their allowed values, and functions on a tree of such dataclasses.

A RunConfig is such a tree. Construction never raises; `faults` checks the whole tree. `to_plain` and `from_plain`
convert it to the plain values of JSON and TOML, and back.
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
    """The allowed values of a field. The functions below create it, and `faults` uses it."""

    words: str
    """The allowed values in words, for messages."""
    test: Callable[[Any], bool] | None
    """The test of a value, or None if other code checks it: a registered name or a schedule."""
    kind: Callable[[Any], Any]
    """The conversion to the type that ``config.json`` stores."""
    registry: str = ""
    """The registry of a registered name: "tasks", "models" or "optimizers"."""
    advice: Callable[[Any], str] = lambda value: ""
    """What helps with a value that is not allowed, or ""."""


def checked(
    default: Any,
    words: str,
    test: Callable[[Any], bool] | None,
    kind: Callable[[Any], Any],
    advice: Callable[[Any], str] = lambda value: "",
) -> Any:
    """Return a field whose values pass `test`.

    Args:
        default: The default value.
        words: The allowed values in words.
        test: The test of a value, or None if other code checks it.
        kind: The conversion to the type that JSON stores.
        advice: Returns what helps with a value that is not allowed, or "".
    """
    return field(default=default, metadata={"allowed": Allowed(words, test, kind, advice=advice)})


def is_number(value: object) -> bool:
    """Return whether `value` is a finite number that is not a boolean."""
    # The comparison is false for NaN, for infinity and for integers that are too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def integer(default: int | None, low: int, high: int = 2**62, *, none: str = "") -> Any:
    """Return a field for a whole number from `low` to `high`; if `none` gives None a meaning, None is allowed."""
    words = f"a whole number from {low}" + (f" to {high}" if high < 2**62 else "")

    def test(value: object) -> bool:
        if value is None:
            return bool(none)
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return checked(default, words + (f", or none for {none}" if none else ""), test, lambda value: value)


def number(default: float, words: str, test: Callable[[float], bool]) -> Any:
    """Return a field for a finite number that passes `test`; `words` describes these numbers."""
    return checked(default, words, lambda value: is_number(value) and test(value), float)


def share(default: float, *, upper: str = "") -> Any:
    """Return a field for a number in [0, 1), or in (0, 1] if `upper` names the quantity that it is a share of."""
    if upper:
        return number(default, f"a number above 0 and up to 1, {upper}", lambda value: 0 < value <= 1)
    return number(default, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def flag(default: bool) -> Any:
    """Return a field for true or false."""
    return checked(default, "true or false", lambda value: isinstance(value, bool), bool)


def choice(default: str | None, *allowed: str | None) -> Any:
    """Return a field for one of the `allowed` values."""
    words = " or ".join("none" if name is None else repr(name) for name in allowed)
    return checked(default, words, lambda value: _is_among(value, allowed), lambda value: value)


def registered(default: str, registry: str) -> Any:
    """Return a field for a name in `registry`, "tasks", "models" or "optimizers"."""
    allowed = Allowed(f"a name that `grokscope list {registry}` prints", None, str, registry)
    return field(default=default, metadata={"allowed": allowed})


def faults(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield a message for every invalid field of the tree, with its dotted name, value and allowed values."""
    for item in dataclasses.fields(config):
        value, name = getattr(config, item.name), prefix + item.name
        allowed: Allowed | None = item.metadata.get("allowed")
        if allowed is None:
            part = item.default_factory
            if isinstance(value, part):  # pyright: ignore[reportArgumentType]
                yield from faults(value, f"{name}.")
            else:
                yield f"{name}: {quoted_value(value)} is not a {part.__name__}"  # pyright: ignore[reportAttributeAccessIssue]
        elif allowed.registry:
            if not _is_among(value, plugins.names(allowed.registry)):
                kind = allowed.registry.removesuffix("s")
                yield f"{name}: " + unknown_name(kind, value, plugins.names(allowed.registry)).rstrip(".")
        elif allowed.test is not None and not allowed.test(value):
            advice = allowed.advice(value)
            yield f"{name}: {quoted_value(value)}; allowed: {allowed.words}" + (f"; {advice}" if advice else "")


def to_plain(config: Any) -> dict[str, Any]:
    """Return the tree as plain JSON values, in the order of the fields. A float field always gives a float."""
    values = {}
    for item in dataclasses.fields(config):
        value, allowed = getattr(config, item.name), item.metadata.get("allowed")
        values[item.name] = allowed.kind(value) if allowed else to_plain(value)
    return values


def from_plain(
    base: Any, values: Mapping[str, Any], prefix: str = "", suggested: Sequence[str] = ()
) -> tuple[Any, list[str]]:
    """Return `base` with its fields replaced by nested plain values, and a message for each unknown key.

    The text "none" means None where None is allowed, because TOML has no null.

    Args:
        base: The tree that provides all other settings.
        values: The settings to change.
        prefix: The dotted name of this tree, with a dot at its end.
        suggested: The dotted names to suggest for an unknown key; by default all settings of `base`.
    """
    suggested = suggested or [name for name, _ in leaves(base, prefix)]
    fields = {item.name: item for item in dataclasses.fields(base)}
    changes, messages = {}, []
    for key, value in values.items():
        if key not in fields:
            messages.append(unknown_name("setting", prefix + key, [prefix + name for name in fields], suggested))
        elif dataclasses.is_dataclass(getattr(base, key)):
            if isinstance(value, Mapping):
                changes[key], nested_messages = from_plain(getattr(base, key), value, f"{prefix}{key}.", suggested)
                messages += nested_messages
            else:
                messages.append(f"{prefix}{key}: {quoted_value(value)} is not a table of settings")
        else:
            test = fields[key].metadata["allowed"].test
            is_none = value == "none" and test is not None and test(None)
            changes[key] = None if is_none else tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(base, **changes), [message.rstrip(".") for message in messages]


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Allowed]]:
    """Yield the dotted name of every setting of the tree, with its allowed values."""
    for item in dataclasses.fields(config):
        if "allowed" in item.metadata:
            yield prefix + item.name, item.metadata["allowed"]
        else:
            yield from leaves(getattr(config, item.name), f"{prefix}{item.name}.")


def _is_among(value: object, allowed: Sequence[str | None]) -> bool:
    # Other types, such as arrays, may not even be comparable.
    return (value is None or isinstance(value, str)) and value in allowed
