"""State dicts of other programs, brought into TransformerLens' names and the sizes of a task."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import tasks
from grokscope.config import ModelConfig
from grokscope.errors import GrokscopeError, quoted_name
from grokscope.interop import layouts
from grokscope.interop.layouts import Layout
from grokscope.model.state_dicts import parameters_digest

_PRECISIONS = {torch.float16: 11, torch.bfloat16: 8}
"""The bits of a half-precision number's significand."""


@dataclass
class Conversion:
    """How the state dicts of an import are converted.

    Attributes:
        leave_out: The names of tensors that the model does not use.
        answers_only: Whether to drop the unembedding's columns of tokens that are never an answer.
        n_heads: The number of heads, for layouts that do not tell.
        swaps_signs: Whether the tokens of "=" and "∘" are exchanged.
        order: The element of the file that each of our elements is; None if the orders are equal.
        settings: The settings of the MLP that the file is, of those that its shapes allow.
        notes: Receives sentences on what was changed.
    """

    leave_out: Collection[str] = ()
    answers_only: bool = False
    n_heads: int = 1
    swaps_signs: bool = False
    order: Int[Tensor, " n"] | None = None
    settings: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def convert(self, layout: Layout, task: tasks.Task | None = None) -> dict[str, Any]:
        """Return a state dict under TransformerLens' names and shapes, without the tensors that are left out.

        Args:
            layout: The state dict.
            task: The task whose tokens, positions and answers the model has; None to keep all sizes.

        Raises:
            GrokscopeError: The number of heads does not fit a tensor.
        """
        layout = self._chosen(layout)
        parameters = layout.to_transformer_lens(layout.n_heads or self.n_heads)
        for name, original in layouts.extra_tensors(layout).items():
            if original or name in self.leave_out or name in layout.constants:
                del parameters[name]
                reason = f", because it copies {original}" if original else ""
                if name in layout.constants:
                    reason = ", because it is a Fourier basis, which training does not change"
                self.notes.append(f"{quoted_name(name)} was left out{reason}.")
        if task is not None:
            self._fit(parameters, task)
        self._note_precision(parameters)
        return parameters

    def _chosen(self, layout: Layout) -> Layout:
        """Return a layout as the MLP with these settings, if it may be one."""
        for perceptron in layout.perceptrons:
            if self.settings == {**perceptron.settings, "n_elements": perceptron.n_elements}:
                return layout.with_perceptron(perceptron)
        return layout

    def _fit(self, parameters: dict[str, Any], task: tasks.Task) -> None:
        """Cut positions and outputs that the task does not use."""
        W_pos = parameters.get("pos_embed.W_pos")
        if isinstance(W_pos, Tensor) and W_pos.ndim == 2 and len(W_pos) > task.n_ctx:
            parameters["pos_embed.W_pos"] = W_pos[: task.n_ctx]
            self.notes.append(
                f"The model has positions for {len(W_pos)} tokens, and the equations have {task.n_ctx}; the other "
                "positions, which no logit depends on, were left out."
            )
        W_E = parameters.get("embed.W_E")
        if self.swaps_signs and isinstance(W_E, Tensor):
            order = torch.arange(len(W_E))
            order[[task.n_elements, task.n_elements + 1]] = order[[task.n_elements + 1, task.n_elements]]
            parameters["embed.W_E"] = W_E[order]
        for name in ("unembed.W_U", "unembed.b_U"):
            value = parameters.get(name)
            if not isinstance(value, Tensor) or not value.ndim or value.shape[-1] <= task.d_vocab_out:
                continue
            if self.answers_only and value.shape[-1] == task.d_vocab:
                parameters[name] = value[..., : task.d_vocab_out]
        if self.order is not None:
            parameters |= _reordered(parameters, self.order, task.d_vocab)

    def _note_precision(self, parameters: Mapping[str, Any]) -> None:
        """Note the cost of half precision: rounding errors of the weights, which the losses contain."""
        dtypes = {value.dtype for value in parameters.values() if isinstance(value, Tensor)}
        for dtype in dtypes & _PRECISIONS.keys():
            bits = _PRECISIONS[dtype]
            self.notes.append(
                f"The weights are stored as {str(dtype).removeprefix('torch.')}, with {bits} significant bits, so "
                f"each may differ from the trained weight by {2.0**-bits:.2g} of its size. Small losses "
                "and curvature change with them. They were converted to float32 without further change."
            )


def _reordered(parameters: Mapping[str, Any], order: Int[Tensor, " n"], d_vocab: int) -> dict[str, Tensor]:
    """Return the parameters with a row for each token or a column for each answer, with the elements in an order."""
    tables = "embed.W_E" if "embed.W_E" in parameters else "mlp.0.W_in"
    rows = torch.arange(d_vocab)
    rows[: len(order)] = order
    result = {}
    if isinstance(table := parameters.get(tables), Tensor):
        slots = torch.arange(0, len(table), d_vocab)
        result[tables] = table[(slots[:, None] + rows).flatten()]
    for name in ("unembed.W_U", "unembed.b_U"):
        if isinstance(value := parameters.get(name), Tensor):
            columns = torch.arange(value.shape[-1])
            columns[: len(order)] = order
            result[name] = value[..., columns]
    return result


def detect(state_dict: Mapping[Any, Any]) -> Layout:
    """Return a state dict with its layout.

    Raises:
        GrokscopeError: No layout fits.
    """
    layout = layouts.read(state_dict)
    if layout is not None:
        return layout
    names = ", ".join(map(quoted_name, list(layouts.without_prefix(state_dict))[:6]))
    raise GrokscopeError(
        f"it contains {names}. Allowed: the names of TransformerLens or of Nanda et al. 2023, such as 'embed.W_E', "
        "or a transformer of torch modules; or an MLP from operands to answers whose hidden layers are equally wide. "
        "Other models cannot be imported."
    )


def biases(parameters: Mapping[str, Any], given: str) -> str:
    """Return the setting `biases` that fits the biases of a state dict: those that are not zero, or the given ones.

    Args:
        parameters: A state dict under TransformerLens' names.
        given: The setting of the caller, which decides where all biases in the file are zero.
    """
    present = {name: value for name, value in parameters.items() if re.search(r"\.b_\w+\Z", name)}
    trained = {name for name, value in present.items() if isinstance(value, Tensor) and bool((value != 0).any())}
    if any(".mlp." not in name for name in trained):
        return "all"
    has_others, has_mlp = (any((".mlp." in name) is is_mlp for name in present) for is_mlp in (False, True))
    if given == "all" and not has_others:
        given = "mlp"
    if given == "mlp" and not has_mlp:
        given = "none"
    return "mlp" if given == "none" and trained else given


def completed(parameters: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return a state dict with zeros for missing biases and shifts, and with scale 1 for a folded LayerNorm."""
    like = next(
        (value for value in parameters.values() if isinstance(value, Tensor) and value.is_floating_point()), None
    )
    dtype = torch.float32 if like is None else like.dtype
    is_folded = not any(name.startswith("ln_final") for name in parameters)
    missing = {}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        is_shift = leaf == "b" and f"{module}.w" in parameters
        if name not in parameters and (leaf.startswith("b_") or is_shift or (is_folded and leaf in ("w", "b"))):
            missing[name] = torch.full(shape, float(leaf == "w"), dtype=dtype)
    return {**parameters, **missing}


def columns(parameters: Mapping[str, Any], task: tasks.Task) -> dict[str, int]:
    """Return the setting `d_vocab_out` of a model with an output for tokens that are never an answer.

    Raises:
        GrokscopeError: The model has such outputs, and ModelConfig no setting for them.
    """
    W_U = parameters.get("unembed.W_U")
    n_columns = W_U.shape[-1] if isinstance(W_U, Tensor) and W_U.ndim == 2 else 0
    if n_columns != task.d_vocab or n_columns <= task.d_vocab_out:
        return {}
    assert "d_vocab_out" in ModelConfig.__dataclass_fields__
    return {"d_vocab_out": n_columns}


def equal_weights(state_dicts: Mapping[int, Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Return the pairs of steps with equal weights: each step with the first step that has the same."""
    first: dict[str, int] = {}
    pairs = []
    for step, parameters in sorted(state_dicts.items()):
        digest = parameters_digest({name: value for name, value in parameters.items() if isinstance(value, Tensor)})
        if digest in first:
            pairs.append((first[digest], step))
        else:
            first[digest] = step
    return pairs
