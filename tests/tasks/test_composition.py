"""A task as the composition of a group's elements: which tasks are one, and what each example is."""

import pytest
import torch

from grokscope import tasks
from grokscope.algebra import groups
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks.composition import as_composition

CIRCULAR = ["addition", "subtraction", "multiplication", "division"]


@pytest.mark.parametrize("config", [*(TaskConfig(name=name, p=11) for name in CIRCULAR)], ids=CIRCULAR)
def test_a_circular_task_composes_its_positions(config):
    task = tasks.build(config)
    found = as_composition(task)
    assert found.group.name == ("C11" if config.name in ("addition", "subtraction") else "C10")
    answers = task.labels[found.examples]
    assert torch.equal(answers, found.tokens[torch.from_numpy(found.group.table)])
    assert torch.equal(task.operands[found.examples, 0], found.tokens[:, None].expand_as(answers))
    assert len(found.examples.unique()) == len(found) ** 2


@pytest.mark.parametrize("form", ["a b =", "a ∘ b ="])
@pytest.mark.parametrize("name", ["S3", "A4", "D5", "C2xC2", "C3xC5", "C12"])
def test_composition_in_a_group_is_one(name, form):
    task = tasks.build(TaskConfig(name="composition", group=name, form=form))
    found = as_composition(task)
    assert task.is_composition
    answers = task.labels[found.examples]
    assert torch.equal(answers, found.tokens[torch.from_numpy(found.group.table)])
    assert (found.group.name == name) == (name not in ("C3xC5",))
    assert len(found.group) == len(groups.group(name))


def test_replaced_answers_do_not_hide_the_group():
    task, _ = tasks.load(TaskConfig(name="composition", group="S3", train_fraction=0.5, random_labels=True), 0)
    assert task.is_composition and as_composition(task).group.name == "S3"
    assert not torch.equal(task.labels, torch.from_numpy(as_composition(task).group.table).flatten())


@pytest.mark.parametrize(
    "config",
    [
        TaskConfig(name="conjugation", group="S3"),
        TaskConfig(name="aba", group="S3"),
        TaskConfig(name="aba", group="C5"),
        TaskConfig(name="a2_b2", p=7),
        TaskConfig(name="table", table="0 1; 1 0"),
    ],
    ids=lambda config: f"{config.name} {config.group}",
)
def test_another_operation_is_refused(config):
    task = tasks.build(config)
    assert not task.is_composition
    with pytest.raises(GrokscopeError, match="no composition in a group"):
        as_composition(task)
