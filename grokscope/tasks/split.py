"""The split of a task's equations into a train and a test set."""

import dataclasses
import random
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokscope import rng
from grokscope.config import task_size
from grokscope.errors import GrokscopeError
from grokscope.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Split:
    """The train and the test set: indices into `task.inputs`, in increasing order when drawn by `draw_split`."""

    train: Int[Tensor, " n_train"]
    test: Int[Tensor, " n_test"]


def validated_split(split: Split | tuple[Tensor, Tensor] | None, n_examples: int) -> Split | None:
    """Return the caller's split as a `Split`, or None if the caller gave none.

    Args:
        split: Indices of the training and of the test examples.
        n_examples: The number of equations of the task.

    Raises:
        GrokscopeError: An index repeats or is out of range, or the train set is empty.
    """
    if split is None:
        return None
    if not isinstance(split, Split):
        split = Split(*(torch.as_tensor(indices).long() for indices in split))
    indices = torch.cat([split.train, split.test])
    has_repeats = len(indices.unique()) != len(indices)
    if has_repeats or not len(split.train) or indices.min() < 0 or indices.max() >= n_examples:
        raise GrokscopeError(
            f"The split is invalid. Allowed: indices from 0 to {n_examples - 1} without repeats, "
            f"at least one of them for training."
        )
    return split


def split_of_train_set(train: Int[Tensor, " n_train"], n_examples: int) -> Split:
    """Return the split whose training set has these indices, in increasing order; the others are the test set."""
    is_train = torch.zeros(n_examples, dtype=torch.bool)
    is_train[train] = True
    return Split(is_train.nonzero()[:, 0], (~is_train).nonzero()[:, 0])


def given_split(task: Task, train_set: str) -> Split:
    """Return the split that `task.train_set` names; raise GrokscopeError if it does not fit the task."""
    n_examples = len(task.inputs)
    if fault := task_size.train_set_fault(train_set, n_examples):
        raise GrokscopeError(f"{fault}.")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(train_set), np.uint8))[:n_examples]
    return split_of_train_set(torch.from_numpy(np.flatnonzero(bits)), n_examples)


def draw_split(task: Task, train_fraction: float, seed: int, unit: str = "equations", stream: int = 0) -> Split:
    """Draw ⌊train_fraction · n_examples⌋ training examples; the others are the test set.

    In a commutative task, b + a determines the answer to a + b. Of the test equations with a ≠ b, the share
    `train_fraction` has this mirror in the train set if single equations are drawn. By pairs, none has it: equations
    with the same operands in any order are drawn together. A group of equations that no longer fits is passed over.
    Then the train set has the size above, or is smaller by less than a group. Each part of a task with several parts
    has its own fraction and its own split.

    "nanda2023" lists the equations by their operands and shuffles the list with Python's `random` after
    `random.seed(seed)`; the first equations are the training set, as in the code of Nanda et al. 2023.

    The random order of the other two sorts 64-bit numbers from a stream that never changes, so a seed gives the same
    split in every version of grokscope.

    Args:
        task: The task to split.
        train_fraction: The fraction of training examples, above 0 and below 1.
        seed: Decides the split.
        unit: "equations" draws single equations. "pairs" draws unordered pairs of operands. "nanda2023" draws single
            equations, as above.
        stream: The number of the random stream, so that the parts of a task have different splits.

    Raises:
        GrokscopeError: The train or the test set would be empty.
    """
    if task.parts:
        return _draw_parts(task, seed, unit)
    n_examples = len(task.inputs)
    if fault := task_size.split_fault(task.name, train_fraction, n_examples):
        raise GrokscopeError(f"{fault}.")
    n_train = task_size.n_train(train_fraction, n_examples)
    if unit == "nanda2023":
        # lexsort takes the most significant key last.
        shuffled = np.lexsort(task.operands.T.flip(0).numpy()).tolist()
        random.Random(seed).shuffle(shuffled)
        return split_of_train_set(torch.tensor(shuffled[:n_train]), n_examples)
    if unit == "equations":
        order = torch.from_numpy(rng.permutation("split", seed, stream, n_examples))
        return Split(order[:n_train].sort().values, order[n_train:].sort().values)
    _, group_of, sizes = task.operands.sort(1).values.unique(dim=0, return_inverse=True, return_counts=True)
    order = torch.from_numpy(rng.permutation("split by pairs", seed, stream, len(sizes)))
    is_train = torch.zeros(len(sizes), dtype=torch.bool)
    is_train[order[_fitting(sizes[order], n_train)]] = True
    if not is_train.any():
        raise GrokscopeError(
            f"task.split: 'pairs', but every unordered pair has more than {n_train} equations, so the training set "
            f"is empty. Allowed: a larger task.train_fraction."
        )
    return Split(*(is_part[group_of].nonzero()[:, 0] for is_part in (is_train, ~is_train)))


def _draw_parts(task: Task, seed: int, unit: str) -> Split:
    """Return the splits of a task's parts together, each from a random stream of its own."""
    train, test = [], []
    for i, part in enumerate(task.parts):
        member = dataclasses.replace(
            task, name=part.name, inputs=task.inputs[part.examples], labels=task.labels[part.examples], parts=()
        )
        split = draw_split(member, part.train_fraction, seed, unit, i)
        train.append(split.train + part.examples.start)
        test.append(split.test + part.examples.start)
    return Split(torch.cat(train), torch.cat(test))


def _fitting(sizes: Int[Tensor, " n_groups"], capacity: int) -> Bool[Tensor, " n_groups"]:
    """Return which groups are taken if each group in turn is taken that still fits."""
    is_taken = torch.zeros(len(sizes), dtype=torch.bool)
    first = 0
    while first < len(sizes):
        fits = sizes[first:].cumsum(0) <= capacity
        n_taken = int(fits.sum())
        is_taken[first : first + n_taken] = True
        capacity -= int(sizes[first : first + n_taken].sum())
        rest = (sizes[first + n_taken :] <= capacity).nonzero()[:, 0]
        first = first + n_taken + int(rest[0]) if len(rest) else len(sizes)
    return is_taken
