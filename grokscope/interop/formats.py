"""Formats of other programs' checkpoint files: where the state dicts, the steps and the rest are stored."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from einops import rearrange
from torch import Tensor

from grokscope.config.validation import is_number
from grokscope.errors import GrokscopeError, quoted_value
from grokscope.interop import safe_load, step_readings

_STATE_DICT_KEYS = ("model", "model_state_dict", "state_dict", "parameters")
_LIST_KEYS = ("state_dicts", "checkpoints")
_CONFIG_KEYS = ("config", "cfg", "args", "hparams")
_LOSS_KEYS = ("train_loss", "test_loss", "val_loss", "train_losses", "test_losses", "val_losses")
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What parallel, compiled and wrapped models add to every name."""
_LARGEST_CONFIG = 2**20
_LONGEST = 200
"""The most characters of a value in a config."""
_NAME = re.compile(
    r"embed\.W_E|pos_embed\.W_pos|unembed\.(W|b)_U|ln_final\.[wb]|blocks\.\d+\."
    r"(ln[12]\.[wb]|attn\.((W|b)_[QKVO]|mask|IGNORE)|mlp\.(W|b)_(in|out))"
)
"""TransformerLens' names, which Nanda et al. 2023 share."""


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
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """The values of a HookedTransformerConfig in the file or beside it; empty without one."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The numbers and texts of another config in the file."""
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    """The hyperparameters of torch's optimizer in the file."""
    losses: Mapping[str, Any] = field(default_factory=dict)
    """The losses that the file contains, by key."""


def parse_content(content: Any, path: Path, with_steps: bool = True) -> CheckpointFile:
    """Return the state dicts in the content of a file, and what is stored beside them.

    The content is one of:

    - a state dict;
    - a dict with a state dict as "model", "model_state_dict", "state_dict" or "parameters", and optionally its step
      as "step", "global_step", "iteration" or "epoch";
    - a dict with a list of state dicts as "state_dicts" or "checkpoints", and optionally their "steps",
      "global_steps", "iterations", "epochs" or "checkpoint_epochs".

    "train_indices" contains the training examples, "config" the architecture or other settings, "optimizer" torch's
    optimizer, and "train_loss", "test_loss", "train_losses" and "test_losses" the losses.

    Args:
        content: What `safe_load.read` returned.
        path: The file, for messages, and for a config.json beside it.
        with_steps: Whether to read the steps; False if the caller has them.

    Raises:
        GrokscopeError: The content has another form, or its steps are not one whole number per state dict.
    """
    if not isinstance(content, Mapping):
        raise GrokscopeError(
            f"{path} contains a {type(content).__name__}; allowed: a state dict, or a dict with state dicts."
        )
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return CheckpointFile(path, [content], [step_readings.Reading()], architecture=_config_beside(path))
    listed = next((content[key] for key in _LIST_KEYS if key in content), None)
    if listed is None:
        key = next((key for key in _STATE_DICT_KEYS if key in content), None)
        if key is None or not isinstance(content[key], Mapping):
            raise GrokscopeError(
                f"{path} contains {quoted_value(list(content)[:8])}, and no state dict. Allowed: a state dict, "
                'alone or as "model", "state_dict" or "parameters"; or a list of them as "state_dicts" or '
                '"checkpoints".'
            )
        state_dicts = [content[key]]
    elif not isinstance(listed, list) or not listed or not all(isinstance(item, Mapping) for item in listed):
        raise GrokscopeError(f"{path}: its checkpoints are not a list of state dicts.")
    else:
        state_dicts = listed
    config: Any = next((content[key] for key in _CONFIG_KEYS if key in content), None)
    values = config.values if isinstance(config, safe_load.Inert) else config
    values = _plain(values) if isinstance(values, Mapping) else {}
    is_hooked = isinstance(config, safe_load.Inert) or _is_hooked(values)
    return CheckpointFile(
        path,
        state_dicts,
        step_readings.readings(content, len(state_dicts), listed is not None, path) if with_steps else [],
        content.get("train_indices"),
        values if is_hooked else _config_beside(path),
        {} if is_hooked else values,
        _optimizer_settings(content),
        {key: content[key] for key in _LOSS_KEYS if key in content},
    )


def named(state_dict: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a state dict under texts, without a prefix that all names share, such as "module."."""
    parameters = {name if isinstance(name, str) else repr(name): value for name, value in state_dict.items()}
    while prefix := next(
        (prefix for prefix in _PREFIXES if parameters and all(name.startswith(prefix) for name in parameters)), ""
    ):
        parameters = {name.removeprefix(prefix): value for name, value in parameters.items()}
    return parameters


def extra_tensors(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the names that TransformerLens does not have, each with the parameter that it copies, or ""."""
    own = {name: value for name, value in parameters.items() if _NAME.fullmatch(name) and isinstance(value, Tensor)}
    return {
        name: next((original for original, tensor in own.items() if _is_copy(value, tensor)), "")
        for name, value in parameters.items()
        if not _NAME.fullmatch(name)
    }


def to_transformer_lens(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in TransformerLens' names and shapes, also if Nanda et al. 2023 saved them.

    A W_O with two axes marks their format: W_E, W_in, W_out, W_Q, W_K and W_V have d_model as the last axis, and W_O
    is (d_model, heads · d_head). A parameter of any other shape is returned unchanged, so that the trajectory names
    it in its error.
    """
    parameters = dict(parameters)
    has_flat_heads = any(
        isinstance(value, Tensor) and re.fullmatch(r"blocks\.\d+\.attn\.W_O", name) and value.ndim == 2
        for name, value in parameters.items()
    )
    if not has_flat_heads:
        return parameters
    for name, value in list(parameters.items()):
        leaf = name.rpartition(".")[2]
        if not isinstance(value, Tensor) or not value.numel():
            continue
        if leaf in ("W_E", "W_in", "W_out") and value.ndim == 2:
            parameters[name] = value.T
        elif leaf in ("W_Q", "W_K", "W_V") and value.ndim == 3:
            parameters[name] = value.mT
        elif leaf == "W_O" and value.ndim == 2:
            keys = parameters.get(name.replace("W_O", "W_K"))
            n_heads = keys.shape[0] if isinstance(keys, Tensor) and keys.ndim == 3 else 0
            if n_heads and value.shape[1] % n_heads == 0:
                parameters[name] = rearrange(value, "d_model (head d_head) -> head d_head d_model", head=n_heads)
    return parameters


def _is_copy(value: Any, original: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.dtype == original.dtype
        and (
            (value.shape == original.shape and bool((value == original).all()))
            or (value.ndim == 2 and value.T.shape == original.shape and bool((original == value.T).all()))
        )
    )


def _plain(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the numbers and short texts of a config."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(name, str)
        and isinstance(value, str | int | float | bool | None)
        and len(str(value)) <= _LONGEST
    }


def _is_hooked(values: Mapping[str, Any]) -> bool:
    """Return whether a config has the fields of a HookedTransformerConfig."""
    return {"n_layers", "d_model", "d_head", "n_ctx", "act_fn"} <= values.keys()


def _config_beside(path: Path) -> Mapping[str, Any]:
    """Return the HookedTransformerConfig in the file config.json of the same folder; empty without one."""
    beside = path.parent / "config.json"
    try:
        if not beside.is_file() or beside.stat().st_size > _LARGEST_CONFIG:
            return {}
        values = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    values = _plain(values) if isinstance(values, Mapping) else {}
    return values if _is_hooked(values) else {}


def _optimizer_settings(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the hyperparameters of the only group of torch's optimizer; empty for several groups."""
    optimizer = next((content[key] for key in step_readings.OPTIMIZER_KEYS if key in content), None)
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
