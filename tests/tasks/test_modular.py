"""Modular operations, checked by brute force over Python integers."""

import pytest
import torch
from support.answer_tables import answer_table

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.config.task_config import TOKEN_FORMS
from grokscope.tasks.modular import powers

CIRCULAR = ["addition", "subtraction", "multiplication", "division"]
POLYNOMIALS = {
    "a2_b2": lambda a, b: a**2 + b**2,
    "a2_ab_b2": lambda a, b: a**2 + a * b + b**2,
    "a2_ab_b2_a": lambda a, b: a**2 + a * b + b**2 + a,
    "a3_ab": lambda a, b: a**3 + a * b,
    "a3_ab2_b": lambda a, b: a**3 + a * b**2 + b,
}
OPERATIONS = [*CIRCULAR, "division_or_subtraction", *POLYNOMIALS]
PRIMES = [3, 5, 7, 11, 13, 23, 59, 97, 113]


def is_answer(name: str, a: int, b: int, c: int, p: int) -> bool:
    """Return whether c is the answer to a ∘ b, without computing an inverse."""
    if name in POLYNOMIALS:
        return (POLYNOMIALS[name](a, b) - c) % p == 0
    if name == "division_or_subtraction":
        name = "division" if b % 2 == 1 else "subtraction"
    return {
        "addition": (a + b - c) % p == 0,
        "subtraction": (c + b - a) % p == 0,
        "multiplication": (a * b - c) % p == 0,
        "division": (c * b - a) % p == 0,
    }[name]


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("p", [3, 5, 11, 97])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_answer_is_right_and_no_pair_repeats(name, p, form):
    task = tasks.build(TaskConfig(name=name, p=p, form=form))
    columns = task.inputs.T.tolist()
    signs = {"a b =": {2: p}, "a ∘ b =": {1: p + 1, 3: p}}[form]
    for position, sign in signs.items():
        assert set(columns[position]) == {sign}
    a, b = columns[0], columns[2 if 1 in signs else 1]
    first_b = 1 if name == "division" else 0
    assert sorted(zip(a, b, strict=True)) == [(x, y) for x in range(p) for y in range(first_b, p)]
    for x, y, c in zip(a, b, task.labels.tolist(), strict=True):
        assert 0 <= c < p and is_answer(name, x, y, c, p)
    assert (task.n_elements, task.d_vocab, task.d_vocab_out) == (p, p + len(signs), p)
    assert task.n_ctx == len(columns)


@pytest.mark.parametrize("p", PRIMES)
def test_powers_use_the_smallest_primitive_root(p):
    circle = powers(p).tolist()
    assert sorted(circle) == list(range(1, p))
    g = circle[1]
    assert circle == [pow(g, j, p) for j in range(p - 1)]
    generated = [{pow(h, j, p) for j in range(p - 1)} for h in range(2, g)]
    assert all(len(residues) < p - 1 for residues in generated)


@pytest.mark.parametrize("p", [3, 7, 97])
@pytest.mark.parametrize("name", CIRCULAR)
def test_circular_operation_adds_or_subtracts_positions(name, p):
    """The positions on `task.circle` are therefore the angles 2πj/n of the operation."""
    task = tasks.build(TaskConfig(name=name, p=p))
    assert task.circle is not None
    n = len(task.circle)
    positions = {token: j for j, token in enumerate(task.circle.tolist())}
    sign = -1 if name in ("subtraction", "division") else 1
    n_on_circle = 0
    for (a, b, _), c in zip(task.inputs.tolist(), task.labels.tolist(), strict=True):
        if a in positions and b in positions:
            n_on_circle += 1
            assert positions[c] == (positions[a] + sign * positions[b]) % n
    assert task.n_examples_off_circle == len(task.inputs) - n_on_circle
    expected = {"multiplication": 2 * p - 1, "division": p - 1}.get(name, 0)
    assert task.n_examples_off_circle == expected


@pytest.mark.parametrize("p", [5, 11, 97])
def test_only_division_has_fewer_equations_than_pairs(p: int):
    sizes = {name: len(tasks.build(TaskConfig(name=name, p=p)).labels) for name in OPERATIONS}
    assert sizes == {name: p * (p - 1) if name == "division" else p * p for name in OPERATIONS}


def test_largest_modulus_does_not_overflow_an_answer():
    task = tasks.build(TaskConfig(name="a3_ab2_b", p=2003))
    operands, labels = task.inputs[-5000:, :2].tolist(), task.labels[-5000:].tolist()
    assert operands[-1] == [2002, 2002] and 2002**3 > 2**32
    assert labels == [(a**3 + a * b**2 + b) % 2003 for a, b in operands]


def test_only_circular_operations_have_a_circle():
    assert [name for name in OPERATIONS if tasks.build(TaskConfig(name=name, p=11)).circle is not None] == CIRCULAR


def test_only_addition_and_subtraction_have_a_group():
    names = ["addition", "subtraction"]
    assert [name for name in OPERATIONS if tasks.build(TaskConfig(name=name, p=11)).group is not None] == names


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("p", [5, 7, 23])
def test_commutativity_agrees_with_brute_force(p: int, form: str):
    built = {name: tasks.build(TaskConfig(name=name, p=p, form=form)) for name in OPERATIONS}
    commuting = [name for name, task in built.items() if task.is_commutative]
    assert commuting == ["addition", "multiplication", "a2_b2", "a2_ab_b2"]
    for name, task in built.items():
        answers = answer_table(task)
        reversible = [(a, b) for a, b in answers if (b, a) in answers]
        assert task.is_commutative == all(answers[a, b] == answers[b, a] for a, b in reversible), name


@pytest.mark.parametrize("p", [3, 11, 59])
def test_composition_in_prime_cyclic_group_is_addition(p: int):
    sums = tasks.build(TaskConfig(name="addition", p=p))
    products = tasks.build(TaskConfig(name="composition", group=f"C{p}"))
    assert torch.equal(sums.inputs, products.inputs) and torch.equal(sums.labels, products.labels)
    assert sums.circle is not None and products.circle is not None and torch.equal(sums.circle, products.circle)
    assert sums.group is not None and products.group is not None
    assert (sums.group.table == products.group.table).all() and sums.group.name == products.group.name
