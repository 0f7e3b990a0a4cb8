"""The coordinates of a task that composes group elements: a grid of equations in the order of the elements."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.algebra import groups
from grokscope.algebra.groups import Group
from grokscope.errors import GrokscopeError
from grokscope.tasks.circle import on_circle
from grokscope.tasks.pair_table import pair_examples, pair_inputs
from grokscope.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Composition:
    """The pairs of operands in a group, as a grid over elements (x, y) with the answer x·y.

    A task on a circle of n points composes the positions, which are elements of C_n. Multiplication mod p composes in
    C_(p−1), without zero, and modulo any n in the product of cyclic groups that the units form. Subtraction and
    division compose with the inverse of the second operand. A task may lack
    some of the equations, as `tasks.circle.Circle` explains.
    """

    group: Group
    tokens: Int[Tensor, " n"]
    """The token of each element: a row of W_E and a column of W_U."""
    examples: Int[Tensor, "n n"]
    """The index into `task.inputs` of the equation with the answer x·y; −1 without an equation."""
    inputs: Int[Tensor, "n n n_ctx"]
    """The tokens of every pair, also of pairs without an equation."""

    def __len__(self) -> int:
        return len(self.tokens)


def as_composition(task: Task) -> Composition:
    """Return the equations of a task as the composition of group elements.

    Raises:
        GrokscopeError: The task has no circle or torus and is not the composition of a group, or its equations do not
            form a table over two operands.
    """
    if task.circle is not None:
        circle = on_circle(task)
        group = groups.group(f"C{len(circle)}")
        second = torch.arange(len(circle)) if circle.sign == 1 else torch.from_numpy(group.inverse)
        return Composition(group, circle.tokens, circle.examples[:, second], circle.inputs[:, second])
    if task.torus is not None:
        group = groups.group("x".join(f"C{n}" for n in task.torus.shape))
        tokens, n = task.torus.flatten(), len(group)
        inputs = pair_inputs(task, torch.cartesian_prod(tokens, tokens).view(n, n, 2))
        second = torch.arange(n) if task.circle_sign == 1 else torch.from_numpy(group.inverse)
        examples = pair_examples(task)[tokens][:, tokens]
        return Composition(group, tokens, examples[:, second], inputs[:, second])
    if task.group is None or not task.is_composition:
        raise GrokscopeError(
            f"{task.formula} is not a composition in a group: its answer is not a·b for all a and b, so it has no "
            f"representations. Tasks with representations: 'composition', addition, subtraction, multiplication and "
            f"division."
        )
    n = len(task.group)
    elements = torch.arange(n)
    inputs = pair_inputs(task, torch.cartesian_prod(elements, elements).view(n, n, 2))
    return Composition(task.group, elements, pair_examples(task), inputs)
