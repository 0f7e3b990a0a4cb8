"""Other people's state dicts, checked against a model."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from grokscope.errors import GrokscopeError, quoted_name
from grokscope.model.transformer import Model
from grokscope.store.source import Memory


def tensor_fault(tensor: object) -> str:
    """Say why this is no parameter, if it is none."""
    if not isinstance(tensor, Tensor):
        return "is no tensor"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        return "is no dense tensor"
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"is of type {str(tensor.dtype).removeprefix('torch.')}; allowed: float16, bfloat16, float32, float64"
    return ""


_MOST_FAULTS = 200
"""How many faults of state dicts a message names: a model of other shapes has as many as it has tensors and steps."""


def checked_memory(model: Model, state_dicts: Mapping[int, Mapping[str, Tensor]]) -> Memory:
    """Return the checkpoints that state dicts by step hold; raise one GrokscopeError that names all that is wrong."""
    found = [] if state_dicts else ["there is no state dict at all"]
    checkpoints: dict[int, dict[str, Tensor]] = {}
    for step, state_dict in state_dicts.items():
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            found.append(f"step {step!r}: allowed: a whole number from 0")
            continue
        kept = {
            name: tensor for name, tensor in state_dict.items() if not name.endswith((".attn.mask", ".attn.IGNORE"))
        }
        alien = {name: what for name, tensor in kept.items() if (what := tensor_fault(tensor))}
        found += [f"step {step}: {quoted_name(name)} {what}" for name, what in alien.items()]
        tensors = {name: tensor for name, tensor in kept.items() if name not in alien}
        missing = {f"{name} is missing" for name in alien}
        found += [f"step {step}: {fault}" for fault in model.faults(tensors) if fault not in missing]
        checkpoints[int(step)] = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    if found:
        more = [f"and {len(found) - _MOST_FAULTS:,} more"] if len(found) > _MOST_FAULTS else []
        said = "\n".join(f"  {one}" for one in [*found[:_MOST_FAULTS], *more])
        raise GrokscopeError(f"These state dicts make no trajectory:\n{said}")
    dtypes = {tensor.dtype for checkpoint in checkpoints.values() for tensor in checkpoint.values()}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    return Memory(
        {
            step: {name: checkpoint[name].to(dtype).clone().numpy() for name in model.shapes}
            for step, checkpoint in checkpoints.items()
        }
    )
