"""The equations of a task as a table over its two operands, also where the task lacks an equation."""

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope.errors import GrokscopeError
from grokscope.tasks.task import Task


def has_pair_table(task: Task) -> bool:
    """Return whether every equation has two operands, and no other equation has the same ones."""
    return (
        not task.is_sequence
        and len(task.operand_positions) == 2
        and len(task.operands.unique(dim=0)) == len(task.operands)
    )


def pair_examples(task: Task) -> Int[Tensor, "n_elements n_elements"]:
    """Return the index into `task.inputs` of the equation with operands a and b; −1 if the task lacks it.

    Raises:
        GrokscopeError: The equations do not have two operands, or several equations have the same operands.
    """
    _require_two_operands(task)
    a, b = task.operands.unbind(1)
    examples = torch.full((task.n_elements, task.n_elements), -1)
    examples[a, b] = torch.arange(len(a))
    n_pairs = int((examples >= 0).sum())
    if n_pairs < len(a):
        raise GrokscopeError(
            f"{task.formula}: its {len(a):,} equations have {n_pairs:,} different pairs of operands. Allowed: one "
            f"equation per pair, because this measure arranges them in a table over the operands a and b."
        )
    return examples


def _require_two_operands(task: Task) -> None:
    task.require_single_answer()
    n_operands = len(task.operand_positions)
    if n_operands != 2:
        raise GrokscopeError(
            f"{task.formula}: its equations have {n_operands} operands. Allowed: two, because this measure arranges "
            f"the equations in a table over the operands a and b."
        )


def pair_inputs(task: Task, pairs: Int[Tensor, "*pairs 2"]) -> Int[Tensor, "*pairs n_ctx"]:
    """Return the tokens of the equations with these operands, also of equations that the task lacks.

    Args:
        task: A task whose signs are the same in every equation.
        pairs: The operands a and b of each equation.

    Raises:
        GrokscopeError: The signs differ, so an equation that the task lacks has no definite signs; or the equations
            do not have two operands.
    """
    _require_two_operands(task)
    signs = [position for position in range(task.n_ctx) if position not in task.operand_positions]
    if not (task.inputs[:, signs] == task.inputs[0, signs]).all():
        raise GrokscopeError(
            f"{task.formula}: its equations differ in their signs. Allowed: the same signs in every equation, "
            f"because this measure reads the model on all pairs of operands."
        )
    tokens = task.inputs[0].expand(*pairs.shape[:-1], -1).clone()
    tokens[..., list(task.operand_positions)] = pairs
    return tokens
