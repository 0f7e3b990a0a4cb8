"""State dicts from outside grokscope, checked against a model."""

import hashlib
import os
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from grokscope.errors import GrokscopeError, quoted_name
from grokscope.model.families import Model
from grokscope.store.source import Memory

_BUFFERS = (".attn.mask", ".attn.IGNORE")
"""The endings of the buffers in HookedTransformer's state dicts; they are not parameters."""
_MAX_FAULTS = 200
"""The most faults that a message lists: a model with other shapes has one fault per tensor and step."""


def parameters_digest(parameters: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, shapes, dtypes and bytes of parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(parameters.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        # NumPy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def initial_parameters(model: Model, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return given initial parameters in float32, in the order of the model.

    Raises:
        GrokscopeError: A name, type or shape does not fit the model, or a number is not finite. The message lists all
            faults.
    """
    values = {name: tensor for name, tensor in parameters.items() if not name.endswith(_BUFFERS)}
    faults = _parameter_faults(model, values)
    if not faults:
        faults = [f"{name} is not finite" for name, tensor in values.items() if not tensor.isfinite().all()]
    if faults:
        raise GrokscopeError("These parameters cannot initialize the model:\n" + _listed(faults))
    return {name: values[name].detach().cpu().float().clone() for name in model.shapes}


def memory_from_state_dicts(model: Model, state_dicts: Mapping[int, Mapping[str, Tensor]]) -> Memory:
    """Return the checkpoints of state dicts, each under its step, as a source for a trajectory.

    Tensors are copied to float64 if any of them is float64, and to float32 otherwise.

    Args:
        model: The architecture that names and shapes must match.
        state_dicts: A state dict under TransformerLens names for each step. HookedTransformer's buffers are ignored.

    Raises:
        GrokscopeError: No state dict is given, or a step, name, type or shape is wrong. The message lists all faults.
    """
    faults = [] if state_dicts else ["no state dict is given"]
    checkpoints: dict[int, Mapping[str, Tensor]] = {}
    for step, state_dict in state_dicts.items():
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            faults.append(f"step {step!r}: allowed: a whole number from 0")
            continue
        parameters = {name: tensor for name, tensor in state_dict.items() if not name.endswith(_BUFFERS)}
        faults += [f"step {step}: {fault}" for fault in _parameter_faults(model, parameters)]
        checkpoints[int(step)] = parameters
    if faults:
        raise GrokscopeError(f"A trajectory cannot be built from these state dicts:\n{_listed(faults)}")
    dtypes = {tensor.dtype for checkpoint in checkpoints.values() for tensor in checkpoint.values()}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    return Memory(
        {
            step: {name: checkpoint[name].detach().cpu().to(dtype).clone().numpy() for name in model.shapes}
            for step, checkpoint in checkpoints.items()
        }
    )


def _listed(faults: list[str]) -> str:
    """Return faults as indented lines, the first of them if there are many."""
    n_omitted = len(faults) - _MAX_FAULTS
    omission = [f"and {n_omitted:,} more"] if n_omitted > 0 else []
    return "\n".join(f"  {line}" for line in [*faults[:_MAX_FAULTS], *omission])


def _parameter_faults(model: Model, parameters: Mapping[str, Tensor]) -> list[str]:
    """Return one message for each parameter of a wrong type, and for each name or shape that does not match."""
    faults = {name: fault for name, tensor in parameters.items() if (fault := _tensor_fault(tensor))}
    tensors = {name: tensor for name, tensor in parameters.items() if name not in faults}
    prefix = os.path.commonprefix([str(name) for name in parameters]).rpartition(".")[0] + "."
    if len(prefix) > 1 and {str(name).removeprefix(prefix) for name in parameters} & model.shapes.keys():
        return [f"all names begin with {quoted_name(prefix)}, which a wrapper of the model adds; remove it"]
    # A parameter of a wrong type is not missing too.
    redundant = {f"{name} is missing" for name in faults}
    return [
        *(f"{quoted_name(name)} {fault}" for name, fault in faults.items()),
        *(fault for fault in model.faults(tensors) if fault not in redundant),
    ]


def _tensor_fault(tensor: object) -> str:
    """Return the reason why an object cannot be a parameter, or an empty text if it can be one."""
    if not isinstance(tensor, Tensor):
        return "is not a tensor"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        return "is not a dense tensor"
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"is of type {str(tensor.dtype).removeprefix('torch.')}; allowed: float16, bfloat16, float32, float64"
    return ""
