"""Multilayer perceptrons of other programs: chains of matrices from operands to answers, under any names.

The shapes decide: the last matrix gives n answers, and the first reads one-hot operands, n or k·n numbers, or is a
table with a row for each of n tokens. Names only decide between chains that fit equally well.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grokscope.config.task_config import LARGEST_P

_EMBEDDING = re.compile(r"emb|wte|lookup|(^|[._])table")
_OUTPUT = re.compile(r"unemb|(^|[._])(w_?)?(u|out(put)?|head|readout|decoder|final|logits?|classifier|cls)([._\d]|$)")
_FIRST = re.compile(r"(^|[._])(w_?)?(in(put)?|x|y|first|left|right|l|r|a|b)([._]|$)")
_NOT_AN_MLP = re.compile(r"attn|attention|(^|[._])pos|wpe|norm|(^|[._])ln|conv|lstm|gru|rnn", re.IGNORECASE)
_LARGEST_SHUFFLED = 5
"""The most matrices whose order is searched; more are in the order of the file."""
_USUAL = 2
"""The largest cost of an order that names or the file suggest. Others are tried only if these form no chain."""
_MOST_CHAINS = 6
_MOST_MATRICES = 14
_MOST_OPERANDS = 6


@dataclass(frozen=True)
class Perceptron:
    """A chain of matrices as a network of the family "mlp"."""

    parameters: dict[str, Tensor]
    """The parameters under the names of the family."""
    settings: dict[str, Any]
    """The settings of MlpConfig that the shapes determine: all but the activation function."""
    n_elements: int
    """The number of values of each operand, and of answers."""
    n_operands: int
    unknown: tuple[str, ...]
    """The names without a role."""
    constants: tuple[str, ...]
    """The names of Fourier bases, which training does not change."""
    cost: float = 0.0
    """How unusual the order, the orientation and the names of the matrices are for this chain."""
    n_signs: int = 0
    """The number of signs, such as "=", whose constant part was added to the first biases."""

    @property
    def words(self) -> str:
        """The layout in words."""
        c, n_layers = self.settings, self.settings["n_layers"]
        kinds = {"embedded separately": "separately embedded"}
        layers = f"a hidden layer of {c['d_hidden']}" if n_layers == 1 else f"{n_layers} hidden layers"
        signs = " (its signs never change, so they were added to its first biases)" if self.n_signs else ""
        return (
            f"an MLP with {c['combination']}, {kinds.get(c['operands'], c['operands'])} operands and {layers}{signs}"
        )


@dataclass(frozen=True)
class _Matrix:
    name: str
    tensor: Tensor

    @property
    def is_linear(self) -> bool:
        """Whether the name is that of a torch layer, which has its outputs first."""
        return self.name.endswith("weight") and not self.is_embedding

    @property
    def is_embedding(self) -> bool:
        return bool(_EMBEDDING.search(self.name.lower())) and not _OUTPUT.search(self.name.lower())

    def oriented(self, n_inputs: int) -> Iterator[Tensor]:
        """Yield the matrix as (inputs, outputs), in each orientation with this number of inputs."""
        rows, columns = self.tensor.shape
        if rows == n_inputs:
            yield self.tensor
        if columns == n_inputs:
            yield self.tensor.T


def read(tensors: Mapping[str, Tensor]) -> list[Perceptron]:
    """Return the networks that some tensors may be, the most usual first; empty if they are not an MLP.

    Args:
        tensors: Tensors under the names of the file, without a common prefix.
    """
    constants = tuple(name for name, tensor in tensors.items() if is_fourier_basis(tensor))
    matrices = [
        _Matrix(name, tensor)
        for name, tensor in tensors.items()
        if tensor.ndim == 2 and tensor.is_floating_point() and name not in constants and min(tensor.shape) > 1
    ]
    if not 2 <= len(matrices) <= _MOST_MATRICES or any(_NOT_AN_MLP.search(name) for name in tensors):
        return []
    chains: dict[str, Perceptron] = {}
    has_usual = False
    for order, cost in _orders(matrices):
        if cost > _USUAL and has_usual:
            break
        for chain in _chains(order):
            has_usual |= cost <= _USUAL
            network = _network(chain, tensors, constants, cost)
            if network is not None and all(len(tensors[name]) == network.n_elements for name in constants):
                key = repr((network.n_elements, sorted(network.settings.items())))
                chains[key] = min(chains.get(key, network), network, key=lambda item: item.cost)
    return sorted(chains.values(), key=lambda item: item.cost)[:_MOST_CHAINS]


def is_fourier_basis(tensor: Tensor) -> bool:
    """Return whether a matrix is an orthonormal Fourier basis: each row or column is a wave of one frequency."""
    if tensor.ndim != 2 or not tensor.is_floating_point() or not 2 < len(tensor) == tensor.shape[1] <= LARGEST_P:
        return False
    matrix = tensor.double()
    if not torch.allclose(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64), atol=1e-4):
        return False
    return any(bool((_largest_share(rows) > 0.999).all()) for rows in (matrix, matrix.T))


def _largest_share(rows: Tensor) -> Tensor:
    """Return the share of each row's energy in its largest frequency."""
    energy = torch.fft.fft(rows, dim=1).abs() ** 2
    waves = energy + energy.roll(-1, 1).flip(1)  # Frequencies k and −k are one wave.
    waves[:, 0] /= 2
    return waves.amax(1) / energy.sum(1)


def _orders(matrices: Sequence[_Matrix]) -> Iterator[tuple[Sequence[_Matrix], float]]:
    """Yield orders of the matrices with their costs: first by the words in their names, then all others."""

    def stage(matrix: _Matrix) -> int:
        name = matrix.name.lower()
        return 0 if matrix.is_embedding else 3 if _OUTPUT.search(name) else 1 if _FIRST.search(name) else 2

    usual = sorted(matrices, key=stage)
    yield usual, 0
    if list(usual) != list(matrices):
        yield matrices, _USUAL
    if len(matrices) <= _LARGEST_SHUFFLED:
        for order in itertools.permutations(usual):
            yield order, 2 * _USUAL


@dataclass(frozen=True)
class _Chain:
    tables: list[tuple[_Matrix, Tensor]]
    """The embeddings, as (n, d), or the parts of the first hidden layer."""
    layers: list[tuple[_Matrix, Tensor]]
    """The other matrices, as (inputs, outputs)."""
    is_one_hot: bool
    combination: str
    n_elements: int
    n_operands: int
    cost: float
    n_signs: int = 0
    """The number of signs whose vectors the first hidden layer reads beside those of the operands."""


def _chains(order: Sequence[_Matrix]) -> Iterator[_Chain]:
    """Yield the chains of matrices in an order that give n answers to operands of n values."""
    for n, n_tables in itertools.product(dict.fromkeys(order[-1].tensor.shape), range(_MOST_OPERANDS + 1)):
        heads, rest = order[:n_tables], order[n_tables:]
        if not rest or any(matrix.is_embedding for matrix in rest) or len({head.tensor.shape for head in heads}) > 1:
            continue
        n_signs = next((i for i in range(3) if n_tables == 1 and n + i in heads[0].tensor.shape), 0)
        tables = [(head, table) for head in heads if (table := _table(head, n + n_signs)) is not None]
        if len(tables) < n_tables:
            continue
        cost = sum(not head.is_embedding for head in heads) + n_signs
        width = tables[0][1].shape[1] if tables else n
        counts = [1, n_tables] if n_tables > 1 else [2, 2 + n_signs] if n_signs else range(1, _MOST_OPERANDS + 1)
        for k in counts:
            n_operands = n_tables if n_tables > 1 else 2 if n_signs else max(k, 2)
            combination = "summed" if k == 1 else "concatenated"
            for layers in _layers(rest, k * width, n):
                total = cost + _orientation_cost(layers) + (n_operands > 2)
                if n_tables > 1 and k == 1:
                    # The tables may be parts of the first hidden layer, added before its activation.
                    split = sum(head.is_embedding for head in heads) - sum(not head.is_embedding for head in heads)
                    yield _Chain(tables, layers, True, "concatenated", n, n_operands, total + split)
                if len(layers) > 1:
                    n_read = n_signs if k > 2 else 0
                    yield _Chain(tables, layers, not tables, combination, n, n_operands, total, n_read)


def _table(head: _Matrix, n_rows: int) -> Tensor | None:
    """Return a table with a row for each token; None for another size."""
    rows, columns = head.tensor.shape
    # A table has tokens first, and a torch layer on one-hot tokens has them last.
    if rows == n_rows and not (columns == n_rows and head.is_linear):
        return head.tensor
    return head.tensor.T if columns == n_rows else None


def _layers(matrices: Sequence[_Matrix], n_inputs: int, n_outputs: int) -> Iterator[list[tuple[_Matrix, Tensor]]]:
    """Yield the matrices as (inputs, outputs), from a number of inputs to a number of outputs."""
    first, *others = matrices
    for oriented in first.oriented(n_inputs):
        if not others and oriented.shape[1] == n_outputs:
            yield [(first, oriented)]
        elif others:
            for layers in _layers(others, oriented.shape[1], n_outputs):
                yield [(first, oriented), *layers]


def _orientation_cost(layers: Sequence[tuple[_Matrix, Tensor]]) -> float:
    """Return how many matrices are turned unlike the others; torch's layers are usually turned, and others not."""
    cost = 0.0
    for is_linear in (True, False):
        turned = [tensor is not matrix.tensor for matrix, tensor in layers if matrix.is_linear == is_linear]
        n_turned = sum(turned)
        cost += min(n_turned, len(turned) - n_turned) + 0.1 * (len(turned) - n_turned if is_linear else n_turned)
    return cost


def _network(
    chain: _Chain, tensors: Mapping[str, Tensor], constants: tuple[str, ...], cost: float
) -> Perceptron | None:
    """Return a chain with its biases as a network; None if its hidden layers differ in width."""
    hidden = chain.layers[:-1]
    first = [] if not chain.is_one_hot or not chain.tables else chain.tables
    widths = {tensor.shape[1] for _, tensor in [*first, *hidden]}
    if len(widths) != 1:
        return None
    used = {matrix.name for matrix, _ in [*chain.tables, *chain.layers]}
    parameters: dict[str, Tensor] = {}
    if first:
        parameters["mlp.0.W_in"] = torch.cat([tensor for _, tensor in first])
        names = [name for matrix, _ in first if (name := _bias_name(matrix.name, tensors))]
        biases = [tensors[name] for name in names if tensors[name].shape == first[0][1].shape[1:]]
        if biases and len(biases) == len(names):
            used |= set(names)
            parameters["mlp.0.b_in"] = torch.stack(biases).sum(0)
    elif chain.tables:
        parameters["embed.W_E"] = torch.cat([tensor[: chain.n_elements] for _, tensor in chain.tables])
    names = [f"mlp.{i}" for i in range(bool(first), len(hidden) + bool(first))]
    for name, (matrix, tensor) in zip([*names, "unembed"], chain.layers, strict=True):
        leaf = "U" if name == "unembed" else "in"
        parameters[f"{name}.W_{leaf}"] = tensor
        bias = _bias_name(matrix.name, tensors)
        if bias is not None and tensors[bias].shape == tensor.shape[1:]:
            parameters[f"{name}.b_{leaf}"] = tensors[bias]
            used.add(bias)
    if chain.n_signs:
        parameters |= _without_signs(chain, parameters)
    separate = "embedded separately" if len(chain.tables) > 1 else "embedded"
    settings: dict[str, Any] = {
        "operands": "one-hot" if chain.is_one_hot else separate,
        "combination": chain.combination,
        "n_layers": len(hidden) + bool(first),
        "d_hidden": widths.pop(),
        "biases": any(".b_" in name for name in parameters),
    }
    if not chain.is_one_hot:
        settings["d_embed"] = chain.tables[0][1].shape[1]
    unknown = tuple(name for name in tensors if name not in used)
    total = cost + chain.cost + len(unknown)
    return Perceptron(
        parameters, settings, chain.n_elements, chain.n_operands, unknown, constants, total, chain.n_signs
    )


def _without_signs(chain: _Chain, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the first hidden layer with what it reads from the signs of "a b =" or "a ∘ b =" in its biases."""
    table, W = chain.tables[0][1], parameters["mlp.0.W_in"]
    parts = W.unflatten(0, (2 + chain.n_signs, table.shape[1]))
    operands, signs = ((0, 1), (2,)) if chain.n_signs == 1 else ((0, 2), (1, 3))
    bias = parameters.get("mlp.0.b_in", torch.zeros_like(W[0]))
    for token, slot in enumerate(signs, chain.n_elements):
        bias = bias + table[token] @ parts[slot]
    return {"mlp.0.W_in": parts[list(operands)].flatten(0, 1), "mlp.0.b_in": bias}


def _bias_name(name: str, tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the bias beside a matrix, such as "fc1.bias" of "fc1.weight" or "b_in" of "W_in"."""
    start, dot, leaf = name.rpartition(".")
    for before, after in (("weight", "bias"), ("kernel", "bias"), ("W", "b"), ("w", "b"), ("W", "B")):
        bias = f"{start}{dot}{leaf.replace(before, after, 1)}"
        if before in leaf and bias in tensors and tensors[bias].ndim == 1:
            return bias
    return None
