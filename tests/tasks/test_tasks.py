"""Splits, outliers and random labels; the split is checked against Philox as its paper describes it."""

import dataclasses
import hashlib
import itertools
import math
import re
from collections import Counter

import pytest
import torch

from grokscope import rng, tasks
from grokscope.algebra import tables
from grokscope.config import TaskConfig
from grokscope.config.task_config import TOKEN_FORMS
from grokscope.errors import GrokscopeError
from grokscope.tasks import Split, Task


def wrong_answers(config: TaskConfig, seed: int) -> tuple[Task, Task, Split, set[int]]:
    """Return the correct task, the task to train on, its split, and the indices of the wrong answers."""
    right = tasks.build(config)
    task, split = tasks.load(config, seed)
    return right, task, split, set((right.labels != task.labels).nonzero()[:, 0].tolist())


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_outliers_take_answers_of_training_equations(form: str):
    """All training answers differ here, so every outlier is a wrong answer."""
    n = 5
    config = TaskConfig(name="table", table=tables.tabulate(lambda a, b: a, n), train_fraction=0.2, form=form)
    right = tasks.build(config)
    # The answer a ∘ b = a is the row, so one training equation per row makes all training answers differ.
    train = torch.tensor([0, 6, 12, 18, 24])
    test = torch.tensor([i for i in range(n * n) if i % 6])
    for k in range(n + 1):
        for seed in range(20):
            changed = dataclasses.replace(config, outliers=k)
            task, split = tasks.load(changed, seed, Split(train, test))
            assert torch.equal(split.train, train)
            assert int((task.labels != right.labels).sum()) == k
            assert torch.equal(task.labels[test], right.labels[test])
            assert set(task.labels[train].tolist()) <= set(right.labels[train].tolist())
            assert torch.equal(task.inputs, right.inputs)


def test_outliers_change_training_answers_only():
    config = TaskConfig(p=59, train_fraction=0.5, outliers=600)
    right, task, split, wrong = wrong_answers(config, seed=4)
    assert wrong <= set(split.train.tolist())
    assert torch.equal(task.labels[split.test], right.labels[split.test])
    # An answer drawn from the training set is right by chance once in 59 times: about 10 of 600.
    assert 570 <= len(wrong) <= 600
    # Outliers and their answers are spread over the whole training set.
    assert min(wrong) < 200 and max(wrong) > 59 * 59 - 200
    assert Counter(task.labels[list(wrong)].tolist()).most_common(1)[0][1] < 30
    for name in ("inputs", "circle"):
        assert torch.equal(getattr(task, name), getattr(right, name))
    assert task.formula == right.formula and task.group is not None


def test_fewer_outliers_are_a_subset_with_the_same_answers():
    config = TaskConfig(name="division", p=23)
    answers = []
    for k in (0, 1, 10, 60, 151):
        right, task, split, wrong = wrong_answers(dataclasses.replace(config, outliers=k), seed=2)
        answers.append({i: int(task.labels[i]) for i in wrong})
        assert len(split.train) == 151
    assert answers[0] == {} and len(answers[1]) <= 1
    for smaller, larger in itertools.pairwise(answers):
        assert smaller.items() <= larger.items()
    # About one answer in 23 is right by chance.
    assert 6 <= len(answers[2]) <= 10 and 130 <= len(answers[4]) <= 151


def test_outliers_are_a_function_of_the_split_seed():
    config = TaskConfig(p=23, train_fraction=0.5, outliers=100)
    state = torch.get_rng_state()
    first, repeated, changed = (tasks.load(config, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.labels, repeated.labels) and not torch.equal(first.labels, changed.labels)
    assert torch.equal(torch.get_rng_state(), state)
    # The seed decides the outliers of a given split too.
    split = tasks.load(config, 0)[1]
    same_seed, new_seed = (tasks.load(config, seed, split)[0] for seed in (0, 1))
    assert torch.equal(same_seed.labels, first.labels) and not torch.equal(same_seed.labels, new_seed.labels)


def test_at_most_the_whole_training_set_is_outliers():
    config = TaskConfig(p=23, train_fraction=0.5)
    n_train = len(tasks.load(config, 0)[1].train)
    _, _, split, wrong = wrong_answers(dataclasses.replace(config, outliers=n_train), seed=0)
    assert 0.9 * n_train < len(wrong) <= n_train == len(split.train) and wrong <= set(split.train.tolist())
    message = rf"^task\.outliers: {n_train + 1} of {n_train} training equations; allowed: 0 to {n_train}\.$"
    with pytest.raises(GrokscopeError, match=message):
        tasks.load(dataclasses.replace(config, outliers=n_train + 1), 0)


def test_outlier_with_one_training_equation_is_refused():
    config = TaskConfig(name="table", table="0 1; 1 0", train_fraction=0.25, outliers=1)
    with pytest.raises(GrokscopeError, match=r"^task\.outliers: 1 of 1 training") as refused:
        tasks.load(config, 0)
    assert "allowed: 0 to 1" not in str(refused.value), "the message allows the refused value"


@pytest.mark.parametrize("name", ["addition", "division", "composition"])
def test_random_labels_are_uniform_and_independent(name: str):
    config = TaskConfig(name=name, p=59, group="C59")
    right, task, split, _ = wrong_answers(dataclasses.replace(config, random_labels=True), seed=1)
    assert torch.equal(split.train, tasks.load(config, 1)[1].train) and torch.equal(task.inputs, right.inputs)
    assert set(task.labels.tolist()) == set(range(59))
    for examples in (split.train, split.test):
        n = len(examples)
        counts = torch.bincount(task.labels[examples], minlength=59).double()
        # χ² with 58 degrees of freedom: 58 ± √116, and above 97 once in a thousand times.
        assert len(counts) == 59 and 30 < float(((counts - n / 59) ** 2 / (n / 59)).sum()) < 97
        # A random label is right by chance: n/59 ± √(n/59) of them.
        agreeing = int((task.labels[examples] == right.labels[examples]).sum())
        assert abs(agreeing - n / 59) < 4 * (n / 59) ** 0.5
        assert int((right.labels[examples] == right.labels[examples]).sum()) - n / 59 > 4 * (n / 59) ** 0.5


def test_random_labels_are_a_function_of_the_split_seed():
    config = TaskConfig(name="composition", group="S3", random_labels=True)
    state = torch.get_rng_state()
    first, repeated, changed = (tasks.load(config, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.labels, repeated.labels) and not torch.equal(first.labels, changed.labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_outliers_of_random_labels_keep_test_labels():
    config = TaskConfig(p=23, train_fraction=0.5, random_labels=True)
    random, split = tasks.load(config, 0)
    outlying, _ = tasks.load(dataclasses.replace(config, outliers=100), 0)
    assert torch.equal(outlying.labels[split.test], random.labels[split.test])
    assert 80 < int((outlying.labels != random.labels).sum()) <= 100


def test_default_answers_are_right():
    for config in (TaskConfig(p=23), TaskConfig(name="aba", group="S3")):
        assert torch.equal(tasks.load(config, 5)[0].labels, tasks.build(config).labels)


@pytest.mark.parametrize(
    ("fraction", "n_train"), [(0.3, 3830), (0.29, 3703), (0.5, 6384), (1 / 3, 4256), (0.9999, 12767)]
)
def test_split_rounds_down_and_uses_every_example(fraction, n_train):
    task = tasks.build(TaskConfig(p=113))
    split = tasks.draw_split(task, fraction, seed=3)
    assert len(split.train) == n_train
    assert sorted(split.train.tolist() + split.test.tolist()) == list(range(12769))
    assert (split.train.diff() > 0).all() and (split.test.diff() > 0).all()


def test_train_fraction_is_exact_despite_float_rounding():
    assert math.floor(0.29 * 100) == 28
    task = tasks.build(TaskConfig(name="division", p=5))
    hundred = tasks.Task("", "", task.inputs.repeat(5, 1), task.labels.repeat(5), 5, 6, 5, None)
    assert len(tasks.draw_split(hundred, 0.29, seed=0).train) == 29


def test_split_is_a_function_of_the_seed():
    task = tasks.build(TaskConfig(p=23))
    state = torch.get_rng_state()
    first, repeated, changed = (tasks.draw_split(task, 0.5, seed) for seed in (0, 0, 1))
    assert torch.equal(first.train, repeated.train) and torch.equal(first.test, repeated.test)
    # Two independent halves of 529 examples share 132 ± √529/4.
    shared = len(set(first.train.tolist()) & set(changed.train.tolist()))
    assert abs(shared - 132) < 40
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("fraction", "empty"), [(0.01, "training"), (1.0, "test")])
def test_split_with_an_empty_part_is_refused(fraction, empty):
    with pytest.raises(GrokscopeError, match=f"task.train_fraction.*{empty} set empty"):
        tasks.draw_split(tasks.build(TaskConfig(p=7)), fraction, seed=0)


@pytest.mark.parametrize("p", [3, 5, 7, 113])
def test_smallest_train_fraction_in_message_is_accepted(p: int):
    task = tasks.build(TaskConfig(p=p))
    with pytest.raises(GrokscopeError) as refused:
        tasks.draw_split(task, 1e-9, seed=0)
    smallest = re.search(r"allowed: from (\S+) to below 1", str(refused.value))
    assert smallest and len(tasks.draw_split(task, float(smallest[1]), seed=0).train) == 1


def philox(key: tuple[int, int], n: int) -> list[int]:
    """Return n numbers of Philox 4x64-10 (Salmon et al. 2011, figure 2), with NumPy's first counter, 1."""
    mask, numbers = 2**64 - 1, []
    for counter in range(1, n // 4 + 2):
        c0, c1, c2, c3 = counter, 0, 0, 0
        k0, k1 = key
        for _ in range(10):
            left, right = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
            c0, c1, c2, c3 = (right >> 64) ^ c1 ^ k0, right & mask, (left >> 64) ^ c3 ^ k1, left & mask
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        numbers += [c0, c1, c2, c3]
    return numbers[:n]


def test_split_agrees_with_philox_from_its_paper():
    """A new version of NumPy or torch therefore cannot change the split of an old run."""
    task = tasks.build(TaskConfig(p=11))
    key = hashlib.sha256(b"split/5/0").digest()
    bits = philox((int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")), 121)
    order = sorted(range(121), key=lambda i: bits[i])
    assert tasks.draw_split(task, 0.4, seed=5).train.tolist() == sorted(order[:48])


@pytest.mark.parametrize("changed", [("other", 0, 0), ("split", 1, 0), ("split", 0, 1)])
def test_permutation_depends_on_every_argument(changed):
    purpose, seed, index = changed
    original, varied = rng.permutation("split", 0, 0, 50), rng.permutation(purpose, seed, index, 50)
    assert sorted(original) == sorted(varied) == list(range(50))
    assert original.tolist() != varied.tolist()


def test_unknown_task_is_refused_with_a_suggestion():
    with pytest.raises(GrokscopeError, match="'adition'.*Did you mean 'addition'"):
        tasks.build(TaskConfig(name="adition"))
