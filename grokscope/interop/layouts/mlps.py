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

_EMBEDDING = re.compile(r"emb|wte|lookup|(^|[._])table")
_OUTPUT = re.compile(r"unemb|(^|[._])(w_?)?(u|out(put)?|head|readout|decoder|final|logits?|classifier|cls)([._\d]|$)")
_FIRST = re.compile(r"(^|[._])(w_?)?(in(put)?|x|y|first|left|right|l|r|a|b)([._]|$)")
_NOT_AN_MLP = re.compile(r"attn|attention|(^|[._])pos|wpe|norm|(^|[._])ln|conv|lstm|gru|rnn", re.IGNORECASE)
_LARGEST_SHUFFLED = 5
"""The most matrices whose order is searched; more are in the order of the file."""
_USUAL = 2
"""The largest cost of an order that names or the file suggest. Others are tried only if these form no chain."""
_MOST_CHAINS = 6
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

    @property
    def words(self) -> str:
        """The layout in words."""
        c, n_layers = self.settings, self.settings["n_layers"]
        kinds = {"embedded separately": "separately embedded"}
        layers = f"a hidden layer of {c['d_hidden']}" if n_layers == 1 else f"{n_layers} hidden layers"
        return f"an MLP with {c['combination']}, {kinds.get(c['operands'], c['operands'])} operands and {layers}"


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

    def oriented(self, n_inputs: int) -> Iterator[tuple[Tensor, float]]:
        """Yield the matrix as (inputs, outputs) with its cost, for each orientation with this number of inputs."""
        rows, columns = self.tensor.shape
        if rows == n_inputs:
            yield self.tensor, float(self.is_linear)
        if columns == n_inputs:
            yield self.tensor.T, float(not self.is_linear)


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
    if len(matrices) < 2 or any(_NOT_AN_MLP.search(name) for name in tensors):
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
    if tensor.ndim != 2 or not tensor.is_floating_point() or not 2 < len(tensor) == tensor.shape[1] < 5000:
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


def _chains(order: Sequence[_Matrix]) -> Iterator[_Chain]:
    """Yield the chains of matrices in an order that give n answers to operands of n values."""
    for n, n_tables in itertools.product(dict.fromkeys(order[-1].tensor.shape), range(_MOST_OPERANDS + 1)):
        heads, rest = order[:n_tables], order[n_tables:]
        if not rest or len({head.tensor.shape for head in heads}) > 1:
            continue
        tables, cost = [], 0.0
        for head in heads:
            rows, columns = head.tensor.shape
            # A table has tokens first, and a torch layer on one-hot tokens has them last.
            if rows == n and not (columns == n and head.is_linear):
                tables.append((head, head.tensor))
            elif columns == n:
                tables.append((head, head.tensor.T))
            cost += not head.is_embedding
        cost += sum(matrix.is_embedding for matrix in rest)
        if len(tables) < n_tables:
            continue
        width = tables[0][1].shape[1] if tables else n
        for k in [1, n_tables] if n_tables > 1 else range(1, _MOST_OPERANDS + 1):
            n_operands = n_tables if n_tables > 1 else max(k, 2)
            combination = "summed" if k == 1 else "concatenated"
            for layers, further in _layers(rest, k * width, n):
                total = cost + further + (n_operands > 2)
                if n_tables > 1 and k == 1:
                    # The tables may be parts of the first hidden layer, added before its activation.
                    split = sum(head.is_embedding for head in heads) - sum(not head.is_embedding for head in heads)
                    yield _Chain(tables, layers, True, "concatenated", n, n_operands, total + split)
                if len(layers) > 1:
                    yield _Chain(tables, layers, not tables, combination, n, n_operands, total)


def _layers(
    matrices: Sequence[_Matrix], n_inputs: int, n_outputs: int
) -> Iterator[tuple[list[tuple[_Matrix, Tensor]], float]]:
    """Yield the matrices as (inputs, outputs) with their cost, from a number of inputs to a number of outputs."""
    first, *others = matrices
    for oriented, cost in first.oriented(n_inputs):
        if not others and oriented.shape[1] == n_outputs:
            yield [(first, oriented)], cost
        elif others:
            for layers, further in _layers(others, oriented.shape[1], n_outputs):
                yield [(first, oriented), *layers], cost + further


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
        biases = [tensors[name] for matrix, _ in first if (name := _bias_name(matrix.name, tensors))]
        used |= {name for matrix, _ in first if (name := _bias_name(matrix.name, tensors))}
        if biases:
            parameters["mlp.0.b_in"] = torch.stack(biases).sum(0)
    elif chain.tables:
        parameters["embed.W_E"] = torch.cat([tensor for _, tensor in chain.tables])
    names = [f"mlp.{i}" for i in range(bool(first), len(hidden) + bool(first))]
    for name, (matrix, tensor) in zip([*names, "unembed"], chain.layers, strict=True):
        leaf = "U" if name == "unembed" else "in"
        parameters[f"{name}.W_{leaf}"] = tensor
        bias = _bias_name(matrix.name, tensors)
        if bias is not None and tensors[bias].shape == tensor.shape[1:]:
            parameters[f"{name}.b_{leaf}"] = tensors[bias]
            used.add(bias)
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
    return Perceptron(parameters, settings, chain.n_elements, chain.n_operands, unknown, constants, total)


def _bias_name(name: str, tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the bias beside a matrix, such as "fc1.bias" of "fc1.weight" or "b_in" of "W_in"."""
    start, dot, leaf = name.rpartition(".")
    for before, after in (("weight", "bias"), ("kernel", "bias"), ("W", "b"), ("w", "b"), ("W", "B")):
        bias = f"{start}{dot}{leaf.replace(before, after, 1)}"
        if before in leaf and bias in tensors and tensors[bias].ndim == 1:
            return bias
    return None
