"""The coordinates of a circular task, in which its operation adds or subtracts positions on a circle."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.tasks import Task


@dataclass(frozen=True, eq=False)
class Circle:
    """The equations with both operands on the circle, as a grid over the operands' positions (i, j).

    The answer lies at position i + sign·j mod n. Results for addition mod n therefore also apply to subtraction, and,
    through the discrete logarithm, to multiplication and division mod p (n = p − 1, without zero).
    """

    tokens: Int[Tensor, " n"]
    """The token at each position: a row of W_E and a column of W_U."""
    sign: int
    """1 if the operation adds positions, −1 if it subtracts them."""
    examples: Int[Tensor, "n n"]
    """The index into `task.inputs` of the equation with operands at positions i and j."""

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def answers(self) -> Int[Tensor, "n n"]:
        """The position i + sign·j mod n of the correct answer; ignores outliers and random labels."""
        positions = torch.arange(len(self))
        return (positions[:, None] + self.sign * positions) % len(self)


def on_circle(task: Task) -> Circle:
    """Return the equations of a circular task in the coordinates of its circle.

    Raises:
        GrokscopeError: The task has no circle.
    """
    if task.circle is None:
        raise GrokscopeError(
            f"{task.formula} is not circular: its answer is not a sum or difference of positions on a circle, so it "
            f"has no Fourier frequencies. Circular tasks: addition, subtraction, multiplication, division and the "
            f"composition of a cyclic group."
        )
    n = len(task.circle)
    positions = torch.full((task.n_elements,), -1)
    positions[task.circle] = torch.arange(n)
    i, j = positions[task.operands].unbind(1)
    on_grid = (i >= 0) & (j >= 0)
    examples = torch.empty(n, n, dtype=torch.int64)
    examples[i[on_grid], j[on_grid]] = torch.arange(len(i))[on_grid]
    return Circle(task.circle, task.circle_sign, examples)
