"""Snapshot: a loaded checkpoint; and where a trajectory's checkpoints come from."""

from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from grokscope import notebook
from grokscope.model import transformer

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


class Snapshot:
    """A loaded checkpoint: `step`, `parameters` under TransformerLens' names, and `model` to do anything with."""

    def __init__(self, step: int, parameters: dict[str, Tensor], model: transformer.Model):
        self.step = step
        self.parameters = parameters
        self._model = model

    @cached_property
    def model(self) -> "HookedTransformer":
        """A real HookedTransformer with a copy of these parameters, ready for hooks and `run_with_cache`."""
        return self._model.hooked(self.parameters)

    def _repr_html_(self) -> str:
        rows = [[name, notebook.shape(one.shape), str(one.dtype)] for name, one in self.parameters.items()]
        n_parameters = sum(one.numel() for one in self.parameters.values())
        return notebook.table(f"Snapshot of step {self.step:,} · {n_parameters:,} parameters", [], rows)

    def __repr__(self) -> str:
        return f"Snapshot(step={self.step})"
