"""Snapshot: a loaded checkpoint; and where a trajectory's checkpoints come from."""

import zlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from torch import Tensor

from grokscope import display
from grokscope import model as models

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


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
