"""Task tables by brute force over integers, and the split against Philox written out from its paper."""

import hashlib
import math

import pytest
import torch

from grokscope import streams, tasks
from grokscope.config import TOKEN_FORMS, TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks.modular import powers

OPERATIONS = ["addition", "subtraction", "multiplication", "division"]
PRIMES = [3, 5, 7, 11, 13, 23, 59, 97, 113]


def is_answer(name: str, a: int, b: int, c: int, p: int) -> bool:
    """Say whether c is the answer to a ∘ b, by a property of it that needs no inverse."""
    return {
        "addition": (a + b - c) % p == 0,
        "subtraction": (c + b - a) % p == 0,
        "multiplication": (a * b - c) % p == 0,
        "division": (c * b - a) % p == 0,
    }[name]


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("p", [3, 5, 11, 97])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_right_and_every_pair_is_there_once(name, p, form):
    task = tasks.build(TaskConfig(name=name, p=p, form=form))
    columns = task.inputs.T.tolist()
    signs = {"a b =": {2: p}, "a ∘ b =": {1: p + 1, 3: p}}[form]
    for place, sign in signs.items():
        assert set(columns[place]) == {sign}
    a, b = columns[0], columns[2 if 1 in signs else 1]
    first_b = 1 if name == "division" else 0
    assert sorted(zip(a, b, strict=True)) == [(x, y) for x in range(p) for y in range(first_b, p)]
    for x, y, c in zip(a, b, task.labels.tolist(), strict=True):
        assert 0 <= c < p and is_answer(name, x, y, c, p)
    assert (task.n_elements, task.d_vocab, task.d_vocab_out) == (p, p + len(signs), p)
    assert task.n_ctx == len(columns)


@pytest.mark.parametrize("p", PRIMES)
def test_powers_are_those_of_the_smallest_primitive_root(p):
    circle = powers(p).tolist()
    assert sorted(circle) == list(range(1, p))
    g = circle[1]
    assert circle == [pow(g, j, p) for j in range(p - 1)]
    smaller = [{pow(h, j, p) for j in range(p - 1)} for h in range(2, g)]
    assert all(len(reached) < p - 1 for reached in smaller)


@pytest.mark.parametrize("p", [3, 7, 97])
@pytest.mark.parametrize("name", OPERATIONS)
def test_on_the_circle_the_operation_adds_or_subtracts_positions(name, p):
    """This is what makes it the operation's circle: token circle[j] turns by 2πj/n."""
    task = tasks.build(TaskConfig(name=name, p=p))
    assert task.circle is not None
    n = len(task.circle)
    position = {token: j for j, token in enumerate(task.circle.tolist())}
    sign = -1 if name in ("subtraction", "division") else 1
    on_circle = 0
    for (a, b, _), c in zip(task.inputs.tolist(), task.labels.tolist(), strict=True):
        if a in position and b in position:
            on_circle += 1
            assert position[c] == (position[a] + sign * position[b]) % n
    assert task.n_examples_off_circle == len(task.inputs) - on_circle
    expected = {"multiplication": 2 * p - 1, "division": p - 1}.get(name, 0)
    assert task.n_examples_off_circle == expected


@pytest.mark.parametrize(
    ("fraction", "n_train"), [(0.3, 3830), (0.29, 3703), (0.5, 6384), (1 / 3, 4256), (0.9999, 12767)]
)
def test_a_split_takes_the_floor_of_its_share_and_leaves_the_rest(fraction, n_train):
    task = tasks.build(TaskConfig(p=113))
    split = tasks.draw_split(task, fraction, seed=3)
    assert len(split.train) == n_train
    assert sorted(split.train.tolist() + split.test.tolist()) == list(range(12769))
    assert (split.train.diff() > 0).all() and (split.test.diff() > 0).all()


def test_a_share_is_exact_where_floating_point_falls_short():
    assert math.floor(0.29 * 100) == 28
    task = tasks.build(TaskConfig(name="division", p=5))
    hundred = tasks.Task("", "", task.inputs.repeat(5, 1), task.labels.repeat(5), 5, 6, 5, None)
    assert len(tasks.draw_split(hundred, 0.29, seed=0).train) == 29


def test_a_split_is_a_function_of_the_seed():
    task = tasks.build(TaskConfig(p=23))
    state = torch.get_rng_state()
    first, again, other = (tasks.draw_split(task, 0.5, seed) for seed in (0, 0, 1))
    assert torch.equal(first.train, again.train) and torch.equal(first.test, again.test)
    # Two unrelated halves share half their members, give or take √529/4.
    shared = len(set(first.train.tolist()) & set(other.train.tolist()))
    assert abs(shared - 132) < 40
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("fraction", "empty"), [(0.01, "training"), (1.0, "test")])
def test_a_split_with_an_empty_part_is_refused(fraction, empty):
    with pytest.raises(GrokscopeError, match=f"task.train_fraction.*{empty} set empty"):
        tasks.draw_split(tasks.build(TaskConfig(p=7)), fraction, seed=0)


def philox(key: tuple[int, int], n: int) -> list[int]:
    """Return n numbers of Philox 4x64-10 (Salmon et al. 2011, figure 2), counted up from 1 as NumPy does."""
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


def test_a_split_is_the_one_that_the_written_out_generator_gives():
    """So neither a new NumPy nor a new torch can move a split that a run was trained on."""
    task = tasks.build(TaskConfig(p=11))
    key = hashlib.sha256(b"split/5/0").digest()
    bits = philox((int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")), 121)
    order = sorted(range(121), key=lambda i: bits[i])
    assert tasks.draw_split(task, 0.4, seed=5).train.tolist() == sorted(order[:48])


@pytest.mark.parametrize("changed", [("other", 0, 0), ("split", 1, 0), ("split", 0, 1)])
def test_every_argument_of_a_permutation_counts(changed):
    purpose, seed, index = changed
    first, other = streams.permutation("split", 0, 0, 50), streams.permutation(purpose, seed, index, 50)
    assert sorted(first) == sorted(other) == list(range(50))
    assert first.tolist() != other.tolist()


def test_an_unknown_task_is_refused_with_the_one_that_was_meant():
    with pytest.raises(GrokscopeError, match="'adition'.*Did you mean 'addition'"):
        tasks.build(TaskConfig(name="adition"))
