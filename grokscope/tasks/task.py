"""Task: all equations of an operation in tokens, and the structure that measures and colourings need."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt64
from numpy.typing import ArrayLike
from torch import Tensor

from grokscope.algebra.groups import Group
from grokscope.config import TaskConfig, own_data
from grokscope.errors import GrokscopeError

NO_TARGET = own_data.NO_TARGET
"""The label of a position without a target, as in `torch.nn.functional.cross_entropy`."""


Examples = tuple[Int[Tensor, "n n_ctx"], Tensor]
"""The inputs and the labels of some examples."""


@dataclass(frozen=True)
class Sampler:
    """Draws examples: each is a function of a few random 64-bit integers, so a stream of integers is a data set."""

    n_numbers: int
    """The number of integers that determine an example."""
    examples: Callable[[UInt64[np.ndarray, "n n_numbers"]], Examples]
    """The inputs and the labels of examples, from their integers."""
    n_possible: int | None = None
    """The number N of different examples, if the integers 0 … N − 1 determine them; None if there are too many."""


@dataclass(frozen=True)
class Part:
    """One of several tasks in a run: a range of examples with a train/test split and a log of its own."""

    name: str
    """The name of the part in the log."""
    examples: slice
    """The range of its examples in `Task.inputs`."""
    train_fraction: float
    """The share of its examples in the training set."""


@dataclass(frozen=True, eq=False)
class Task:
    """All equations of an operation in tokens, and the structure that measures and colourings need.

    The elements are tokens 0 … n − 1; larger tokens are signs. A single answer is read at the last position. A task
    of sequences has a label at each position, or NO_TARGET. `equations` builds the task of an operation: token n is
    "=", and the form "a ∘ b =" adds n + 1 for "∘". Other tasks may have other signs, none, or any number of operands.
    """

    name: str
    """The name of the operation, such as "addition"."""
    formula: str
    """The operation in the field's notation, such as "a + b mod 59"."""
    inputs: Int[Tensor, "n_examples n_ctx"]
    """The tokens of each equation without its answer."""
    labels: Int[Tensor, " n_examples"] | Int[Tensor, "n_examples n_ctx"]
    """The training target of each equation, an element. Includes outliers and random labels. A task of sequences has
    a target at each position, or NO_TARGET."""
    n_elements: int
    """The number of elements, n."""
    d_vocab: int
    """The number of tokens: elements and signs."""
    d_vocab_out: int
    """The number of possible answers."""
    circle: Int[Tensor, " n"] | None = None
    """The tokens in cyclic order: token `circle[j]` is at angle 2πj/n, with n = len(circle). Elements outside the
    cyclic structure (zero, for multiplication) are left out. None if the operation has no such structure."""
    circle_sign: int = 1
    """The s in position(answer) = position(a) + s · position(b) mod n: 1 to add, −1 to subtract or divide."""
    is_commutative: bool = False
    """Whether a ∘ b = b ∘ a wherever both are equations of the task. Ignores outliers and random labels."""
    group: Group | None = None
    """The group whose elements are the tokens, for its conjugacy classes and cosets. None without a group."""
    is_composition: bool = False
    """Whether a ∘ b is the group product a·b in every equation. Ignores outliers and random labels."""
    torus: Int[Tensor, "..."] | None = None
    """The tokens on a product of several circles: token `torus[j, k, …]` is at position j on the first circle, k on
    the second, and so on; the operation adds or subtracts positions on each. None without several circles."""

    sign_names: tuple[str, ...] = ("=", "∘")
    """The names of the tokens from n_elements up; further ones get numbers."""
    element_names: tuple[str, ...] = ()
    """The names of the elements, if they are not numbers or those of the group."""
    answer_names: tuple[str, ...] = ()
    """The names of the answers, if they are not the first tokens."""
    column_names: tuple[str, ...] = ()
    """The name of each position; by default, they follow from the tokens."""
    sampler: Sampler | None = None
    """Draws examples of a task that has more of them than `inputs`; None if `inputs` contains all of them."""
    parts: tuple[Part, ...] = ()
    """The tasks that a run trains on together; () for a single task."""

    @classmethod
    def from_arrays(
        cls,
        inputs: ArrayLike,
        targets: ArrayLike,
        *,
        name: str = "data",
        formula: str = "own data",
        n_elements: int | None = None,
        d_vocab: int | None = None,
        d_vocab_out: int | None = None,
        circle: ArrayLike | None = None,
        circle_sign: int = 1,
        is_commutative: bool = False,
        element_names: tuple[str, ...] = (),
    ) -> "Task":
        """Return a task of your own examples; ``RunConfig(task=task.to_config(train_fraction=0.5))`` trains on it.

        Args:
            inputs: The tokens of each example (examples, positions): whole numbers from 0, in an array or a tensor.
            targets: The answer of each example at its last position; or an array of the inputs' shape with the answer
                at each position, and −100 where there is none.
            name: The name of the task.
            formula: The task in words, for titles.
            n_elements: The number of elements, which are the tokens below it; by default all tokens.
            d_vocab: The number of tokens; by default one more than the largest token.
            d_vocab_out: The number of possible answers; by default one more than the largest target.
            circle: The elements in cyclic order, if the answer is at the sum of the operands' positions.
            circle_sign: 1 if the answer is at the sum of the positions, −1 if it is at their difference.
            is_commutative: Whether the order of the operands does not matter.
            element_names: The name of each element, for figures.

        Raises:
            GrokscopeError: The arrays are not whole numbers of fitting shapes and ranges.
        """
        arrays = {"inputs": np.asarray(inputs), "labels": np.asarray(targets)}
        if faults := own_data.array_faults(arrays):
            raise GrokscopeError(f"The examples are invalid: {'; '.join(faults)}.")
        tokens, labels = (torch.from_numpy(own_data.as_tokens(array)) for array in arrays.values())
        d_vocab = d_vocab or int(tokens.max()) + 1
        d_vocab_out = d_vocab_out or int(labels.max()) + 1
        if tokens.max() >= d_vocab or labels.max() >= d_vocab_out:
            raise GrokscopeError(
                f"The tokens go up to {int(tokens.max())} and the targets up to {int(labels.max())}; allowed: below "
                f"d_vocab = {d_vocab} and d_vocab_out = {d_vocab_out}."
            )
        return cls(
            name=name,
            formula=formula,
            inputs=tokens,
            labels=labels,
            n_elements=d_vocab if n_elements is None else n_elements,
            d_vocab=d_vocab,
            d_vocab_out=d_vocab_out,
            circle=None if circle is None else torch.from_numpy(own_data.as_tokens(np.asarray(circle))),
            circle_sign=circle_sign,
            is_commutative=is_commutative,
            element_names=element_names,
        )

    def to_config(self, **settings: Any) -> TaskConfig:
        """Return a TaskConfig that contains this task's examples.

        Args:
            settings: Other settings of the TaskConfig, such as `train_fraction`.

        Raises:
            GrokscopeError: The examples are too large for a config.
        """
        about: dict[str, Any] = {
            "formula": self.formula,
            "n_elements": self.n_elements,
            "d_vocab": self.d_vocab,
            "d_vocab_out": self.d_vocab_out,
            "circle_sign": self.circle_sign,
            "is_commutative": int(self.is_commutative),
        }
        if self.circle is not None:
            about["circle"] = self.circle.numpy()
        if self.element_names:
            about["names"] = np.array(self.element_names)
        text = own_data.encode(self.inputs.numpy(), self.labels.numpy(), **about)
        return TaskConfig(name="data", data=text, **settings)

    @property
    def n_ctx(self) -> int:
        """The number of tokens in an equation without its answer."""
        return self.inputs.shape[1]

    @property
    def is_sequence(self) -> bool:
        """Whether labels have the shape of `inputs`: answers at several positions, NO_TARGET elsewhere."""
        return self.labels.ndim == 2

    def require_single_answer(self) -> None:
        """Raise GrokscopeError if examples have answers at several positions."""
        if self.is_sequence:
            raise GrokscopeError(
                f"{self.formula}: its examples are sequences with a target at several positions. Allowed: tasks with "
                f"a single answer at the last position, because this measure reads one answer per example."
            )

    @cached_property
    def operand_positions(self) -> tuple[int, ...]:
        """The positions of the operands: those that contain an element in every equation."""
        return tuple((self.inputs < self.n_elements).all(0).nonzero()[:, 0].tolist())

    @cached_property
    def operands(self) -> Int[Tensor, "n_examples n_operands"]:
        """The operands of each equation in order, such as a and b."""
        return self.inputs[:, list(self.operand_positions)]

    @property
    def answer_position(self) -> int:
        """The position at which the answer is read: the last one."""
        return self.n_ctx - 1

    @cached_property
    def signs(self) -> tuple[str, ...]:
        """The names of the tokens from n_elements up: `sign_names`, and then numbered signs."""
        n_signs = self.d_vocab - self.n_elements
        first = len(self.sign_names) + 1
        return (*self.sign_names, *(f"sign {i}" for i in range(first, n_signs + 1)))[:n_signs]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the elements: `element_names`, those of the group, or the numbers from 0."""
        if self.element_names:
            return self.element_names
        return tuple(self.group.elements) if self.group else tuple(map(str, range(self.n_elements)))

    @cached_property
    def position_names(self) -> tuple[str, ...]:
        """The name of each position: "a", "b", "c", … for the operands, the sign, or "sign" where signs differ."""
        if self.column_names:
            return self.column_names
        operands, names = iter("abcdefghijklmnopqrstuvwxyz"), []
        for position, tokens in enumerate(self.inputs.T):
            if position in self.operand_positions:
                names.append(next(operands, "operand"))
            else:
                is_constant = bool((tokens == tokens[0]).all())
                names.append(self.signs[int(tokens[0]) - self.n_elements] if is_constant else "sign")
        return tuple(names)

    @cached_property
    def n_examples_off_circle(self) -> int:
        """The number of equations with an operand outside the circle; circular measures leave these out."""
        if self.circle is None:
            return len(self.inputs)
        return int((~torch.isin(self.operands, self.circle).all(1)).sum())
