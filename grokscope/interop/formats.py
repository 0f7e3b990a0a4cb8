"""Formats of other programs' checkpoint files: where the state dicts, steps and training examples are stored."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from grokscope.errors import GrokscopeError, quoted_value

_STATE_DICT_KEYS = ("model", "model_state_dict", "state_dict", "parameters")
_LIST_KEYS = ("state_dicts", "checkpoints")
_STEP_KEYS = ("step", "epoch")
_STEPS_KEYS = ("steps", "epochs", "checkpoint_epochs")


@dataclass(frozen=True)
class CheckpointFile:
    """The content of one checkpoint file."""

    state_dicts: list[tuple[int | None, Mapping[Any, Any]]]
    """(step, state dict) in the order of the file; the step is None if the file does not contain it."""
    train_indices: Any = None
    """The indices of the training examples; None if the file does not contain them."""


def parse_content(content: Any, path: Path, with_steps: bool = True) -> CheckpointFile:
    """Return the state dicts, steps and training examples in the content of a file.

    The content is one of:

    - a state dict;
    - a dict with a state dict as "model", "model_state_dict", "state_dict" or "parameters", and optionally its "step"
      or "epoch";
    - a dict with a list of state dicts as "state_dicts" or "checkpoints", and optionally their "steps", "epochs" or
      "checkpoint_epochs".

    Epoch e is step e + 1, because epochs count from 0 and are saved after their update (Nanda et al. 2023;
    TransformerLens' Grokking_Demo). "train_indices" contains the training examples.

    Args:
        content: What `safe_load.read` returned.
        path: The file, for messages.
        with_steps: Whether to read the steps; False if the caller has them.

    Raises:
        GrokscopeError: The content has another form, or its steps are not one whole number per state dict.
    """
    if not isinstance(content, Mapping):
        raise GrokscopeError(
            f"{path} contains a {type(content).__name__}; allowed: a state dict, or a dict with state dicts."
        )
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return CheckpointFile([(None, content)])
    train_indices = content.get("train_indices")
    listed = next((content[key] for key in _LIST_KEYS if key in content), None)
    if listed is not None:
        if not isinstance(listed, list) or not listed or not all(isinstance(item, Mapping) for item in listed):
            raise GrokscopeError(f"{path}: its checkpoints are not a list of state dicts.")
        return CheckpointFile(_with_steps(content, _STEPS_KEYS if with_steps else (), listed, path), train_indices)
    key = next((key for key in _STATE_DICT_KEYS if key in content), None)
    if key is None or not isinstance(content[key], Mapping):
        raise GrokscopeError(
            f"{path} contains {quoted_value(list(content)[:8])}, and no state dict. Allowed: a state dict, "
            'alone or as "model", "state_dict" or "parameters"; or a list of them as "state_dicts" or "checkpoints".'
        )
    return CheckpointFile(_with_steps(content, _STEP_KEYS if with_steps else (), [content[key]], path), train_indices)


def _with_steps(
    content: Mapping[Any, Any], keys: tuple[str, ...], state_dicts: list[Any], path: Path
) -> list[tuple[int | None, Mapping[Any, Any]]]:
    """Return the state dicts with the steps under the first key that the content has, and None without such a key."""
    key = next((key for key in keys if key in content), None)
    if key is None:
        return [(None, state_dict) for state_dict in state_dicts]
    steps: Any = content[key]
    if isinstance(steps, Tensor) and steps.numel() == len(state_dicts):
        steps = steps.tolist()
    if key in _STEP_KEYS:
        steps = [steps]
    if (
        not isinstance(steps, list | tuple)
        or len(steps) != len(state_dicts)
        or not all(type(step) is int and 0 <= step < 2**62 for step in steps)
    ):
        raise GrokscopeError(
            f"{path}: {key!r} does not contain a whole number from 0 for each of its {len(state_dicts)} state dicts. "
            "Name the steps with --steps."
        )
    first = 1 if "epoch" in key else 0
    return [(first + step, state_dict) for step, state_dict in zip(steps, state_dicts, strict=True)]


def to_transformer_lens(state_dict: Mapping[Any, Any]) -> dict[str, Any]:
    """Return parameters in TransformerLens' names and shapes, also if Nanda et al. 2023 saved them.

    A W_O with two axes marks their format: W_E, W_in, W_out, W_Q, W_K and W_V have d_model as the last axis, W_O is
    (d_model, heads · d_head), and only the MLP has biases. The missing biases become zeros. A parameter of any other
    shape is returned unchanged, so that the trajectory names it in its error.
    """
    parameters = {name if isinstance(name, str) else repr(name): value for name, value in state_dict.items()}
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
            parameters[name.replace("W_", "b_")] = torch.zeros(value.shape[:2], dtype=value.dtype)
        elif leaf == "W_O" and value.ndim == 2:
            keys = parameters.get(name.replace("W_O", "W_K"))
            n_heads = keys.shape[0] if isinstance(keys, Tensor) and keys.ndim == 3 else 0
            if n_heads and value.shape[1] % n_heads == 0:
                parameters[name] = rearrange(value, "d_model (head d_head) -> head d_head d_model", head=n_heads)
            parameters[name.replace("W_O", "b_O")] = torch.zeros(value.shape[:1], dtype=value.dtype)
        elif name == "unembed.W_U" and value.ndim == 2:
            parameters["unembed.b_U"] = torch.zeros(value.shape[1:], dtype=value.dtype)
    return parameters
