"""Mixtures: several tasks in one run, written as text such as "addition p=59; division p=59". No torch here."""

import dataclasses
from typing import Any, TypeVar

from grokscope import plugins
from grokscope.config import validation

ALLOWED = (
    "two or more tasks, separated by ';', each a name with its settings, such as 'addition p=59; division p=59 "
    "train_fraction=0.5'"
)
_SHARED = ("train_fraction", "form", "split")
"""The settings that a member takes from the mixture unless it has its own."""
_EXCLUDED = ("mixture", "data", "outliers", "random_labels", "fresh", "name")
_Config = TypeVar("_Config")


def members(task: _Config) -> list[_Config]:
    """Return the task config of each member of a valid mixture.

    Args:
        task: The TaskConfig of the mixture, which provides train_fraction, form and split.
    """
    return [_member(task, entry)[0] for entry in _entries(task.mixture)]  # pyright: ignore[reportAttributeAccessIssue]


def mixture_faults(task: Any) -> list[str]:
    """Return the faults of a mixture's text, one clause each; the members' own settings are checked elsewhere."""
    entries = _entries(task.mixture)
    if len(entries) < 2:
        return [f"{task.mixture[:60]!r}; allowed: {ALLOWED}"]
    return [fault for entry in entries for fault in _member(task, entry)[1]]


def member_names(task: Any) -> list[str]:
    """Return a short name for each member: the task's name, numbered where it repeats."""
    names = [member.name for member in members(task)]
    return [
        name if names.count(name) == 1 else f"{name}_{names[: i + 1].count(name)}" for i, name in enumerate(names)
    ]


def _entries(text: str) -> list[list[str]]:
    return [words for entry in text.split(";") if (words := entry.split())]


def _member(task: Any, entry: list[str]) -> tuple[Any, list[str]]:
    """Return the task config of one member, and its faults."""
    name, *settings = entry
    values: dict[str, Any] = {}
    config = dataclasses.replace(type(task)(), name=name, **{key: getattr(task, key) for key in _SHARED})
    if name == "mixture" or name not in plugins.names("tasks"):
        return config, [f"{name!r} is not a task of a mixture; allowed: {ALLOWED}"]
    faults = []
    for setting in settings:
        key, _, text = setting.partition("=")
        default = getattr(config, key, None)
        if key in _EXCLUDED or default is None or not text:
            faults.append(f"{setting[:60]!r} of {name!r}; allowed: SETTING=VALUE with a setting of the task")
            continue
        try:
            values[key] = text == "true" if text in ("true", "false") else type(default)(text)
        except ValueError:
            faults.append(f"{setting[:60]!r} of {name!r}; allowed: {type(default).__name__} values")
    config = dataclasses.replace(config, **values)
    return config, faults or [f"{fault} in {name!r}" for fault in validation.faults(config)]
