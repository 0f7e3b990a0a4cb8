"""The batches of a run: functions of seed and step, and exact in size."""

import dataclasses
import math
import random
from collections.abc import Iterable
from fractions import Fraction

import pytest
import torch

from grokscope.config import RunConfig, TaskConfig
from grokscope.opened_run import data_digest
from grokscope.training.dataset import Dataset
from grokscope.training.loop import Setup

CPU = torch.device("cpu")


def batches(setup: Setup, steps: Iterable[int]) -> list[bytes]:
    """Return the tokens and labels of the batches after some steps, as bytes."""
    pairs = (setup.batch(step) for step in steps)
    return [equations.tokens.numpy().tobytes() + labels.numpy().tobytes() for equations, labels in pairs]


def test_batch_is_a_function_of_seed_and_step(tiny_config: RunConfig):
    config = dataclasses.replace(tiny_config, batch_size=5)
    in_order = batches(Setup(config), range(40))
    steps, setup = list(range(40)), Setup(config)
    random.Random(0).shuffle(steps)
    assert dict(zip(steps, batches(setup, steps), strict=True)) == dict(enumerate(in_order))
    reseeded = dataclasses.replace(config, training_seed=1)
    assert not set(batches(Setup(reseeded), range(40))) & set(in_order)
    assert batches(Setup(dataclasses.replace(config, init_seed=1)), range(40)) == in_order


@pytest.mark.parametrize("batch_size", [1, 5, 7, 28, 29])
def test_epoch_contains_each_example_once_in_its_own_order(tiny_config: RunConfig, batch_size: int):
    setup = Setup(dataclasses.replace(tiny_config, batch_size=batch_size))
    dataset = setup.dataset
    n_train = len(dataset.split.train)
    assert n_train == 29
    expected = sorted(dataset.task.inputs[dataset.split.train].tolist())
    n_batches, orders = -(-n_train // batch_size), []
    for epoch in range(3):
        epoch_batches = [setup.batch(step) for step in range(epoch * n_batches, (epoch + 1) * n_batches)]
        inputs = torch.cat([equations.tokens for equations, _ in epoch_batches])
        labels = torch.cat([labels for _, labels in epoch_batches])
        assert sorted(inputs.tolist()) == expected
        assert torch.equal(labels, (inputs[:, 0] + inputs[:, 1]) % 7)
        assert all(len(equations) == batch_size for equations, _ in epoch_batches[:-1])
        orders.append(inputs.tolist())
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("batch_size", [30, 512, 10**9])
def test_batch_size_above_the_training_set_takes_all(tiny_config: RunConfig, batch_size: int):
    setup, full_batch = Setup(dataclasses.replace(tiny_config, batch_size=batch_size)), Setup(tiny_config)
    for step in (0, 1, 17):
        tokens, expected = (sorted(run.batch(step)[0].tokens.tolist()) for run in (setup, full_batch))
        assert tokens == expected


@pytest.mark.parametrize(
    ("batch_size", "batch_share", "expected"),
    [(512, 0.5, 15), (None, 0.5, 29), (10, 0.5, 10), (15, 0.5, 15), (16, 0.5, 15), (None, 1.0, 29), (512, 1e-9, 1)],
)
def test_batch_share_limits_the_batch_rounded_up(
    tiny_config: RunConfig, batch_size: int | None, batch_share: float, expected: int
):
    setup = Setup(dataclasses.replace(tiny_config, batch_size=batch_size, batch_share=batch_share))
    assert len(setup.dataset.split.train) == 29
    sizes = [len(setup.batch(step)[0]) for step in range(-(-29 // expected))]
    assert sizes[:-1] == [expected] * (len(sizes) - 1)
    assert sum(sizes) == 29
    assert setup.dataset.batch_size == expected


@pytest.mark.parametrize(("n_train", "batch_share"), [(25, 0.28), (25, 0.56), (28, 0.5), (25, 0.5)])
def test_batch_share_is_rounded_from_its_exact_decimal(tiny_config: RunConfig, n_train: int, batch_share: float):
    """In floating point 0.28 · 25 exceeds 7, and rounding up would give 8. `tasks.draw_split` takes the same care."""
    task = TaskConfig(p=7, train_fraction=(n_train + 0.5) / 49)
    setup = Setup(dataclasses.replace(tiny_config, task=task, batch_size=512, batch_share=batch_share))
    assert len(setup.dataset.split.train) == n_train
    assert len(setup.batch(0)[0]) == math.ceil(Fraction(str(batch_share)) * n_train)


def test_full_batch_is_the_training_set_at_every_step(tiny_config: RunConfig):
    setup = Setup(tiny_config)
    task, split = setup.dataset.task, setup.dataset.split
    for step in (0, 1, 1000):
        equations, labels = setup.batch(step)
        assert torch.equal(equations.tokens, task.inputs[split.train])
        assert torch.equal(labels, task.labels[split.train])


def test_digest_is_the_one_of_task_and_split(tiny_config: RunConfig):
    dataset = Dataset(tiny_config, CPU)
    assert dataset.digest == data_digest(dataset.task, dataset.split)
    assert Dataset(dataclasses.replace(tiny_config, split_seed=1), CPU).digest != dataset.digest
