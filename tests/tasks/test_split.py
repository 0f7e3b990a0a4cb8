"""The split by unordered pairs: an equation and its mirror are on the same side."""

import pytest
import torch
from support.plugin_tasks import holed_division, three_operands

from grokscope import tasks
from grokscope.config import RunConfig, TaskConfig, from_dict
from grokscope.errors import GrokscopeError
from grokscope.tasks.split import _fitting


def sides(task: tasks.Task, split: tasks.Split) -> dict[tuple[int, ...], set[str]]:
    """Return the sides on which the equations of each unordered tuple of operands are."""
    table: dict[tuple[int, ...], set[str]] = {}
    for name, part in (("train", split.train), ("test", split.test)):
        for operands in task.operands[part].tolist():
            table.setdefault(tuple(sorted(operands)), set()).add(name)
    return table


@pytest.mark.parametrize("form", ["a b =", "a ∘ b ="])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.65])
def test_mirror_is_on_the_same_side(form, fraction):
    for p in (11, 23):
        for seed in range(5):
            config = TaskConfig(p=p, train_fraction=fraction, form=form, split="pairs")
            task, split = tasks.load(config, seed)
            assert len(split.train) == int(fraction * p * p)
            assert sorted(torch.cat([split.train, split.test]).tolist()) == list(range(p * p))
            assert (split.train.diff() > 0).all() and (split.test.diff() > 0).all()
            assert all(len(names) == 1 for names in sides(task, split).values())


def test_mirror_is_often_on_the_other_side_by_equations():
    """This is the leak that the split by pairs avoids."""
    task, split = tasks.load(TaskConfig(p=59, train_fraction=0.65), 0)
    train = {tuple(pair) for pair in task.operands[split.train].tolist()}
    mirrored = [(b, a) in train for a, b in task.operands[split.test].tolist() if a != b]
    assert sum(mirrored) / len(mirrored) == pytest.approx(0.65, abs=0.03)


@pytest.mark.parametrize("function", [holed_division, three_operands])
def test_split_by_pairs_covers_every_task(function):
    config = TaskConfig(p=7, train_fraction=0.4, split="pairs")
    task = function(config)
    split = tasks.draw_split(task, 0.4, 0, "pairs")
    assert len(split.train) == int(0.4 * len(task.inputs)) and len(split.train) + len(split.test) == len(task.inputs)
    assert all(len(names) == 1 for names in sides(task, split).values())


def test_split_by_pairs_is_a_function_of_the_seed():
    task = tasks.build(TaskConfig(p=23))
    state = torch.get_rng_state()
    first, repeated, changed = (tasks.draw_split(task, 0.5, seed, "pairs") for seed in (0, 0, 1))
    assert torch.equal(first.train, repeated.train) and not torch.equal(first.train, changed.train)
    assert torch.equal(torch.get_rng_state(), state)
    # Each unordered pair is a training pair with the same probability, equal operands included.
    counts = torch.zeros(529)
    for seed in range(400):
        counts[tasks.draw_split(task, 0.5, seed, "pairs").train] += 1
    is_equal = task.operands[:, 0] == task.operands[:, 1]
    assert counts[is_equal].mean() / 400 == pytest.approx(0.5, abs=0.03)
    assert counts[~is_equal].mean() / 400 == pytest.approx(0.5, abs=0.01)


def test_groups_that_no_longer_fit_are_passed_over():
    sizes = torch.tensor([2, 2, 2, 1, 2, 1, 1])
    assert _fitting(sizes, 5).tolist() == [True, True, False, True, False, False, False]
    assert _fitting(sizes, 6).tolist() == [True, True, True, False, False, False, False]
    assert _fitting(sizes, 8).tolist() == [True, True, True, True, False, True, False]
    assert _fitting(torch.tensor([2, 2]), 3).tolist() == [True, False]
    assert _fitting(torch.tensor([2, 2]), 1).tolist() == [False, False]


def test_train_set_without_room_for_a_pair_is_refused():
    config = TaskConfig(name="table", table=". 1; 1 .", train_fraction=0.5, split="pairs")
    with pytest.raises(GrokscopeError, match=r"^task\.split: 'pairs', but every unordered pair has more than 1"):
        tasks.load(config, 0)


def test_split_by_equations_keeps_the_digest_of_old_runs():
    config, by_pairs = (RunConfig(task=TaskConfig(p=11, split=split)) for split in ("equations", "pairs"))
    values = config.to_dict()
    assert values["task"].pop("split") == "equations"
    assert from_dict(values).digest == config.digest != by_pairs.digest
    with pytest.raises(GrokscopeError, match=r"task\.split: 'halves'; allowed: 'equations' or 'pairs'"):
        RunConfig(task=TaskConfig(split="halves")).validate()
