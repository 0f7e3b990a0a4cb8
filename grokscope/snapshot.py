"""Snapshot: a loaded checkpoint; and where a trajectory's checkpoints come from."""

import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import display
from grokscope import model as models
from grokscope.errors import GrokscopeError
from grokscope.fields import plainly

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


_MOST_FAULTS = 200
"""How many faults of state dicts a message names: a model of other shapes has as many as it has tensors and steps."""


@runtime_checkable
class Source(Protocol):
    """Where a trajectory's checkpoints come from: a `Store` on disk, or memory."""

    steps: Int[np.ndarray, " steps"]

    def read(self, names: Iterable[str], steps: Iterable[int]) -> dict[str, np.ndarray]:
        """Return each named parameter over the given steps, stacked along a leading step axis."""
        ...

    def checksums(self, step: int) -> dict[str, int]:
        """Return the CRC-32 of the bytes of each parameter of a checkpoint."""
        ...


class Memory:
    """Checkpoints that are already loaded."""

    def __init__(self, checkpoints: Mapping[int, Mapping[str, Tensor]]):
        self._checkpoints = checkpoints
        self.steps = np.array(sorted(checkpoints), np.int64)

    def read(self, names: Iterable[str], steps: Iterable[int]) -> dict[str, np.ndarray]:
        """Return each named parameter over the given steps, as `Source` says."""
        steps = list(steps)
        return {name: np.stack([self._checkpoints[step][name].numpy() for step in steps]) for name in names}

    def checksums(self, step: int) -> dict[str, int]:
        """Return the CRC-32 of each parameter of a checkpoint, as `Source` says."""
        checkpoint = self._checkpoints[step]
        return {name: zlib.crc32(tensor.numpy().tobytes()) for name, tensor in checkpoint.items()}


def in_memory(model: models.Model, state_dicts: Mapping[int, Mapping[str, Tensor]]) -> Memory:
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
        alien = {name: what for name, tensor in kept.items() if (what := models.alien(tensor))}
        found += [f"step {step}: {plainly(name)} {what}" for name, what in alien.items()]
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
            step: {name: checkpoint[name].to(dtype).clone() for name in model.shapes}
            for step, checkpoint in checkpoints.items()
        }
    )


class Snapshot:
    """A loaded checkpoint: `step`, `parameters` under TransformerLens' names, and `model` to do anything with."""

    def __init__(self, step: int, parameters: dict[str, Tensor], model: models.Model):
        self.step = step
        self.parameters = parameters
        self._model = model

    @cached_property
    def model(self) -> "HookedTransformer":
        """A real HookedTransformer with a copy of these parameters, ready for hooks and `run_with_cache`."""
        return self._model.hooked(self.parameters)

    def _repr_html_(self) -> str:
        rows = [[name, display.shape(one.shape), str(one.dtype)] for name, one in self.parameters.items()]
        n_parameters = sum(one.numel() for one in self.parameters.values())
        return display.table(f"Snapshot of step {self.step:,} · {n_parameters:,} parameters", [], rows)

    def __repr__(self) -> str:
        return f"Snapshot(step={self.step})"
