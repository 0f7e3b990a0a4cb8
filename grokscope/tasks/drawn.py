"""Examples drawn at random: a fixed set of them, and fresh ones that avoid a test set."""

import numpy as np
import torch
from jaxtyping import Int, UInt64
from torch import Tensor

from grokscope import rng
from grokscope.errors import GrokscopeError
from grokscope.tasks.task import Examples, Sampler

_LARGEST_ENUMERATION = 2**22
_MOST_ATTEMPTS = 1000


def numbers(purpose: str, seed: int, index: int, n: int, n_numbers: int) -> UInt64[np.ndarray, "n n_numbers"]:
    """Return the integers of n examples from a random stream."""
    return rng.integers(purpose, seed, index, n * n_numbers).reshape(n, n_numbers)


def draw(sampler: Sampler, n: int, seed: int) -> Examples:
    """Return n distinct examples in random order, or all of them in order if there are at most n.

    Args:
        sampler: Makes examples from random integers.
        n: The number of examples.
        seed: Decides the examples.

    Raises:
        GrokscopeError: Random draws find too few distinct examples.
    """
    n_possible = sampler.n_possible
    if n_possible is not None and n >= n_possible:
        return sampler.examples(np.arange(n_possible, dtype=np.uint64)[:, None])
    if n_possible is not None and n_possible <= _LARGEST_ENUMERATION:
        chosen = rng.permutation("examples", seed, 0, n_possible)[:n].astype(np.uint64)
        return sampler.examples(chosen[:, None])
    inputs, labels = sampler.examples(np.empty((0, sampler.n_numbers), np.uint64))
    for attempt in range(_MOST_ATTEMPTS):
        drawn = sampler.examples(numbers("examples", seed, attempt, n, sampler.n_numbers))
        inputs, labels = torch.cat([inputs, drawn[0]]), torch.cat([labels, drawn[1]])
        first = np.sort(np.unique(row_keys(inputs), return_index=True)[1])[:n]
        inputs, labels = inputs[first], labels[first]
        if len(inputs) == n:
            return inputs, labels
    raise GrokscopeError(
        f"task.n_examples: {n}, but random draws find only {len(inputs):,} distinct ones. Allowed: fewer examples."
    )


def draw_fresh(sampler: Sampler, n: int, seed: int, step: int, excluded: UInt64[np.ndarray, " m"]) -> Examples:
    """Return the batch of one step: n random examples outside a set, a function of the seed and the step alone.

    Args:
        sampler: Makes examples from random integers.
        n: The number of examples; they may repeat.
        seed: Decides the examples, together with the step.
        step: The step.
        excluded: The sorted `row_keys` of the examples to leave out. An example that is equal to one of them is drawn
            again.

    Raises:
        GrokscopeError: Nearly all possible examples are excluded.
    """
    batch_numbers = numbers("fresh batch", seed, step, n, sampler.n_numbers)
    if sampler.n_possible is not None:
        batch_numbers %= sampler.n_possible
    for attempt in range(1, _MOST_ATTEMPTS):
        inputs, labels = sampler.examples(batch_numbers)
        is_excluded = np.isin(row_keys(inputs), excluded)
        if not is_excluded.any():
            return inputs, labels
        replaced = numbers(f"fresh batch {attempt}", seed, step, int(is_excluded.sum()), sampler.n_numbers)
        batch_numbers[is_excluded] = replaced if sampler.n_possible is None else replaced % sampler.n_possible
    raise GrokscopeError("task.fresh: nearly every possible example is a test example. Allowed: fewer n_examples.")


def row_keys(inputs: Int[Tensor, "n n_ctx"]) -> UInt64[np.ndarray, " n"]:
    """Return a 64-bit key of each row: equal rows have equal keys, and other rows almost never do."""
    factors = rng.integers("row keys", 0, 0, inputs.shape[1]) | np.uint64(1)
    return ((inputs.numpy().astype(np.uint64) + np.uint64(1)) * factors).sum(1, dtype=np.uint64)
