"""Random streams depend on their arguments alone, never change, and are random."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from grokscope import rng

STREAMS: dict[str, Callable[[str, int, int], tuple[Any, ...]]] = {
    "key": lambda purpose, seed, index: tuple(rng.key(purpose, seed, index)),
    "integers": lambda purpose, seed, index: tuple(rng.integers(purpose, seed, index, 8)),
    "permutation": lambda purpose, seed, index: tuple(rng.permutation(purpose, seed, index, 50)),
    "generator": lambda purpose, seed, index: tuple(
        torch.randn(8, generator=rng.generator(purpose, seed, index)).tolist()
    ),
}
PURPOSES = ["init", "split", "batches", "dropout", "update noise", "weight noise"]


@pytest.mark.parametrize("stream", STREAMS)
def test_stream_depends_on_every_argument_and_nothing_else(stream: str):
    draw = STREAMS[stream]
    keys = [(purpose, seed, index) for purpose in PURPOSES for seed in (0, 1, 12) for index in (0, 1, 2, 100_000)]
    numbers = {key: draw(*key) for key in keys}
    assert len(set(numbers.values())) == len(keys)
    for set_seed in (torch.manual_seed, np.random.seed, random.seed):
        set_seed(5)
    repeated = {key: draw(*key) for key in random.sample(keys, len(keys))}
    assert repeated == numbers


def test_digits_of_seed_and_index_do_not_mix():
    assert len({rng.key("a", 1, 23), rng.key("a", 12, 3), rng.key("a", 123, 0)}) == 3


def test_initial_tensors_of_different_names_differ():
    tensors = [torch.randn(4, generator=rng.generator("init", 0, name)) for name in ("embed.W_E", "unembed.W_U")]
    assert not torch.equal(*tensors)


def test_streams_of_saved_runs_never_change():
    """Splits and batches must stay the same in every version. The key is a plain SHA-256."""
    assert rng.key("split", 3, 7) == hashlib.sha256(b"split/3/7").digest()
    raw = int.from_bytes(hashlib.sha256(b"split/3/7").digest()[:7], "big")
    expected = torch.randn(3, generator=torch.Generator().manual_seed(raw))
    assert torch.equal(torch.randn(3, generator=rng.generator("split", 3, 7)), expected)
    assert rng.integers("split", 0, 0, 3).tolist() == [
        18191387917071643754,
        804615852298520592,
        3572767054174611980,
    ]
    assert rng.permutation("split", 0, 0, 8).tolist() == [1, 7, 4, 2, 3, 6, 5, 0]


@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_permutation_sorts_the_integers_of_its_stream(n: int):
    order = rng.permutation("batches", 1, 2, n)
    assert sorted(order.tolist()) == list(range(n))
    integers = rng.integers("batches", 1, 2, n)
    assert integers.dtype == np.uint64 and (np.diff(integers[order].astype(object)) > 0).all()


def test_first_number_of_permutations_is_uniform():
    """Over 4,000 seeds each of 5 numbers is first 800 times, within four standard errors."""
    first = np.bincount([rng.permutation("split", seed, 0, 5)[0] for seed in range(4000)], minlength=5)
    assert (abs(first - 800) < 4 * (4000 * 0.2 * 0.8) ** 0.5).all()


def test_longer_stream_begins_with_the_shorter_one():
    assert rng.integers("outliers", 0, 1, 10)[:4].tolist() == rng.integers("outliers", 0, 1, 4).tolist()


def test_streams_leave_global_generators_unchanged():
    """test_resume_parts checks Python's generator in a process without beartype, which itself uses it."""
    before = str(np.random.get_state()), torch.get_rng_state().tolist()
    for draw in STREAMS.values():
        draw("split", 0, 0)
    assert (str(np.random.get_state()), torch.get_rng_state().tolist()) == before
