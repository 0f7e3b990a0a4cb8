"""Settings without effect: those that the other settings leave unused.

A config contains a value for every setting, so it cannot tell which ones a user gave. The command line, TOML files
and sweeps know the given names, and refuse given settings without effect. A config built in Python counts as giving
the settings that differ from their defaults; training it warns.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from grokscope import plugins
from grokscope.config import model_config, part_decay, stop_rule, task_size, validation
from grokscope.errors import quoted_value


class UnusedSettingWarning(UserWarning):
    """A setting of a config differs from its default and has no effect."""


_DOMAINS = {
    "p": "a modular task",
    "group": "a task of a group",
    "form": "a task of an operation",
    "n_examples": "a task whose examples are drawn",
    "data_seed": "a task whose examples are drawn",
}
_FILTERS = {
    "filter_alpha": ("grokfast_ema",),
    "filter_lambda": ("grokfast_ema", "grokfast_ma"),
    "filter_window": ("grokfast_ma",),
}


def unused_settings(config: Any, names: Collection[str], invalid: Collection[str] = ()) -> dict[str, str]:
    """Return a fault for each setting that has no effect, by dotted name.

    Args:
        config: The RunConfig, checked or not.
        names: The dotted names of the settings to check. Other settings may have no effect.
        invalid: The dotted names of invalid settings, and of invalid tables. Checks that need them are skipped.
    """
    values, faults = dict(_values(config)), {}
    for name, reason in _reasons(config, set(names), set(invalid)):
        if name in names and name in values:
            faults[name] = f"{name}: {quoted_value(values[name])} has no effect, because {reason}"
    return faults


def changed_settings(config: Any) -> set[str]:
    """Return the dotted names of the settings that differ from their defaults."""
    defaults = dict(_values(type(config)()))
    return {name for name, value in _values(config) if value != defaults.get(name)}


def changed_in(values: Mapping[str, Any], config: Any) -> set[str]:
    """Return the dotted names of the settings in nested plain values that differ from their defaults in the config.

    A file may list every setting, so a setting at its default does not count as given.
    """
    return changed_settings(config) & set(_named(values))


def _named(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _named(value, f"{prefix}{key}.")


def _reasons(config: Any, names: set[str], invalid: set[str]) -> Iterator[tuple[str, str]]:
    """Yield each unused setting and the reason."""
    if "task" not in invalid and "task.name" not in invalid:
        yield from _task_reasons(config.task)
    if invalid.isdisjoint({"task", "task.train_set"}) and config.task.train_set:
        reason = "task.train_set names the training set; allowed: without it"
        yield "task.train_fraction", reason
        yield "task.split", reason
        if not (config.task.outliers or config.task.random_labels):
            yield "split_seed", reason
    if "initialization" not in invalid and config.initialization:
        for setting in ("model.init", "model.init_scale", "init_seed"):
            yield setting, "the initial parameters were read from a file; allowed: without --init-from"
    if not {"model", "model.family", "model.attn_only"} & invalid:
        yield from model_config.unused_settings(config.model)
    if "optimizer" not in invalid:
        yield from _optimizer_reasons(config, invalid)
    if invalid.isdisjoint({"stop", "n_steps"}) and config.stop:
        shortest = min(condition.duration for condition in stop_rule.parse(config.stop))
        if shortest > config.n_steps:
            yield "stop", f"the run ends before a condition can be met; allowed: durations up to {config.n_steps}"
    if config.batch_size is None:
        yield "batch_share", "batch_size is none; allowed: with batch_size"
    # With a smaller share, the batch is the smaller of two limits, as in Power et al. 2022.
    elif not {"task", "task.fresh"} & invalid and config.task.fresh:
        yield "batch_share", "task.fresh draws new examples for each batch; allowed: with a fixed training set"
    elif "batch_size" in names and not {"batch_size", "batch_share"} & invalid and config.batch_share == 1:
        n_train = _n_train(config, invalid)
        if n_train and config.batch_size > n_train:
            yield "batch_size", f"the training set has {n_train:,} equations; allowed: up to {n_train}, or none"


def _task_reasons(task: Any) -> Iterator[tuple[str, str]]:
    """Yield the settings that determine other tasks."""
    used = plugins.task_settings(task.name)
    # The settings that another package's task uses are unknown.
    for setting in [name for name in plugins.all_task_settings() if used and name not in (*used, "table")]:
        names = [
            repr(name) for family in plugins.TASK_FAMILIES if setting in family.settings for name in family.names
        ]
        allowed = _DOMAINS.get(setting) or " or ".join(names)
        yield f"task.{setting}", f"the task is {task.name!r}; allowed: with {allowed}"


def _optimizer_reasons(config: Any, invalid: set[str]) -> Iterator[tuple[str, str]]:
    optimizer = config.optimizer
    if "optimizer.gradient_filter" not in invalid:
        chosen = "none" if optimizer.gradient_filter is None else repr(optimizer.gradient_filter)
        for setting, filters in _FILTERS.items():
            if optimizer.gradient_filter not in filters:
                allowed = " or ".join(map(repr, filters))
                yield f"optimizer.{setting}", f"optimizer.gradient_filter is {chosen}; allowed: with {allowed}"
    if "optimizer.name" not in invalid and optimizer.name == "sgd":
        yield "optimizer.betas", "the optimizer is 'sgd'; allowed: with 'adam', 'adamw' or 'muon'"
    if "optimizer.name" not in invalid and optimizer.name != "muon":
        yield "optimizer.muon_momentum", f"the optimizer is {optimizer.name!r}; allowed: with 'muon'"
    decay_settings = {f"optimizer.{name}" for name in ("name", "weight_decay", "decay_by_part", "decay_centre")}
    if invalid.isdisjoint(decay_settings) and optimizer.name == "adamw" and optimizer.decay_centre != "zero":
        largest = max(optimizer.weight_decay, part_decay.largest_decay(optimizer.decay_by_part))
        if not largest:
            yield "optimizer.decay_centre", "optimizer.weight_decay is 0; allowed: with a weight_decay above 0"
    if invalid.isdisjoint({"optimizer.warmup_steps", "n_steps"}):
        if optimizer.warmup_steps > config.n_steps:
            reason = f"the run ends before the warm-up does; allowed: 0 to n_steps = {config.n_steps}"
            yield "optimizer.warmup_steps", reason
        if optimizer.warmup_steps >= config.n_steps and optimizer.schedule != "constant":
            reason = f"the run ends with the warm-up; allowed: with n_steps above {optimizer.warmup_steps}"
            yield "optimizer.schedule", reason


def _n_train(config: Any, invalid: set[str]) -> int:
    """Return the number of training equations, or 0 where only building the task can count them."""
    if {"task", "task.name", "task.train_fraction", "task.train_set"} & invalid:
        return 0
    names = plugins.task_settings(config.task.name)
    if not names or {f"task.{name}" for name in names} & invalid:
        return 0
    return task_size.size_of_train_set(
        config.task.train_set, config.task.train_fraction, task_size.n_equations(config.task)
    )


def _values(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of every setting; an invalid table has no settings."""
    for name, _ in validation.leaves(type(config)()):
        *tables, key = name.split(".")
        part = config
        for table in tables:
            part = getattr(part, table, None)
        if hasattr(part, key):
            value = getattr(part, key)
            yield name, tuple(value) if isinstance(value, list) else value
