"""Circular tasks in the coordinates of their circle."""

import pytest
import torch

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks.circle import on_circle

TASKS = [
    TaskConfig(name="addition", p=11),
    TaskConfig(name="subtraction", p=11),
    TaskConfig(name="multiplication", p=11),
    TaskConfig(name="division", p=11),
    TaskConfig(name="division", p=7, form="a ∘ b ="),
    TaskConfig(name="composition", group="C9"),
    TaskConfig(name="composition", group="C2xC5"),
]


@pytest.mark.parametrize("config", TASKS, ids=lambda config: f"{config.name} {config.group} {config.form}")
def test_answer_is_at_sum_or_difference_of_positions(config: TaskConfig):
    task = tasks.build(config)
    circle = on_circle(task)
    assert torch.equal(circle.tokens[circle.answers], task.labels[circle.examples])


@pytest.mark.parametrize("config", TASKS, ids=lambda config: f"{config.name} {config.group} {config.form}")
def test_grid_contains_each_equation_on_the_circle_once(config: TaskConfig):
    task = tasks.build(config)
    circle = on_circle(task)
    n = len(circle)
    assert torch.equal(
        task.operands[circle.examples], torch.cartesian_prod(circle.tokens, circle.tokens).view(n, n, 2)
    )
    assert len(circle.examples.unique()) == len(task.inputs) - task.n_examples_off_circle


def test_circle_answers_ignore_random_labels():
    config = TaskConfig(name="subtraction", p=11, random_labels=True)
    task, _ = tasks.load(config, 0)
    circle = on_circle(task)
    assert circle.answers[3, 5] == 9
    assert not torch.equal(circle.tokens[circle.answers], task.labels[circle.examples])


@pytest.mark.parametrize("name", ["a2_b2", "division_or_subtraction", "composition"])
def test_task_without_circle_is_refused(name: str):
    with pytest.raises(GrokscopeError, match=r"is not circular.*Circular tasks: addition"):
        on_circle(tasks.build(TaskConfig(name=name, p=11, group="S4")))
