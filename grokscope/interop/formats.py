"""Layouts of checkpoints in files of others: where the state dicts lie, at which steps, and what is transposed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from grokscope.errors import GrokscopeError, quoted_value


@dataclass(frozen=True)
class Found:
    """What one file holds: (step, state dict) in its own order, and perhaps which examples were trained on."""

    state_dicts: list[tuple[int | None, Mapping[Any, Any]]]
    train: Any = None


def checkpoints(content: Any, path: Path, with_steps: bool = True) -> Found:
    """Return the state dicts in what `read` gave, with their steps as far as it says them, and the training examples.

    It is one state dict; a dict that holds one as "model", "model_state_dict", "state_dict" or "parameters", perhaps
    with its "step" or "epoch"; or a dict with a list of them as "state_dicts" or "checkpoints", and beside it
    "steps", or "epochs" or "checkpoint_epochs". An epoch counts from 0 and is saved after its update (Nanda et al.
    2023; TransformerLens' Grokking_Demo), so that epoch e is step e + 1. What is said of steps is left aside if
    `with_steps` is false. Raise GrokscopeError for anything else.
    """
    if not isinstance(content, Mapping):
        raise GrokscopeError(f"{path} holds a {type(content).__name__}; allowed: a state dict, or a dict with some.")
    if content and all(isinstance(one, Tensor) for one in content.values()):
        return Found([(None, content)])
    train = content.get("train_indices")
    listed = next((content[key] for key in ("state_dicts", "checkpoints") if key in content), None)
    if listed is not None:
        if not isinstance(listed, list) or not listed or not all(isinstance(one, Mapping) for one in listed):
            raise GrokscopeError(f"{path} holds checkpoints that are no list of state dicts.")
        keys = ("steps", "epochs", "checkpoint_epochs") if with_steps else ()
        return Found(_with_steps(content, keys, listed, path), train)
    inner = next((key for key in ("model", "model_state_dict", "state_dict", "parameters") if key in content), None)
    if inner is None or not isinstance(content[inner], Mapping):
        raise GrokscopeError(
            f"{path} holds {quoted_value(list(content)[:8])} and no state dict that is found; allowed: a state dict, or one "
            f'as "model", "state_dict" or "parameters", or a list of them as "state_dicts" or "checkpoints".'
        )
    keys = ("step", "epoch") if with_steps else ()
    return Found(_with_steps(content, keys, [content[inner]], path), train)


def _with_steps(
    content: Mapping[Any, Any], keys: tuple[str, ...], state_dicts: list[Any], path: Path
) -> list[tuple[int | None, Mapping[Any, Any]]]:
    """Return the state dicts with the steps under the first of some keys that is there, None if there is none."""
    key = next((key for key in keys if key in content), None)
    if key is None:
        return [(None, one) for one in state_dicts]
    said: Any = content[key]
    if isinstance(said, Tensor) and said.numel() == len(state_dicts):
        said = said.tolist()
    steps: Any = [said] if key in ("step", "epoch") else said
    if (
        not isinstance(steps, list | tuple)
        or len(steps) != len(state_dicts)
        or not all(type(one) is int and 0 <= one < 2**62 for one in steps)
    ):
        raise GrokscopeError(
            f"{path} holds {len(state_dicts)} state dicts, and as {key!r} not as many whole numbers from 0; give "
            f"--steps."
        )
    return [(step + ("epoch" in key), one) for step, one in zip(steps, state_dicts, strict=True)]


def named(state_dict: Mapping[Any, Any]) -> dict[str, Any]:
    """Return parameters under TransformerLens' names and shapes, also those that Nanda et al. 2023 saved.

    Theirs have d_model as the last axis of what reads the residual stream, W_O as (d_model, heads · d_head), and no
    biases but the MLP's; those are zeros here. What is of another shape stays as it is, to be named as wrong.
    """
    found = {name if isinstance(name, str) else repr(name): one for name, one in state_dict.items()}
    heads = {name: one for name, one in found.items() if re.fullmatch(r"blocks\.\d+\.attn\.W_[QKVO]", name)}
    is_theirs = any(isinstance(one, Tensor) and name.endswith("W_O") and one.ndim == 2 for name, one in heads.items())
    if not is_theirs:
        return found
    for name, one in list(found.items()):
        leaf = name.rpartition(".")[2]
        if not isinstance(one, Tensor) or not one.numel():
            continue
        if leaf in ("W_E", "W_in", "W_out") and one.ndim == 2:
            found[name] = one.T
        elif leaf in ("W_Q", "W_K", "W_V") and one.ndim == 3:
            found[name] = one.mT
            found[name.replace("W_", "b_")] = torch.zeros(one.shape[:2], dtype=one.dtype)
        elif leaf == "W_O" and one.ndim == 2:
            keys = found.get(name.replace("W_O", "W_K"))
            n_heads = keys.shape[0] if isinstance(keys, Tensor) and keys.ndim == 3 else 0
            if n_heads and one.shape[1] % n_heads == 0:
                found[name] = rearrange(one, "d_model (head d_head) -> head d_head d_model", head=n_heads)
            found[name.replace("W_O", "b_O")] = torch.zeros(one.shape[:1], dtype=one.dtype)
        elif name == "unembed.W_U" and one.ndim == 2:
            found["unembed.b_U"] = torch.zeros(one.shape[1:], dtype=one.dtype)
    return found
