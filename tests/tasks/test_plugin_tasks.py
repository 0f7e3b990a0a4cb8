"""Tasks of other packages: invalid and failing ones are refused by name."""

import dataclasses
from typing import Any

import pytest
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
