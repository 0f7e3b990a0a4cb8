"""Drawn examples of digits, parity and induction, and fresh batches."""

import numpy as np
import pytest
import torch

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError
from grokscope.tasks import Sampler, Task
from grokscope.tasks.drawn import draw, draw_fresh, row_keys
from grokscope.tasks.parity import parity_bits

DRAWN = {
    "digit_addition": TaskConfig(name="digit_addition", n_digits=3, n_examples=300),
    "parity": TaskConfig(name="parity", n_bits=40, n_examples=300),
    "induction": TaskConfig(name="induction", n_examples=300),
}


def as_number(digits: list[int], base: int) -> int:
    return sum(digit * base**i for i, digit in enumerate(reversed(digits)))


@pytest.mark.parametrize(("n", "base"), [(1, 2), (3, 10), (4, 7)])
def test_digits_of_the_sum_are_the_targets(n: int, base: int):
    task = tasks.build(TaskConfig(name="digit_addition", n_digits=n, base=base, n_examples=200))
    for row, targets in zip(task.inputs.tolist(), task.labels.tolist(), strict=True):
        a, plus, b, equals, shown = row[:n], row[n], row[n + 1 : 2 * n + 1], row[2 * n + 1], row[2 * n + 2 :]
        total, n_before = targets[2 * n + 1 :], targets[: 2 * n + 1]
        assert (plus, equals) == (base + 1, base) and set(n_before) == {-100}
        assert as_number(total, base) == as_number(a, base) + as_number(b, base) and len(total) == n + 1
        assert shown == total[:-1], "each digit of the sum is predicted from those before it"
    assert len(task.position_names) == task.n_ctx


def test_all_sums_of_one_digit_are_every_pair():
    task = tasks.build(TaskConfig(name="digit_addition", n_digits=1, n_examples=1000))
    assert sorted(task.inputs[:, [0, 2]].tolist()) == [[a, b] for a in range(10) for b in range(10)]


def test_parity_depends_on_its_bits_alone():
    config = DRAWN["parity"]
    task, subset = tasks.build(config), parity_bits(config)
    assert len(subset) == 3 and subset == sorted(set(subset))
    assert task.labels.tolist() == [sum(row[i] for i in subset) % 2 for row in task.inputs.tolist()]
    assert set(task.inputs[:, -1].tolist()) == {2} and 0.4 < float(task.inputs[:, :-1].double().mean()) < 0.6
    assert parity_bits(TaskConfig(name="parity", n_bits=40, data_seed=1)) != subset


def test_induction_repeats_a_subsequence_of_distinct_tokens():
    config = DRAWN["induction"]
    task, n = tasks.build(config), config.n_repeated
    starts = set()
    for row, targets in zip(task.inputs.tolist(), task.labels.tolist(), strict=True):
        assert row[0] == 32 and len(set(row)) == len(row) - n
        positions = [i for i, target in enumerate(targets) if target != -100]
        second = positions[0]
        assert positions == list(range(second, second + n - 1))
        first = row.index(row[second])
        assert row[first : first + n] == row[second : second + n] and first + n <= second
        assert [targets[i] for i in positions] == row[second + 1 : second + n]
        starts.add((first, second))
    assert len(starts) > 20, "the places of both occurrences vary"


@pytest.mark.parametrize("name", DRAWN)
def test_examples_are_distinct_and_follow_the_data_seed(name: str):
    config = DRAWN[name]
    task, repeated = tasks.build(config), tasks.build(config)
    assert torch.equal(task.inputs, repeated.inputs) and torch.equal(task.labels, repeated.labels)
    assert len(task.inputs.unique(dim=0)) == len(task.inputs) == 300
    other = tasks.build(TaskConfig(**{**config.__dict__, "data_seed": 1}))
    assert not torch.equal(other.inputs, task.inputs)


def counting(n_possible: int) -> Sampler:
    """Return a sampler whose examples are numbers, as single tokens."""

    def examples(numbers: np.ndarray):
        tokens = torch.from_numpy((numbers % np.uint64(n_possible)).astype(np.int64))
        return tokens, tokens[:, 0]

    return Sampler(1, examples, n_possible)


def test_draw_takes_all_or_distinct_examples():
    assert draw(counting(5), 9, 0)[0].flatten().tolist() == [0, 1, 2, 3, 4]
    assert len(draw(counting(9), 8, 0)[0].unique()) == 8
    assert len(draw(counting(2**40), 3000, 0)[0].unique()) == 3000


@pytest.mark.parametrize("name", DRAWN)
def test_fresh_batch_is_a_function_of_seed_and_step(name: str):
    task = tasks.build(DRAWN[name])
    assert task.sampler is not None
    none = np.empty(0, np.uint64)
    batches = [draw_fresh(task.sampler, 8, seed, step, none)[0] for seed, step in ((0, 4), (0, 4), (0, 5), (1, 4))]
    assert torch.equal(batches[0], batches[1])
    assert not any(torch.equal(batches[0], other) for other in batches[2:])
    assert tasks.build(DRAWN[name]).inputs.shape[1] == batches[0].shape[1]


def test_fresh_batch_never_contains_test_examples():
    excluded = np.sort(row_keys(torch.arange(0, 20, 2)[:, None]))
    drawn = torch.cat([draw_fresh(counting(20), 50, 0, step, excluded)[0] for step in range(20)]).flatten()
    counts = torch.bincount(drawn, minlength=20)
    assert counts[::2].sum() == 0 and (counts[1::2] > 60).all(), "the others are equally likely: 100 of 1,000 each"
    everything = np.sort(row_keys(torch.arange(20)[:, None]))
    with pytest.raises(GrokscopeError, match=r"^task\.fresh: nearly every"):
        draw_fresh(counting(20), 5, 0, 0, everything)


def test_equal_rows_have_equal_keys_and_others_do_not():
    rows = torch.cartesian_prod(*[torch.arange(7)] * 4)
    assert len(np.unique(row_keys(rows))) == 7**4
    assert row_keys(rows).tolist() == row_keys(rows.clone()).tolist()


def test_outliers_and_random_labels_need_a_single_answer():
    for changes in ({"outliers": 1}, {"random_labels": True}):
        with pytest.raises(GrokscopeError, match="have several answers; allowed: with a single answer"):
            tasks.load(TaskConfig(**{**DRAWN["induction"].__dict__, **changes}), 0)


def test_task_from_arrays_survives_its_config():
    single = tasks.build(TaskConfig(name="multiplication", p=7))
    own = Task.from_arrays(
        single.inputs, single.labels, n_elements=7, circle=single.circle, is_commutative=True, formula="a times b"
    )
    built = tasks.build(own.to_config(train_fraction=0.5))
    assert (built.formula, built.n_elements, built.d_vocab, built.d_vocab_out) == ("a times b", 7, 8, 7)
    assert built.is_commutative and built.circle is not None and single.circle is not None
    for name in ("inputs", "labels", "circle"):
        assert torch.equal(getattr(built, name), getattr(single, name))


def test_task_from_arrays_keeps_element_names():
    own = Task.from_arrays([[0, 1], [1, 1]], [1, 0], element_names=("red", "blue"))
    assert tasks.build(own.to_config()).names == ("red", "blue")


def test_task_from_arrays_refuses_tokens_beyond_its_sizes():
    with pytest.raises(GrokscopeError, match="tokens go up to 5.*d_vocab = 5"):
        Task.from_arrays(np.array([[5], [0]]), np.array([0, 1]), d_vocab=5)
