"""Operations on a finite group: x·y, x·y·x⁻¹ and x·y·x (Power et al. 2022, appendix A.1.1, on S5)."""

import numpy as np
import torch
from jaxtyping import Int

from grokscope import tasks
from grokscope.algebra import groups
from grokscope.algebra.groups import Group
from grokscope.config import TaskConfig
from grokscope.tasks import Task


def composition(config: TaskConfig) -> Task:
    """Return a·b over all pairs of elements. A cyclic group has a circle: the powers of its smallest generator."""
    group = groups.group(config.group)
    return _task(config, "a·b", group, group.table, group.cycle)


def conjugation(config: TaskConfig) -> Task:
    """Return a·b·a⁻¹ over all pairs of elements."""
    group = groups.group(config.group)
    return _task(config, "a·b·a⁻¹", group, group.conjugates)


def aba(config: TaskConfig) -> Task:
    """Return a·b·a over all pairs of elements."""
    group = groups.group(config.group)
    return _task(config, "a·b·a", group, group.table[group.table, np.arange(len(group))[:, None]])


def _task(
    config: TaskConfig,
    operation: str,
    group: Group,
    answers: Int[np.ndarray, "n n"],
    cycle: Int[np.ndarray, " n"] | None = None,
) -> Task:
    """Return the task over all pairs of elements with the given table of answers."""
    elements = torch.arange(len(group))
    a, b = torch.cartesian_prod(elements, elements).unbind(1)
    circle = None if cycle is None else torch.from_numpy(cycle)
    labels = torch.from_numpy(answers).flatten()
    return tasks.equations(
        config, f"{operation} in {group.name}", a, b, labels, len(group), circle=circle, group=group
    )
