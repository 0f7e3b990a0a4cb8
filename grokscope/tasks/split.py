"""The split of a task's equations into a train and a test set."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
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


def draw_split(task: Task, train_fraction: float, seed: int) -> Split:
    """Draw ⌊train_fraction · n_examples⌋ training examples; the others are the test set.

    The random order sorts 64-bit numbers from a stream that never changes, so a seed gives the same split in every
    version of grokscope.

    Args:
        task: The task to split.
        train_fraction: The fraction of training examples, above 0 and below 1.
        seed: Decides the split.

    Raises:
        GrokscopeError: The train or the test set would be empty.
    """
    n_examples = len(task.inputs)
    if fault := task_size.split_fault(task.name, train_fraction, n_examples):
        raise GrokscopeError(f"{fault}.")
    n_train = task_size.n_train(train_fraction, n_examples)
    order = torch.from_numpy(rng.permutation("split", seed, 0, n_examples))
    return Split(order[:n_train].sort().values, order[n_train:].sort().values)
