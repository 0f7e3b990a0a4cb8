"""Several tasks in one run: tokens, splits and refusals."""

import pytest
import torch

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError

TEXT = "addition p=5; multiplication p=7 train_fraction=0.6"


def test_examples_are_those_of_the_tasks_after_a_task_token():
    task = tasks.build(TaskConfig(name="mixture", mixture=TEXT, form="a ∘ b ="))
    members = [tasks.build(TaskConfig(name=name, p=p)) for name, p in (("addition", 5), ("multiplication", 7))]
    assert (task.n_elements, task.d_vocab, task.d_vocab_out) == (7, 11, 7)
    assert task.signs == ("=", "∘", "addition", "multiplication")
    for i, (part, member) in enumerate(zip(task.parts, members, strict=True)):
        inputs = task.inputs[part.examples]
        assert set(inputs[:, 0].tolist()) == {9 + i} and set(inputs[:, 2].tolist()) == {8}
        assert torch.equal(inputs[:, [1, 3]], member.operands) and set(inputs[:, 4].tolist()) == {7}
        assert torch.equal(task.labels[part.examples], member.labels)


def test_each_task_has_its_own_fraction_and_split():
    config = TaskConfig(name="mixture", mixture=f"addition p=7; {TEXT}", train_fraction=0.4)
    task, split = tasks.load(config, 2)
    sizes = {part.name: part.examples.stop - part.examples.start for part in task.parts}
    assert sizes == {"addition_1": 49, "addition_2": 25, "multiplication": 49}
    own = [split.train[(split.train >= p.examples.start) & (split.train < p.examples.stop)] for p in task.parts]
    assert [len(part) for part in own] == [19, 10, 29]
    assert len(torch.cat([split.train, split.test]).unique()) == len(task.inputs)
    # Equal sizes do not give equal splits: each task has a random stream of its own.
    twice = tasks.load(TaskConfig(name="mixture", mixture="addition p=7; subtraction p=7"), 2)[1].train
    assert (twice[twice < 49]).tolist() != (twice[twice >= 49] - 49).tolist()


def test_tasks_of_different_lengths_are_refused():
    with pytest.raises(GrokscopeError, match="different lengths \\(addition 3, parity 9\\)"):
        tasks.build(TaskConfig(name="mixture", mixture="addition p=5; parity n_bits=8"))
