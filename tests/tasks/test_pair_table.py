"""Equations as a table over two operands: missing equations, other numbers of operands, other signs."""

import dataclasses

import pytest
import torch
from support.plugin_tasks import both_signs, holed_composition, ordered_addition, three_operands, two_tokens

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks.circle import on_circle
from grokscope.tasks.group_pairs import as_composition
from grokscope.tasks.pair_table import has_pair_table, pair_examples, pair_inputs

CONFIG = TaskConfig(p=7, group="S3")


@pytest.mark.parametrize(
    ("task", "positions", "names", "signs"),
    [
        (tasks.build(TaskConfig(p=7)), (0, 1), ("a", "b", "="), ("=",)),
        (tasks.build(TaskConfig(p=7, form="a ∘ b =")), (0, 2), ("a", "∘", "b", "="), ("=", "∘")),
        (two_tokens(CONFIG), (0, 1), ("a", "b"), ()),
        (three_operands(CONFIG), (0, 1, 2), ("a", "b", "c", "="), ("=",)),
        (both_signs(CONFIG), (0, 2), ("a", "sign", "b", "="), ("=", "∘", "sign 3")),
    ],
    ids=["a b =", "a ∘ b =", "two tokens", "three operands", "two signs"],
)
def test_positions_follow_from_the_tokens(task, positions, names, signs):
    assert task.operand_positions == positions and task.position_names == names and task.signs == signs
    assert task.answer_position == len(names) - 1
    assert torch.equal(task.operands, task.inputs[:, list(positions)])


def test_missing_equations_are_minus_one_in_every_call():
    task = ordered_addition(CONFIG)
    for _ in range(3):
        table = pair_examples(task)
        assert torch.equal(on_circle(task).examples, table)
        for a in range(7):
            for b in range(7):
                assert (table[a, b] == -1) == (a > b)
                if a <= b:
                    assert task.operands[table[a, b]].tolist() == [a, b]


def test_missing_equation_of_a_group_is_minus_one():
    task = holed_composition(CONFIG)
    composition = as_composition(task)
    assert (composition.examples == -1).nonzero().tolist() == [[a, 5 - a] for a in range(6)]
    assert composition.inputs[2, 3].tolist() == [2, 3, 6]


@pytest.mark.parametrize("form", ["a b =", "a ∘ b ="])
def test_inputs_of_pairs_equal_those_of_the_task(form):
    task = tasks.build(TaskConfig(name="division", p=7, form=form))
    assert torch.equal(pair_inputs(task, task.operands), task.inputs)
    assert pair_inputs(task, torch.tensor([3, 0])).tolist() == ([3, 0, 7] if form == "a b =" else [3, 8, 0, 7])


def test_other_than_two_operands_are_refused():
    task = three_operands(CONFIG)
    assert (
        not has_pair_table(task) and has_pair_table(ordered_addition(CONFIG)) and has_pair_table(two_tokens(CONFIG))
    )
    with pytest.raises(GrokscopeError, match=r"a \+ b \+ c mod 7: its equations have 3 operands\. Allowed: two"):
        pair_examples(task)


def test_several_equations_of_one_pair_are_refused():
    # The sign, not the circle, decides between a + b and a − b.
    task = dataclasses.replace(both_signs(CONFIG), circle=torch.arange(CONFIG.p))
    assert not has_pair_table(task)
    with pytest.raises(GrokscopeError, match="its 98 equations have 49 different pairs"):
        _ = on_circle(task).examples
    with pytest.raises(GrokscopeError, match="differ in their signs"):
        _ = on_circle(task).inputs
