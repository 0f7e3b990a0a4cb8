"""A task that composes the elements of a group, in the order of the group's elements."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.algebra import groups
from grokscope.algebra.groups import Group
from grokscope.errors import GrokscopeError
from grokscope.tasks import Task
from grokscope.tasks.circle import on_circle


@dataclass(frozen=True, eq=False)
class Composition:
    """The equations whose operands lie in a group, as a grid over elements (x, y), where the answer is x·y.

    A task on a circle of n points composes elements of C_n, its positions: so does multiplication mod p in
    C_(p−1), zero left out; subtraction and division do with the second operand read as its inverse.
    """

    group: Group
    tokens: Int[Tensor, " n"]
    """The token, and the answer's class, of each element: rows of W_E and columns of W_U."""
    examples: Int[Tensor, "n n"]
    """The index into `task.inputs` of the equation of which the answer is x·y."""

    def __len__(self) -> int:
        return len(self.tokens)


def as_composition(task: Task) -> Composition:
    """Return a task as the composition of a group; raise GrokscopeError, saying why, for one that composes none."""
    if task.circle is not None:
        circle = on_circle(task)
        group = groups.group(f"C{len(circle)}")
        second = torch.arange(len(circle)) if circle.sign == 1 else torch.from_numpy(group.inverse)
        return Composition(group, circle.tokens, circle.examples[:, second])
    if task.group is None or not task.is_composition:
        raise GrokscopeError(
            f"{task.formula} is no composition in a group: its answer is not a·b for all a and b, so it has no "
            f"representations; tasks that have are 'composition', addition, subtraction, multiplication and division."
        )
    n = len(task.group)
    examples = torch.empty(n, n, dtype=torch.int64)
    examples[task.operands[:, 0], task.operands[:, 1]] = torch.arange(len(task.operands))
    return Composition(task.group, torch.arange(n), examples)
