"""The coordinates of a circular task, in which its operation adds or subtracts positions on a circle."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.tasks.pair_table import pair_examples, pair_inputs
from grokscope.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Circle:
    """The pairs of operands on the circle, as a grid over the operands' positions (i, j).

    The answer is at position i + sign·j mod n. Results for addition mod n therefore also apply to subtraction, and,
    through the discrete logarithm, to multiplication and division mod p (n = p − 1, without zero).

    A task may lack some of the equations, such as b + a where it has a + b. A model has logits for these pairs too.
    `inputs` and `answers` contain them, and `examples` marks them with −1. Losses leave them out.
    """

    task: Task
    tokens: Int[Tensor, " n"]
    """The token at each position: a row of W_E and a column of W_U."""
    sign: int
    """1 if the operation adds positions, −1 if it subtracts them."""

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def answers(self) -> Int[Tensor, "n n"]:
        """The position i + sign·j mod n of the correct answer; ignores outliers and random labels."""
        positions = torch.arange(len(self))
        return (positions[:, None] + self.sign * positions) % len(self)

    @cached_property
    def examples(self) -> Int[Tensor, "n n"]:
        """The index into `task.inputs` of the equation with operands at positions i and j; −1 without an equation."""
        return pair_examples(self.task)[self.tokens][:, self.tokens]

    @cached_property
    def inputs(self) -> Int[Tensor, "n n n_ctx"]:
        """The tokens of every pair (i, j), also of pairs without an equation."""
        n = len(self)
        return pair_inputs(self.task, torch.cartesian_prod(self.tokens, self.tokens).view(n, n, 2))


def circle_faults(task: Task) -> list[str]:
    """Return a sentence if the circle of a task contradicts its answers; an empty list if it is right or missing.

    All equations with their operands on the circle are checked. An answer must be at the position of the first
    operand, plus `circle_sign` times the positions of the others.
    """
    if task.circle is None or task.labels.ndim > 1:
        return []
    circle, n = task.circle, len(task.circle)
    if not n or len(circle.unique()) < n or circle.min() < 0 or circle.max() >= task.n_elements:
        return [f"circle: its {n} tokens must be different elements from 0 to {task.n_elements - 1}"]
    if task.circle_sign not in (1, -1):
        return [f"circle_sign: {task.circle_sign}; allowed: 1 to add positions on the circle, -1 to subtract them"]
    if task.is_sequence:
        return []
    # An answer that is not an element has no position either.
    positions = torch.full((max(task.n_elements, task.d_vocab_out),), -1)
    positions[circle] = torch.arange(n)
    operands = positions[task.operands]
    expected = (operands[:, 0] + task.circle_sign * operands[:, 1:].sum(1)) % n
    is_wrong = (operands >= 0).all(1) & (positions[task.labels] != expected)
    if not is_wrong.any():
        return []
    row = int(is_wrong.nonzero()[0])
    names = " and ".join(str(int(token)) for token in task.operands[row])
    noun = "sum" if task.circle_sign == 1 else "difference"
    return [
        f"circle: the {noun} of the positions of {names} is the position of {int(circle[expected[row]])}, but their "
        f"answer is {int(task.labels[row])}; leave out circle, or correct its order or circle_sign"
    ]


def on_circle(task: Task) -> Circle:
    """Return the pairs of a circular task in the coordinates of its circle.

    Raises:
        GrokscopeError: The task has no circle.
    """
    if task.torus is not None:
        shape = " × ".join(map(str, task.torus.shape))
        raise GrokscopeError(
            f"{task.formula} adds positions on {task.torus.ndim} circles of {shape} points, not on a single circle, "
            f"so it has no Fourier frequencies. The measure 'representations' has its characters."
        )
    if task.circle is None:
        raise GrokscopeError(
            f"{task.formula} is not circular: its answer is not a sum or difference of positions on a circle, so it "
            f"has no Fourier frequencies. Circular tasks: addition, subtraction, multiplication, division and the "
            f"composition of a cyclic group."
        )
    return Circle(task, task.circle, task.circle_sign)
