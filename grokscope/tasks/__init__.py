"""Tasks: what is learned, as data. One small file a family; a task is a function `TaskConfig -> Task`."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import plugins
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError


@dataclass(frozen=True, eq=False)
class Task:
    """A table of equations in tokens, and the structure that measures ask for.

    Tokens are the elements 0 … n − 1, then "=", then "∘" where the form has it. The answer is read at the last
    position, which holds the "=".
    """

    name: str
    """What the operation is called."""
    formula: str
    """The operation in the field's notation, such as "a + b mod 59"."""
    inputs: Int[Tensor, "n_examples n_ctx"]
    """Every equation's tokens without the answer."""
    labels: Int[Tensor, " n_examples"]
    """Every equation's answer, an element."""
    n_elements: int
    """The number of elements, n; their tokens are 0 … n − 1."""
    d_vocab: int
    """The number of tokens, elements and signs together."""
    d_vocab_out: int
    """The number of possible answers."""
    circle: Int[Tensor, " n"] | None
    """The elements' tokens in the order of the circle that the operation turns: token `circle[j]` lies at angle
    2πj/n. Elements on no circle (zero, for multiplication) are not in it; None if the operation has no circle."""

    @property
    def n_ctx(self) -> int:
        """The number of tokens in an equation, the answer not counted."""
        return self.inputs.shape[1]

    @cached_property
    def n_examples_off_circle(self) -> int:
        """How many equations have an operand that is on no circle, and so no part in circular measures."""
        if self.circle is None:
            return len(self.inputs)
        on_circle = torch.isin(self.inputs, self.circle) | (self.inputs >= self.n_elements)
        return int((~on_circle.all(1)).sum())


@dataclass(frozen=True, eq=False)
class Split:
    """Which examples of a task are trained on: indices into `task.inputs`, increasing."""

    train: Int[Tensor, " n_train"]
    test: Int[Tensor, " n_test"]


def build(config: TaskConfig) -> Task:
    """Return the task that the config names; raise GrokscopeError if nobody has registered it."""
    return plugins.load("tasks", config.name)(config)


def split(task: Task, train_fraction: float, seed: int) -> Split:
    """Draw ⌊train_fraction · n_examples⌋ training examples; the rest is the test set.

    The examples are sorted by random 64-bit numbers of NumPy's Philox generator, whose raw stream never
    changes, so a split is the same for ever. Raise GrokscopeError if train or test would be empty.
    """
    n_examples = len(task.inputs)
    # Exact: in floating point 0.29 · 100 is below 29.
    n_train = int(Fraction(str(train_fraction)) * n_examples)
    if not 0 < n_train < n_examples:
        raise GrokscopeError(
            f"task.train_fraction: {train_fraction} of {n_examples} equations leaves the "
            f"{'training' if n_train == 0 else 'test'} set empty; allowed: from {1 / n_examples:.2g} "
            f"to below 1."
        )
    order = torch.from_numpy(permutation("split", seed, 0, n_examples))
    return Split(order[:n_train].sort().values, order[n_train:].sort().values)


def permutation(purpose: str, seed: int, index: int, n: int) -> np.ndarray:
    """Return a random order of 0 … n − 1, a function of its arguments alone, in every version of NumPy."""
    key = hashlib.sha256(f"{purpose}/{seed}/{index}".encode()).digest()
    bits = np.random.Philox(key=np.frombuffer(key[:16], np.uint64)).random_raw(n)
    return np.argsort(bits, kind="stable")
