"""Settings of nested configs by dotted name, such as "model.mlp.act_fn"."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")


def flatten_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one mapping by dotted name."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        settings |= (
            flatten_settings(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
        )
    return settings


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a config with some settings changed; the values are not checked.

    Args:
        config: A config, or one of its tables.
        settings: The values by dotted name, seen from `config`.
    """
    changes: dict[str, Any] = {}
    of_tables: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        table, _, inner = name.partition(".")
        if inner:
            of_tables.setdefault(table, {})[inner] = value
        else:
            changes[name] = value
    changes |= {table: with_settings(getattr(config, table), inner) for table, inner in of_tables.items()}
    return dataclasses.replace(config, **changes)  # pyright: ignore[reportArgumentType, reportCallIssue]
