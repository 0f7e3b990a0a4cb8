"""Formats of other programs' checkpoint files: where the state dicts, the steps and the rest are stored."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from grokscope.config.validation import is_number
from grokscope.errors import GrokscopeError, quoted_value
from grokscope.interop import file_configs, step_readings

_STATE_DICT_KEYS = (
    "model",
    "model_state_dict",
    "state_dict",
    "parameters",
    "model_state",
    "params",
    "weights",
    "net",
)
_LIST_KEYS = ("state_dicts", "checkpoints", "model_checkpoints", "models", "nets", "net", "params")
_CONFIG_KEYS = (
    "config",
    "cfg",
    "args",
    "hparams",
    "hyper_parameters",
    "model_config",
    "model_args",
    "hyperparameters",
)
_LOSS_KEYS = ("train_loss", "test_loss", "val_loss", "train_losses", "test_losses", "val_losses")
_NOT_A_MODEL = re.compile(r"optim|sched|scaler|ema|swa|grad|rng|loss|acc|best|init|momentum", re.IGNORECASE)
"""The keys under which a dict of tensors is not the model at the step of the file."""
_NUMBERED_KEY = re.compile(r"(?:(step|iteration|iter|epoch)s?[ _-]?)?(\d{1,10})", re.IGNORECASE)


@dataclass(frozen=True)
class CheckpointFile:
    """The content of one checkpoint file."""

    path: Path
    state_dicts: list[Mapping[Any, Any]]
    """The state dicts in the order of the file."""
    readings: list[step_readings.Reading] = field(default_factory=list)
    """What the file tells about the step of each state dict; empty if it was not read."""
    train_indices: Any = None
    """The indices of the training examples; None if the file does not contain them."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The numbers and texts of a config in the file or beside it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The properties of the network and its training that the config names, see `file_configs.properties`."""
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    """The hyperparameters of torch's optimizer in the file."""
    losses: Mapping[str, Any] = field(default_factory=dict)
    """The losses that the file contains, by key."""


def parse_content(content: Any, path: Path, with_steps: bool = True) -> CheckpointFile:
    """Return the state dicts in the content of a file, and what is stored beside them.

    The content is one of:

    - a state dict, alone or with numbers such as its step;
    - a dict with a state dict as "model", "model_state_dict", "state_dict" or any other key, and optionally its step
      as "step", "global_step", "iteration" or "epoch";
    - a dict with a list of state dicts as "state_dicts", "checkpoints" or any other key, and optionally their
      "steps", "global_steps", "iterations", "epochs" or "checkpoint_epochs";
    - a dict of state dicts under their steps, such as 100, "step_100" or "epoch_100".

    "train_indices" contains the training examples, "config" the architecture or other settings, "optimizer" torch's
    optimizer, and "train_loss", "test_loss", "train_losses" and "test_losses" the losses.

    Args:
        content: What `Source.read` returned.
        path: The file, for messages, and for a config beside it.
        with_steps: Whether to read the steps; False if the caller has them.

    Raises:
        GrokscopeError: The content has another form, or its steps are not one whole number per state dict.
    """
    if not isinstance(content, Mapping):
        raise GrokscopeError(
            f"{path} contains a {type(content).__name__}; allowed: a state dict, or a dict with state dicts."
        )
    state_dicts, is_list, keys = _state_dicts(content, path)
    readings: list[step_readings.Reading] = []
    if with_steps:
        readings = (
            _readings_of_keys(keys, path)
            if keys
            else step_readings.readings(content, len(state_dicts), is_list, path)
        )
    settings = next((values for key in _CONFIG_KEYS if (values := file_configs.plain(content.get(key)))), None)
    settings = file_configs.beside(path) if settings is None else settings
    return CheckpointFile(
        path,
        state_dicts,
        readings,
        content.get("train_indices"),
        settings,
        {**(settings if _is_hooked(settings) else {}), **file_configs.properties(settings)},
        _optimizer_settings(content),
        {key: content[key] for key in _LOSS_KEYS if key in content},
    )


def _state_dicts(content: Mapping[Any, Any], path: Path) -> tuple[list[Mapping[Any, Any]], bool, list[str]]:
    """Return the state dicts in a dict, whether they are a list, and the keys that tell their steps, if any do."""
    if content and all(isinstance(value, Tensor) and value.numel() != 1 for value in content.values()):
        return [content], False, []
    for key in _LIST_KEYS:
        if key in content and isinstance(content[key], list | tuple):
            listed = list(content[key])
            if not listed or not all(isinstance(item, Mapping) for item in listed):
                raise GrokscopeError(f"{path}: its checkpoints are not a list of state dicts.")
            return listed, True, []
    key = next((key for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), None)
    if key is not None and not _by_step(content[key]):
        inner = content[key]
        return [_inner_state_dict(inner)], False, []
    for value in (content, *content.values()):
        if isinstance(value, Mapping) and (keys := _by_step(value)):
            return [value[key] for key in keys], True, [str(key) for key in keys]
    candidates = {str(key): value for key, value in content.items() if _is_list_of_models(value)}
    singles = {
        str(key): value for key, value in content.items() if _is_model(value) and not _NOT_A_MODEL.search(str(key))
    }
    if len(candidates) + len(singles) > 1:
        raise GrokscopeError(
            f"{path} contains several state dicts, as {quoted_value([*candidates, *singles])}. Save the one to "
            "import in a file of its own."
        )
    if candidates:
        return list(next(iter(candidates.values()))), True, []
    if singles:
        return [next(iter(singles.values()))], False, []
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    own = {key: value for key, value in tensors.items() if not _is_side_value(str(key))}
    if _is_model(own):
        return [own], False, []
    raise GrokscopeError(
        f"{path} contains {quoted_value(list(content)[:8])}, and no state dict. Allowed: a state dict, "
        'alone or as "model", "state_dict" or "parameters"; or a list of them as "state_dicts" or '
        '"checkpoints".'
    )


def _inner_state_dict(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return a state dict, or the one inside a dict that wraps it, such as {"model": {"state_dict": …}}."""
    inner = [value[key] for key in _STATE_DICT_KEYS if isinstance(value.get(key), Mapping)]
    return inner[0] if inner and not any(isinstance(item, Tensor) for item in value.values()) else value


def _by_step(value: Mapping[Any, Any]) -> list[Any]:
    """Return the keys of a dict of models whose keys are steps, in the order of the dict; empty for another dict."""
    are_steps = all(
        (type(key) is int and key >= 0) or (isinstance(key, str) and _NUMBERED_KEY.fullmatch(key)) for key in value
    )
    return list(value) if value and are_steps and all(_is_model(item) for item in value.values()) else []


def _readings_of_keys(keys: list[str], path: Path) -> list[step_readings.Reading]:
    """Return the steps in the keys of state dicts."""
    readings = []
    for key in keys:
        match = _NUMBERED_KEY.fullmatch(key)
        number = int(match[2]) if match else step_readings.LARGEST_STEP + 1
        if match is None or number > step_readings.LARGEST_STEP:
            raise GrokscopeError(f"{path}: the key {quoted_value(key)} is not a step. Name the steps with --steps.")
        readings.append(step_readings.Reading((match[1] or "step").lower(), number))
    return readings


def _is_model(value: Any) -> bool:
    """Return whether a value is a dict of tensors, with at least one matrix, under texts."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
        and any(item.ndim >= 2 and item.is_floating_point() for item in value.values())
    )


def _is_list_of_models(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_model, value))


def _is_side_value(key: str) -> bool:
    return key in (*_LOSS_KEYS, "train_indices", "test_indices") or step_readings.is_step_key(key)


def _is_hooked(values: Mapping[str, Any]) -> bool:
    """Return whether a config has the fields of a HookedTransformerConfig."""
    return {"n_layers", "d_model", "d_head", "n_ctx", "act_fn"} <= values.keys()


def _optimizer_settings(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the hyperparameters of the only group of torch's optimizer; empty for several groups."""
    optimizer = step_readings.optimizer_of(content)
    groups = optimizer.get("param_groups") if isinstance(optimizer, Mapping) else None
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], Mapping):
        return {}
    # A schedule changes "lr"; "initial_lr" is the value that it started from.
    values: dict[str, Any] = {"lr": groups[0].get("initial_lr", groups[0].get("lr"))}
    values["weight_decay"] = groups[0].get("weight_decay")
    betas = groups[0].get("betas")
    settings: dict[str, Any] = {name: float(value) for name, value in values.items() if is_number(value)}
    if isinstance(betas, list | tuple) and len(betas) == 2 and all(map(is_number, betas)):
        settings["betas"] = list(map(float, betas))
    return settings
