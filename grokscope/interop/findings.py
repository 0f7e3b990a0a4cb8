"""The settings that a checkpoint file contains, which replace those of the caller's config."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from grokscope.config import RunConfig
from grokscope.config.dotted_settings import flatten_settings, with_settings
from grokscope.errors import GrokscopeError
from grokscope.interop.formats import CheckpointFile

_ANY_LENGTH = "log 2"
"""A checkpoint schedule that fits every length. An imported run has no schedule, and its config needs one."""


def apply(
    config: RunConfig,
    file: CheckpointFile,
    architecture: Mapping[str, Any],
    last_step: int,
    given: Collection[str],
    notes: list[str],
) -> tuple[RunConfig, dict[str, Any]]:
    """Return the config with the settings that a file determines, and everything found in the file, by name.

    Args:
        config: The caller's config.
        file: The file.
        architecture: The settings of ModelConfig that the file determines.
        last_step: The last step of the imported run.
        given: The dotted names of the settings that the user gave.
        notes: Receives a sentence for each setting that the file changes.

    Raises:
        GrokscopeError: The file contradicts a given setting, or a setting that it determines is not allowed.
    """
    determined = {f"model.{name}": value for name, value in architecture.items()}
    determined |= {f"optimizer.{name}": value for name, value in file.optimizer.items()}
    before = flatten_settings(config.to_dict())
    for name, value in determined.items():
        if value == before[name]:
            continue
        if name in given:
            raise GrokscopeError(
                f"{name}: {before[name]!r} was given, but the file has {value!r}. Leave the setting out."
            )
        notes.append(f"{name} is {value!r} in the file, not {before[name]!r}.")
    for name, value in file.optimizer.items():
        if name in file.settings and file.settings[name] != value:
            notes.append(f"The file's config says {name} {file.settings[name]}, but its optimizer {value}.")
    determined |= {f"config of the file: {name}": value for name, value in file.settings.items()}
    return _changed(config, architecture, file.optimizer, last_step), determined


def _changed(
    config: RunConfig, architecture: Mapping[str, Any], optimizer: Mapping[str, Any], last_step: int
) -> RunConfig:
    """Return a valid config with the settings of a file, and a schedule that fits its length."""
    # A config has at least one update, so the run of a single untrained checkpoint has n_steps = 1.
    model = with_settings(config.model, architecture)
    changed = dataclasses.replace(config, model=model, n_steps=max(1, last_step))
    if any(message.startswith("checkpoints:") for message in changed.faults()):
        changed = dataclasses.replace(changed, checkpoints=_ANY_LENGTH)
    changed.validate()
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in optimizer.items()}
    complete = dataclasses.replace(changed, optimizer=dataclasses.replace(changed.optimizer, **values))
    # The name of the optimizer is the caller's, and may not fit the file's settings, such as decay with adam.
    return changed if complete.faults() else complete
