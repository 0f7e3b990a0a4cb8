"""Tasks as the composition of group elements."""

import pytest
import torch

from grokscope import tasks
from grokscope.algebra import groups
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks.group_pairs import as_composition

CIRCULAR = ["addition", "subtraction", "multiplication", "division"]


@pytest.mark.parametrize("config", [TaskConfig(name=name, p=11) for name in CIRCULAR], ids=CIRCULAR)
def test_circular_task_composes_positions(config):
    task = tasks.build(config)
    composition = as_composition(task)
    assert composition.group.name == ("C11" if config.name in ("addition", "subtraction") else "C10")
    answers = task.labels[composition.examples]
    assert torch.equal(answers, composition.tokens[torch.from_numpy(composition.group.table)])
    assert torch.equal(task.operands[composition.examples, 0], composition.tokens[:, None].expand_as(answers))
    assert len(composition.examples.unique()) == len(composition) ** 2


@pytest.mark.parametrize("form", ["a b =", "a ∘ b ="])
@pytest.mark.parametrize("name", ["S3", "A4", "D5", "C2xC2", "C3xC5", "C12"])
def test_composition_task_composes_group_elements(name, form):
    task = tasks.build(TaskConfig(name="composition", group=name, form=form))
    composition = as_composition(task)
    assert task.is_composition
    answers = task.labels[composition.examples]
    assert torch.equal(answers, composition.tokens[torch.from_numpy(composition.group.table)])
    assert (composition.group.name == name) == (name not in ("C3xC5",))
    assert len(composition.group) == len(groups.group(name))


def test_random_labels_do_not_hide_the_group():
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
def test_task_without_composition_is_refused(config):
    task = tasks.build(config)
    assert not task.is_composition
    with pytest.raises(GrokscopeError, match="not a composition in a group"):
        as_composition(task)
