"""The settings that differ between two configs, and those that a fork cannot change."""

from collections.abc import Mapping
from typing import Any

from grokscope import plugins
from grokscope.config import RunConfig, TaskConfig
from grokscope.config.dotted_settings import flatten_settings, with_settings
from grokscope.errors import GrokscopeError, quoted_value
from grokscope.model import families
from grokscope.tasks import Task

_INITIALIZATION = ("model.init", "model.init_scale", "model.positions", "init_seed", "initialization")
"""The settings that decide the initialization, which a fork cannot change."""
_TOKENS = ("task.name", *(f"task.{name}" for name in plugins.all_task_settings() if name != "data_seed"))
"""The settings that may decide what the tokens stand for."""


def compare_settings(before: RunConfig, after: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ between two configs, as plain values (before, after) by dotted name."""
    values, new_values = flatten_settings(before.to_dict()), flatten_settings(after.to_dict())
    return {name: (value, new_values[name]) for name, value in values.items() if value != new_values[name]}


def require_same_parameters(
    before: RunConfig,
    after: RunConfig,
    changed: Mapping[str, tuple[Any, Any]],
    task_before: Task,
    task_after: Task,
) -> None:
    """Raise GrokscopeError if the origin's parameters do not fit the fork's model, or their meaning changes.

    Args:
        before: The origin's config.
        after: The fork's config.
        changed: The settings that differ, as `compare_settings` returns them.
        task_before: The origin's task.
        task_after: The fork's task.

    Raises:
        GrokscopeError: A setting of the initialization, the parameters' shapes or the tokens differs. The error names
            it and its value in the origin.
    """
    has_same_tokens = _has_same_tokens(before.task, task_before, after.task, task_after)
    shapes = families.build(before.model, task_before).shapes
    for name, (value, new_value) in changed.items():
        reason = ""
        if name in _INITIALIZATION:
            reason = "changes the initialization, which a fork takes from its origin"
        elif name.startswith("model."):
            model = with_settings(before, {name: new_value}).model
            if families.build(model, task_before).shapes != shapes:
                reason = "changes the parameters' shapes"
        elif name in _TOKENS and not has_same_tokens:
            reason = "changes the meaning of the tokens"
        if reason:
            raise GrokscopeError(
                f"{name}: {quoted_value(new_value)} {reason}. Allowed in a fork: {quoted_value(value)}."
            )


def _has_same_tokens(before: TaskConfig, task_before: Task, after: TaskConfig, task_after: Task) -> bool:
    """Return whether the tokens of two tasks stand for the same elements."""
    groups = [task_before.group, task_after.group]
    if None not in groups and len({getattr(group, "name", "") for group in groups}) > 1:
        return False
    return _token_key(before, task_before) == _token_key(after, task_after)


def _token_key(config: TaskConfig, task: Task) -> tuple[Any, ...]:
    """Return what identifies the tokens of a task; tasks of one module name their elements alike."""
    module = plugins.load("tasks", config.name).__module__
    return module, config.form, task.n_elements, task.d_vocab, task.d_vocab_out, task.n_ctx
