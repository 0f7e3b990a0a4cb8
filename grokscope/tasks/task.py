"""Task: all equations of an operation in tokens, and the structure that measures and colourings need."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.algebra.groups import Group
from grokscope.errors import GrokscopeError

NO_TARGET = -100
"""The label of a position without a target, as in `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True, eq=False)
class Task:
    """All equations of an operation in tokens, and the structure that measures and colourings need.

    The elements are tokens 0 … n − 1; larger tokens are signs. A single answer is read at the last position. A task of
    sequences has a label at each position, or NO_TARGET where the loss reads no answer. `equations` builds a task of a binary operation: token n is "=", which ends every equation, and the form "a ∘ b ="
    adds n + 1 for "∘". A task of another package may have other signs, none, or another number of operands.
    """

    name: str
    """The name of the operation, such as "addition"."""
    formula: str
    """The operation in the field's notation, such as "a + b mod 59"."""
    inputs: Int[Tensor, "n_examples n_ctx"]
    """The tokens of each equation without its answer."""
    labels: Int[Tensor, " n_examples"] | Int[Tensor, "n_examples n_ctx"]
    """The training target of each equation, an element. Includes outliers and random labels. A task of sequences has a
    target at each position, or NO_TARGET."""
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
        """The names of the tokens from n_elements up: "=", "∘", and then numbered signs."""
        n_signs = self.d_vocab - self.n_elements
        return ("=", "∘", *(f"sign {i}" for i in range(3, n_signs + 1)))[:n_signs]

    @cached_property
    def position_names(self) -> tuple[str, ...]:
        """The name of each position: "a", "b", "c", … for the operands, the sign, or "sign" where signs differ."""
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
