"""Task tables by brute force over integers and permutations, and the split against Philox written out from its
paper.
"""

import dataclasses
import hashlib
import itertools
import math
import re
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope import rng, tasks
from grokscope.algebra import tables
from grokscope.config import TaskConfig
from grokscope.config.run_config import TOKEN_FORMS
from grokscope.errors import GrokscopeError
from grokscope.tasks import Split, Task
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
ON_GROUPS = ["composition", "conjugation", "aba"]
PRIMES = [3, 5, 7, 11, 13, 23, 59, 97, 113]


def is_answer(name: str, a: int, b: int, c: int, p: int) -> bool:
    """Say whether c is the answer to a ∘ b, by a property of it that needs no inverse."""
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


def answer_table(task: Task) -> dict[tuple[int, int], int]:
    """Return every equation's answer by its operands, which must be there once."""
    equations = list(zip(map(tuple, task.operands.tolist()), task.labels.tolist(), strict=True))
    assert len(dict(equations)) == len(equations)
    return dict(equations)


def permutation(element: str, n: int) -> tuple[int, ...]:
    """Return the permutation of 0 … n − 1 that is written by its cycles."""
    images = list(range(n))
    for cycle in re.findall(r"\(([^()]*)\)", element):
        points = [int(point) for point in cycle.split()]
        for here, there in zip(points, points[1:] + points[:1], strict=True):
            images[here] = there
    return tuple(images)


def after(*factors: tuple[int, ...]) -> tuple[int, ...]:
    """Return the permutation that does the last factor first."""
    *others, found = factors
    for one in reversed(others):
        found = tuple(one[i] for i in found)
    return found


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
@pytest.mark.parametrize("name", CIRCULAR)
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


@pytest.mark.parametrize("p", [5, 11, 97])
def test_the_answer_tables_have_the_sizes_that_the_operations_leave(p: int):
    sizes = {name: len(tasks.build(TaskConfig(name=name, p=p)).labels) for name in OPERATIONS}
    assert sizes == {name: p * (p - 1) if name == "division" else p * p for name in OPERATIONS}


def test_the_largest_modulus_overflows_no_answer():
    task = tasks.build(TaskConfig(name="a3_ab2_b", p=2003))
    operands, labels = task.inputs[-5000:, :2].tolist(), task.labels[-5000:].tolist()
    assert operands[-1] == [2002, 2002] and 2002**3 > 2**32
    assert labels == [(a**3 + a * b**2 + b) % 2003 for a, b in operands]


def test_only_the_operations_that_turn_a_circle_have_one():
    assert [name for name in OPERATIONS if tasks.build(TaskConfig(name=name, p=11)).circle is not None] == CIRCULAR
    names = ["addition", "subtraction"]
    assert [name for name in OPERATIONS if tasks.build(TaskConfig(name=name, p=11)).group is not None] == names


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("p", [5, 7, 23])
def test_it_is_known_which_operations_commute(p: int, form: str):
    built = {name: tasks.build(TaskConfig(name=name, p=p, form=form)) for name in OPERATIONS}
    commuting = [name for name, task in built.items() if task.is_commutative]
    assert commuting == ["addition", "multiplication", "a2_b2", "a2_ab_b2"]
    for name, task in built.items():
        answers = answer_table(task)
        both = [(a, b) for a, b in answers if (b, a) in answers]
        assert task.is_commutative == all(answers[a, b] == answers[b, a] for a, b in both), name


@pytest.mark.parametrize(
    ("group", "commuting"), [("S3", []), ("D4", []), ("C5", ["composition"]), ("C2xC2", ["composition"])]
)
def test_it_is_known_which_operations_on_groups_commute(group: str, commuting: list[str]):
    found = [name for name in ON_GROUPS if tasks.build(TaskConfig(name=name, group=group)).is_commutative]
    assert found == commuting


@pytest.mark.parametrize("form", TOKEN_FORMS)
@pytest.mark.parametrize("group", ["S3", "S4", "A4", "A3", "S5"])
@pytest.mark.parametrize("name", ON_GROUPS)
def test_every_answer_in_a_group_is_that_of_the_permutations(name: str, group: str, form: str):
    task = tasks.build(TaskConfig(name=name, group=group, form=form))
    assert task.group is not None and task.group.name == group
    elements = [permutation(one, int(group[1:])) for one in task.group.elements]
    n = len(elements)
    assert (task.n_elements, task.d_vocab, task.d_vocab_out) == (n, n + 1 + ("∘" in form), n)
    assert (task.inputs[:, -1] == n).all() and task.n_ctx == 3 + ("∘" in form)
    if "∘" in form:
        assert (task.inputs[:, 1] == n + 1).all()
    answers = answer_table(task)
    assert list(answers) == list(itertools.product(range(n), repeat=2))
    for (a, b), c in answers.items():
        x, y = elements[a], elements[b]
        backwards = tuple(x.index(i) for i in range(len(x)))
        expected = {"composition": after(x, y), "conjugation": after(x, y, backwards), "aba": after(x, y, x)}
        assert elements[c] == expected[name]


@pytest.mark.parametrize("p", [3, 11, 59])
def test_composition_in_a_cyclic_group_of_prime_order_is_addition(p: int):
    sums = tasks.build(TaskConfig(name="addition", p=p))
    products = tasks.build(TaskConfig(name="composition", group=f"C{p}"))
    assert torch.equal(sums.inputs, products.inputs) and torch.equal(sums.labels, products.labels)
    assert sums.circle is not None and products.circle is not None and torch.equal(sums.circle, products.circle)
    assert sums.group is not None and products.group is not None
    assert (sums.group.table == products.group.table).all() and sums.group.name == products.group.name


@pytest.mark.parametrize("group", ["C2", "C12", "C3xC5", "C4xC3", "A3"])
def test_on_the_circle_of_a_cyclic_group_composition_adds_positions(group: str):
    task = tasks.build(TaskConfig(name="composition", group=group))
    assert task.circle is not None and task.n_examples_off_circle == 0
    position = {token: j for j, token in enumerate(task.circle.tolist())}
    assert sorted(position) == list(range(task.n_elements))
    for (a, b), c in answer_table(task).items():
        assert position[c] == (position[a] + position[b]) % task.n_elements


def test_what_turns_no_circle_has_none():
    for name, group in [("composition", "S3"), ("composition", "C2xC2"), ("conjugation", "C5"), ("aba", "C5")]:
        task = tasks.build(TaskConfig(name=name, group=group))
        assert task.circle is None and task.n_examples_off_circle == len(task.inputs)


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_a_user_s_table_is_the_operation_it_was_made_of(form: str):
    text = tables.tabulate(lambda a, b: a ^ b, 8)
    task = tasks.build(TaskConfig(name="table", table=text, form=form))
    assert answer_table(task) == {(a, b): a ^ b for a in range(8) for b in range(8)}
    assert (task.n_elements, task.d_vocab, task.d_vocab_out) == (8, 9 + ("∘" in form), 8)
    assert task.circle is None and task.group is None and task.is_commutative
    lopsided = tables.tabulate(lambda a, b: b, 3)
    assert not tasks.build(TaskConfig(name="table", table=lopsided, form=form)).is_commutative


def test_a_point_in_a_table_is_no_equation_and_so_division_is_a_table_too():
    p = 11
    text = tables.tabulate(lambda a, b: a * pow(b, -1, p) % p if b else None, p)
    assert text.startswith(". 0 0")
    task, division = tasks.build(TaskConfig(name="table", table=text)), tasks.build(TaskConfig("division", p=p))
    assert torch.equal(task.inputs, division.inputs) and torch.equal(task.labels, division.labels)


@settings(max_examples=40)
@given(
    st.integers(2, 5).flatmap(
        lambda n: st.lists(
            st.lists(st.none() | st.integers(0, n - 1), min_size=n, max_size=n), min_size=n, max_size=n
        )
    )
)
def test_any_table_is_a_task_with_an_equation_for_each_number(rows: list[list[int | None]]):
    text = tables.tabulate(lambda a, b: rows[a][b], len(rows))
    task = tasks.build(TaskConfig(name="table", table=text))
    n = range(len(rows))
    assert answer_table(task) == {(a, b): rows[a][b] for a in n for b in n if rows[a][b] is not None}
    assert task.d_vocab_out == len(rows)


def test_a_table_that_is_none_is_refused():
    with pytest.raises(GrokscopeError, match="row 1 has '2'"):
        tasks.build(TaskConfig(name="table", table="0 1; 1 2"))


@pytest.mark.parametrize("text", [". .; . .", "0 .; . ."])
def test_a_table_with_too_few_equations_to_split_is_refused(text: str):
    with pytest.raises(GrokscopeError):
        tasks.load(TaskConfig(name="table", table=text), seed=0)


def wrong_answers(config: TaskConfig, seed: int) -> tuple[Task, Task, Split, set[int]]:
    """Return the right task, the one that is trained on, the split, and which answers are wrong."""
    right = tasks.build(config)
    task, split = tasks.load(config, seed)
    return right, task, split, set((right.labels != task.labels).nonzero()[:, 0].tolist())


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_outliers_take_the_answers_of_other_training_equations(form: str):
    """An operation whose answers are all different, on the training set at least: so every exchange is seen."""
    n = 5
    config = TaskConfig(name="table", table=tables.tabulate(lambda a, b: a, n), train_fraction=0.2, form=form)
    right = tasks.build(config)
    # One training equation in each row, so that all training answers differ.
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


def test_outliers_are_where_they_should_be_and_nowhere_else():
    config = TaskConfig(p=59, train_fraction=0.5, outliers=600)
    right, task, split, wrong = wrong_answers(config, seed=4)
    assert wrong <= set(split.train.tolist())
    assert torch.equal(task.labels[split.test], right.labels[split.test])
    # An answer drawn from the training set is by chance the right one about once in 59 times: 10 of 600.
    assert 570 <= len(wrong) <= 600
    # From all over the training set, and in the training set's answers.
    assert min(wrong) < 200 and max(wrong) > 59 * 59 - 200
    assert Counter(task.labels[list(wrong)].tolist()).most_common(1)[0][1] < 30
    for name in ("inputs", "circle"):
        assert torch.equal(getattr(task, name), getattr(right, name))
    assert task.formula == right.formula and task.group is not None


def test_the_outliers_of_a_smaller_number_are_among_those_of_a_larger_with_the_same_answers():
    config = TaskConfig(name="division", p=23)
    answers = []
    for k in (0, 1, 10, 60, 151):
        right, task, split, wrong = wrong_answers(dataclasses.replace(config, outliers=k), seed=2)
        answers.append({i: int(task.labels[i]) for i in wrong})
        assert len(split.train) == 151
    assert answers[0] == {} and len(answers[1]) <= 1
    for smaller, larger in itertools.pairwise(answers):
        assert smaller.items() <= larger.items()
    # Some are by chance the right answer, about one of 23.
    assert 6 <= len(answers[2]) <= 10 and 130 <= len(answers[4]) <= 151


def test_outliers_are_a_function_of_the_split_seed():
    config = TaskConfig(p=23, train_fraction=0.5, outliers=100)
    state = torch.get_rng_state()
    first, again, other = (tasks.load(config, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.labels, again.labels) and not torch.equal(first.labels, other.labels)
    assert torch.equal(torch.get_rng_state(), state)
    # Not of the split alone: another seed chooses others in the same split.
    split = tasks.load(config, 0)[1]
    one, two = (tasks.load(config, seed, split)[0] for seed in (0, 1))
    assert torch.equal(one.labels, first.labels) and not torch.equal(one.labels, two.labels)


def test_all_of_the_training_set_may_be_outliers_but_no_more():
    config = TaskConfig(p=23, train_fraction=0.5)
    n_train = len(tasks.load(config, 0)[1].train)
    _, _, split, wrong = wrong_answers(dataclasses.replace(config, outliers=n_train), seed=0)
    assert 0.9 * n_train < len(wrong) <= n_train == len(split.train) and wrong <= set(split.train.tolist())
    said = rf"^task\.outliers: {n_train + 1} of {n_train} training equations; allowed: 0 to {n_train}\.$"
    with pytest.raises(GrokscopeError, match=said):
        tasks.load(dataclasses.replace(config, outliers=n_train + 1), 0)


def test_a_single_training_equation_has_no_other_to_take_an_answer_from():
    config = TaskConfig(name="table", table="0 1; 1 0", train_fraction=0.25, outliers=1)
    with pytest.raises(GrokscopeError, match=r"^task\.outliers: 1 of 1 training") as refused:
        tasks.load(config, 0)
    assert "allowed: 0 to 1" not in str(refused.value), "it allows what it refuses"


@pytest.mark.parametrize("name", ["addition", "division", "composition"])
def test_random_labels_are_uniform_and_know_nothing_of_the_answers(name: str):
    config = TaskConfig(name=name, p=59, group="C59")
    right, task, split, _ = wrong_answers(dataclasses.replace(config, random_labels=True), seed=1)
    assert torch.equal(split.train, tasks.load(config, 1)[1].train) and torch.equal(task.inputs, right.inputs)
    assert set(task.labels.tolist()) == set(range(59))
    for part in (split.train, split.test):
        n = len(part)
        counts = torch.bincount(task.labels[part], minlength=59).double()
        # χ² of 58 degrees of freedom: 58 give or take √116, and a thousandth beyond 97.
        assert len(counts) == 59 and 30 < float(((counts - n / 59) ** 2 / (n / 59)).sum()) < 97
        # As often right as by chance: n/59 give or take its root.
        agreeing = int((task.labels[part] == right.labels[part]).sum())
        assert abs(agreeing - n / 59) < 4 * (n / 59) ** 0.5
        assert int((right.labels[part] == right.labels[part]).sum()) - n / 59 > 4 * (n / 59) ** 0.5


def test_random_labels_are_a_function_of_the_split_seed():
    config = TaskConfig(name="composition", group="S3", random_labels=True)
    state = torch.get_rng_state()
    first, again, other = (tasks.load(config, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.labels, again.labels) and not torch.equal(first.labels, other.labels)
    assert torch.equal(torch.get_rng_state(), state)


def test_outliers_among_random_labels_leave_the_test_s_random_labels():
    config = TaskConfig(p=23, train_fraction=0.5, random_labels=True)
    random, split = tasks.load(config, 0)
    both, _ = tasks.load(dataclasses.replace(config, outliers=100), 0)
    assert torch.equal(both.labels[split.test], random.labels[split.test])
    assert 80 < int((both.labels != random.labels).sum()) <= 100


def test_without_outliers_and_random_labels_every_answer_is_right():
    for config in (TaskConfig(p=23), TaskConfig(name="aba", group="S3")):
        assert torch.equal(tasks.load(config, 5)[0].labels, tasks.build(config).labels)


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


@pytest.mark.parametrize("p", [3, 5, 7, 113])
def test_the_smallest_share_that_is_said_to_be_allowed_is(p: int):
    task = tasks.build(TaskConfig(p=p))
    with pytest.raises(GrokscopeError) as refused:
        tasks.draw_split(task, 1e-9, seed=0)
    told = re.search(r"allowed: from (\S+) to below 1", str(refused.value))
    assert told and len(tasks.draw_split(task, float(told[1]), seed=0).train) == 1


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
    first, other = rng.permutation("split", 0, 0, 50), rng.permutation(purpose, seed, index, 50)
    assert sorted(first) == sorted(other) == list(range(50))
    assert first.tolist() != other.tolist()


def test_an_unknown_task_is_refused_with_the_one_that_was_meant():
    with pytest.raises(GrokscopeError, match="'adition'.*Did you mean 'addition'"):
        tasks.build(TaskConfig(name="adition"))
