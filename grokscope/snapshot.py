"""Snapshot: a loaded checkpoint."""

from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from grokscope import notebook
from grokscope.model import families

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer


class Snapshot:
    """A loaded checkpoint.

    Attributes:
        step: The number of optimizer updates before it.
        parameters: Each parameter by its TransformerLens name.
    """

    def __init__(self, step: int, parameters: dict[str, Tensor], model: families.Model):
        self.step = step
        self.parameters = parameters
        self._model = model

    @cached_property
    def model(self) -> "HookedTransformer":
        """A HookedTransformer with a copy of these parameters, or a TransformerBridge with TransformerLens 4."""
        return self._model.hooked_transformer(self.parameters)

    def _repr_html_(self) -> str:
        rows = [
            [name, notebook.format_shape(tensor.shape), str(tensor.dtype)] for name, tensor in self.parameters.items()
        ]
        n_parameters = sum(tensor.numel() for tensor in self.parameters.values())
        return notebook.html_table(f"Snapshot of step {self.step:,} · {n_parameters:,} parameters", [], rows)

    def __repr__(self) -> str:
        return f"Snapshot(step={self.step})"
