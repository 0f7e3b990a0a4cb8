"""Tasks of other packages: invalid and failing ones are refused by name."""

import dataclasses
from typing import Any

import pytest
import torch
from support.plugin_tasks import RegisterTask
from support.plugin_tasks import register_task as register_task

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks import Task, modular


def test_task_with_labels_beyond_its_answers_is_refused(register_task: RegisterTask):
    def beyond(config: TaskConfig) -> Task:
        task = modular.addition(config)
        return dataclasses.replace(task, labels=task.labels + 1)

    with pytest.raises(
        GrokscopeError, match=r"^The task 'beyond' is invalid: labels: 1 to 11; allowed: 0 to .* = 10\.$"
    ):
        tasks.build(register_task(beyond))


def test_task_that_is_not_a_task_or_fails_is_named(register_task: RegisterTask):
    def as_dict(config: TaskConfig) -> Any:
        return {"inputs": []}

    def failing(config: TaskConfig) -> Any:
        raise KeyError(config.p)

    with pytest.raises(GrokscopeError, match=r"^The task 'as_dict' returned \{'inputs': \[\]\}; allowed: a Task\.$"):
        tasks.build(register_task(as_dict))
    with pytest.raises(
        GrokscopeError, match=r"^The task 'failing' failed: KeyError: 11 \(test_plugin_tasks\.py, line \d+\)\.$"
    ):
        tasks.build(register_task(failing))


CIRCLES = {
    "reversed sum": (
        {"circle_sign": -1},
        "the difference of the positions of 0 and 1 is the position of 4, but",
    ),
    "other order": (
        {"circle": torch.tensor([0, 2, 1, 3, 4])},
        "the sum of the positions of 1 and 1 is the position of 4",
    ),
    "repeated": ({"circle": torch.tensor([0, 1, 1])}, "its 3 tokens must be different elements from 0 to 4"),
    "beyond": ({"circle": torch.arange(6)}, "its 6 tokens must be different elements from 0 to 4"),
    "sign 0": ({"circle_sign": 0}, "circle_sign: 0; allowed: 1 to add"),
}


@pytest.mark.parametrize(("changes", "message"), CIRCLES.values(), ids=CIRCLES)
def test_task_with_a_false_circle_is_refused(changes: dict[str, Any], message: str, register_task: RegisterTask):
    def false_circle(config: TaskConfig) -> Task:
        return dataclasses.replace(modular.addition(config), **changes)

    with pytest.raises(GrokscopeError, match="^The task 'false_circle' is invalid: circle") as error:
        tasks.build(dataclasses.replace(register_task(false_circle), p=5))
    assert message in str(error.value)


def test_circle_of_the_units_ignores_the_equations_of_zero(register_task: RegisterTask):
    def multiplication_with_zero(config: TaskConfig) -> Task:
        p = config.p
        a, b = torch.cartesian_prod(torch.arange(p), torch.arange(p)).T
        powers = torch.tensor([2**j % p for j in range(p - 1)])
        return tasks.equations(config, "a · b", a, b, a * b % p, p, circle=powers)

    task = tasks.build(dataclasses.replace(register_task(multiplication_with_zero), p=5))
    assert task.n_examples_off_circle == 9
