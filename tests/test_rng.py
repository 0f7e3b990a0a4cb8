"""Random streams: what decides them, that nothing else does, and that their numbers are random."""

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
def test_every_argument_counts_and_nothing_else(stream: str):
    draw = STREAMS[stream]
    places = [(purpose, seed, index) for purpose in PURPOSES for seed in (0, 1, 12) for index in (0, 1, 2, 100_000)]
    found = {place: draw(*place) for place in places}
    assert len(set(found.values())) == len(places)
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(5)
    again = {place: draw(*place) for place in random.sample(places, len(places))}
    assert again == found


def test_seed_and_index_do_not_run_into_one_another():
    assert len({rng.key("a", 1, 23), rng.key("a", 12, 3), rng.key("a", 123, 0)}) == 3


def test_an_initial_tensor_s_stream_is_its_name_s():
    drawn = [torch.randn(4, generator=rng.generator("init", 0, name)) for name in ("embed.W_E", "unembed.W_U")]
    assert not torch.equal(*drawn)


def test_a_stream_is_the_one_that_saved_runs_were_made_with():
    """Splits and orders of batches must be the same for ever: the key is a hash that anyone can compute."""
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
def test_a_permutation_is_one_and_the_order_of_its_integers(n: int):
    found = rng.permutation("batches", 1, 2, n)
    assert sorted(found.tolist()) == list(range(n))
    drawn = rng.integers("batches", 1, 2, n)
    assert drawn.dtype == np.uint64 and (np.diff(drawn[found].astype(object)) > 0).all()


def test_permutations_have_no_favourite_place():
    """Over 4,000 seeds each of 5 numbers stands first 800 times, within four standard errors."""
    first = np.bincount([rng.permutation("split", seed, 0, 5)[0] for seed in range(4000)], minlength=5)
    assert (abs(first - 800) < 4 * (4000 * 0.2 * 0.8) ** 0.5).all()


def test_a_longer_draw_begins_with_the_shorter_one():
    assert rng.integers("outliers", 0, 1, 10)[:4].tolist() == rng.integers("outliers", 0, 1, 4).tolist()


def test_drawing_touches_no_global_generator():
    """Python's own is watched in test_resume_parts, in a process without beartype, which draws from it."""
    before = str(np.random.get_state()), torch.get_rng_state().tolist()
    for draw in STREAMS.values():
        draw("split", 0, 0)
    assert (str(np.random.get_state()), torch.get_rng_state().tolist()) == before
