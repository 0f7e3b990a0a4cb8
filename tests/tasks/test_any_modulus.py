"""Operations modulo any n, of any number of operands, and in the form with two answers, by brute force."""

import itertools
import math

import pytest
import torch

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.config.task_config import SEQUENCE_FORM
from grokscope.errors import GrokscopeError
from grokscope.tasks.circle import on_circle
from grokscope.tasks.group_pairs import as_composition


@pytest.mark.parametrize("n", [2, 4, 9, 12, 15])
@pytest.mark.parametrize("name", ["addition", "subtraction", "multiplication", "a3_ab2_b"])
def test_answer_modulo_any_n_is_right(name: str, n: int):
    operation = {
        "addition": lambda a, b: a + b,
        "subtraction": lambda a, b: a - b,
        "multiplication": lambda a, b: a * b,
        "a3_ab2_b": lambda a, b: a**3 + a * b**2 + b,
    }[name]
    task = tasks.build(TaskConfig(name=name, p=n))
    rows = [(*inputs[:2], label) for inputs, label in zip(task.inputs.tolist(), task.labels.tolist(), strict=True)]
    assert rows == [(a, b, operation(a, b) % n) for a, b in itertools.product(range(n), repeat=2)]


@pytest.mark.parametrize("n", [4, 9, 12, 30])
@pytest.mark.parametrize("zero_divisors", [True, False])
def test_quotient_divides_by_units_only(n: int, zero_divisors: bool):
    task = tasks.build(TaskConfig(name="division", p=n, zero_divisors=zero_divisors))
    units = [i for i in range(n) if math.gcd(i, n) == 1]
    first = range(n) if zero_divisors else units
    assert task.operands.tolist() == [[a, b] for a in first for b in units]
    assert all(b * c % n == a for (a, b), c in zip(task.operands.tolist(), task.labels.tolist(), strict=True))


@pytest.mark.parametrize("n", [8, 13])
def test_quotient_or_difference_modulo_prime_or_power_of_two(n: int):
    task = tasks.build(TaskConfig(name="division_or_subtraction", p=n))
    for (a, b), c in zip(task.operands.tolist(), task.labels.tolist(), strict=True):
        assert (b * c - a) % n == 0 if b % 2 else c == (a - b) % n


@pytest.mark.parametrize("name", ["addition", "multiplication"])
def test_three_operands_have_every_triple_once(name: str):
    task = tasks.build(TaskConfig(name=name, p=6, n_operands=3, form="a ∘ b ="))
    assert task.inputs.shape == (216, 6) and task.position_names == ("a", "∘", "b", "∘", "c", "=")
    assert task.operands.tolist() == list(map(list, itertools.product(range(6), repeat=3)))
    combine = sum if name == "addition" else math.prod
    assert task.labels.tolist() == [combine(row) % 6 for row in task.operands.tolist()]
    assert task.is_commutative and not task.is_composition


def test_expression_uses_tokens_of_each_size():
    config = TaskConfig(name="expression", expression="a*b - c", p=5, sizes="2 3 4")
    task = tasks.build(config)
    assert (task.n_elements, task.d_vocab, task.d_vocab_out) == (9, 10, 5)
    for (a, b, c), label in zip(task.operands.tolist(), task.labels.tolist(), strict=True):
        assert a < 2 <= b < 5 <= c < 9
        assert label == (a * (b - 2) - (c - 5)) % 5
        assert [task.names[token] for token in (a, b, c)] == [f"a={a}", f"b={b - 2}", f"c={c - 5}"]
    assert not task.is_commutative


@pytest.mark.parametrize("name", ["multiplication", "division"])
def test_units_compose_in_a_product_of_cyclic_groups(name: str):
    task = tasks.build(TaskConfig(name=name, p=15))
    composition = as_composition(task)
    assert composition.group.name == "C2xC4" and task.torus is not None
    tokens = composition.tokens
    for i, j in itertools.product(range(8), repeat=2):
        product = int(tokens[composition.group.table[i, j]])
        assert product == int(tokens[i]) * int(tokens[j]) % 15
        assert task.labels[composition.examples[i, j]] == product
        assert task.inputs[composition.examples[i, j]].tolist() == composition.inputs[i, j].tolist()
    with pytest.raises(GrokscopeError, match="2 circles of 2 × 4 points.*'representations'"):
        on_circle(task)


def test_sequence_form_has_targets_at_equals_and_answer():
    """The tokens are those of Power et al.'s code: the loss covers what follows "="."""
    config = TaskConfig(p=7, form=SEQUENCE_FORM, train_fraction=0.5)
    single, task = tasks.build(TaskConfig(p=7, form="a ∘ b =")), tasks.build(config)
    equals, operation, eos = 7, 8, 9
    assert task.signs == ("=", "∘", "eos") and (task.d_vocab, task.d_vocab_out) == (10, 10)
    for inputs, labels, (a, b), c in zip(
        task.inputs.tolist(), task.labels.tolist(), single.operands.tolist(), single.labels.tolist(), strict=True
    ):
        assert inputs == [eos, a, operation, b, equals, c]
        assert labels == [-100] * 4 + [c, eos]
    assert torch.equal(tasks.load(config, 3)[1].train, tasks.draw_split(single, 0.5, 3).train)
