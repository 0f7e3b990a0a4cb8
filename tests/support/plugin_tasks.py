"""Tasks as other packages define them: part of a table, two tokens without "=", and three operands."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from grokscope import plugins, tasks
from grokscope.config import TaskConfig
from grokscope.tasks import Task, group_operations, modular

RegisterTask = Callable[[Callable[[TaskConfig], Task]], TaskConfig]


@pytest.fixture
def register_task(monkeypatch: pytest.MonkeyPatch) -> RegisterTask:
    """The function that registers a task as an entry point does, and returns a config that names it."""

    def register(function: Callable[[TaskConfig], Task]) -> TaskConfig:
        monkeypatch.setitem(plugins._registered("tasks"), function.__name__, SimpleNamespace(load=lambda: function))
        return TaskConfig(name=function.__name__, p=11, group="S3", train_fraction=0.5)

    return register


def part_of(task: Task, is_part: torch.Tensor) -> Task:
    """Return a task with some of the equations."""
    return dataclasses.replace(task, inputs=task.inputs[is_part], labels=task.labels[is_part])


def ordered_addition(config: TaskConfig) -> Task:
    """Return a + b mod p for a ≤ b only."""
    task = modular.addition(config)
    return part_of(task, task.operands[:, 0] <= task.operands[:, 1])


def holed_division(config: TaskConfig) -> Task:
    """Return a / b mod p without the equations with a + b = 5."""
    task = modular.division(config)
    return part_of(task, task.operands.sum(1) != 5)


def holed_composition(config: TaskConfig) -> Task:
    """Return a·b in a group without the equations with a + b = 5."""
    task = group_operations.composition(config)
    return part_of(task, task.operands.sum(1) != 5)


def two_tokens(config: TaskConfig) -> Task:
    """Return a + b mod p in the tokens "a b" (Zhong et al. 2023)."""
    task = modular.addition(config)
    return dataclasses.replace(task, inputs=task.operands, d_vocab=config.p)


def three_operands(config: TaskConfig) -> Task:
    """Return a + b + c mod p in the tokens "a b c ="."""
    operands = torch.cartesian_prod(*[torch.arange(config.p)] * 3)
    equals = torch.full((len(operands), 1), config.p)
    inputs, labels = torch.cat([operands, equals], 1), operands.sum(1) % config.p
    return tasks.Task(config.name, f"a + b + c mod {config.p}", inputs, labels, config.p, config.p + 1, config.p)


def both_signs(config: TaskConfig) -> Task:
    """Return a + b and a − b mod p in one task; the sign decides."""
    a, b = torch.cartesian_prod(*[torch.arange(config.p)] * 2).repeat(2, 1).T
    sign = torch.arange(2).repeat_interleave(config.p**2)
    inputs = torch.stack([a, config.p + 1 + sign, b, torch.full_like(a, config.p)], 1)
    labels = torch.where(sign == 0, a + b, a - b) % config.p
    return tasks.Task(config.name, "a ± b", inputs, labels, config.p, config.p + 3, config.p)
