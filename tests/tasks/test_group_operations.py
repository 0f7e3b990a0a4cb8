"""Operations on finite groups, checked by brute force over permutations."""

import itertools
import re

import pytest
from support.answer_tables import answer_table

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.config.task_config import TOKEN_FORMS

OPERATIONS = ["composition", "conjugation", "aba"]


def permutation(cycles: str, n: int) -> tuple[int, ...]:
    """Return the images of 0 … n − 1 under a permutation in cycle notation."""
    images = list(range(n))
    for cycle in re.findall(r"\(([^()]*)\)", cycles):
        points = [int(point) for point in cycle.split()]
        for point, image in zip(points, points[1:] + points[:1], strict=True):
            images[point] = image
    return tuple(images)


def product(*factors: tuple[int, ...]) -> tuple[int, ...]:
    """Return the product of permutations, which applies the last factor first."""
    *rest, result = factors
    for factor in reversed(rest):
        result = tuple(factor[i] for i in result)
    return result


@pytest.mark.parametrize(
    ("group", "commuting"), [("S3", []), ("D4", []), ("C5", ["composition"]), ("C2xC2", ["composition"])]
)
def test_only_composition_in_abelian_group_commutes(group: str, commuting: list[str]):
    names = [name for name in OPERATIONS if tasks.build(TaskConfig(name=name, group=group)).is_commutative]
    assert names == commuting


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("group", ["S3", "S4", "A4", "A3", "S5"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_group_answers_agree_with_permutations(name: str, group: str, form: str):
    task = tasks.build(TaskConfig(name=name, group=group, form=form))
    assert task.group is not None and task.group.name == group
    elements = [permutation(cycles, int(group[1:])) for cycles in task.group.elements]
    n = len(elements)
    assert (task.n_elements, task.d_vocab, task.d_vocab_out) == (n, n + 1 + ("∘" in form), n)
    assert (task.inputs[:, -1] == n).all() and task.n_ctx == 3 + ("∘" in form)
    if "∘" in form:
        assert (task.inputs[:, 1] == n + 1).all()
    answers = answer_table(task)
    assert list(answers) == list(itertools.product(range(n), repeat=2))
    for (a, b), c in answers.items():
        x, y = elements[a], elements[b]
        inverse = tuple(x.index(i) for i in range(len(x)))
        expected = {"composition": product(x, y), "conjugation": product(x, y, inverse), "aba": product(x, y, x)}
        assert elements[c] == expected[name]


@pytest.mark.parametrize("group", ["C2", "C12", "C3xC5", "C4xC3", "A3"])
def test_composition_in_cyclic_group_adds_positions(group: str):
    task = tasks.build(TaskConfig(name="composition", group=group))
    assert task.circle is not None and task.n_examples_off_circle == 0
    positions = {token: j for j, token in enumerate(task.circle.tolist())}
    assert sorted(positions) == list(range(task.n_elements))
    for (a, b), c in answer_table(task).items():
        assert positions[c] == (positions[a] + positions[b]) % task.n_elements


def test_other_group_operations_have_no_circle():
    for name, group in [("composition", "S3"), ("composition", "C2xC2"), ("conjugation", "C5"), ("aba", "C5")]:
        task = tasks.build(TaskConfig(name=name, group=group))
        assert task.circle is None and task.n_examples_off_circle == len(task.inputs)
