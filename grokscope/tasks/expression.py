"""Any arithmetic expression modulo p, such as a·b + c, in operands of one vocabulary or of several."""

import dataclasses

import torch

from grokscope import tasks
from grokscope.config import TaskConfig, expressions, task_size
from grokscope.tasks import Task


def expression(config: TaskConfig) -> Task:
    """Return the values of an expression in a, b, c, … modulo p, over all operands.

    With `config.sizes`, operand number i has values 0 … sizes[i] − 1 in tokens of its own: those of a come first,
    then those of b, and so on. The answers are 0 … p − 1.
    """
    sizes = task_size.expression_sizes(config)
    values = torch.cartesian_prod(*map(torch.arange, sizes)).reshape(-1, len(sizes))
    answers = expressions.evaluate(config.expression, values.unbind(1), config.p)
    labels = torch.zeros(len(values), dtype=torch.int64) + answers
    formula = f"{config.expression.strip()} mod {config.p}"
    if not config.sizes.strip():
        return tasks.operand_equations(config, formula, values, labels, config.p)
    first_tokens = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    names = tuple(f"{'abcdef'[i]}={value}" for i, size in enumerate(sizes) for value in range(size))
    formula += f", sizes {' × '.join(map(str, sizes))}"
    task = tasks.operand_equations(config, formula, values + first_tokens, labels, sum(sizes), n_answers=config.p)
    return dataclasses.replace(
        task, is_commutative=False, element_names=names, answer_names=tuple(map(str, range(config.p)))
    )
