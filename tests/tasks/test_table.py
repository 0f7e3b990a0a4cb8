"""Tasks that are given by a table of answers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.answer_tables import answer_table

from grokscope import tasks
from grokscope.algebra import tables
from grokscope.config import TaskConfig
from grokscope.config.task_config import TOKEN_FORMS
from grokscope.errors import GrokscopeError


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_table_of_a_function_is_the_function(form: str):
    text = tables.tabulate(lambda a, b: a ^ b, 8)
    task = tasks.build(TaskConfig(name="table", table=text, form=form))
    assert answer_table(task) == {(a, b): a ^ b for a in range(8) for b in range(8)}
    assert (task.n_elements, task.d_vocab, task.d_vocab_out) == (8, 9 + ("∘" in form), 8)
    assert task.circle is None and task.group is None and task.is_commutative
    asymmetric = tables.tabulate(lambda a, b: b, 3)
    assert not tasks.build(TaskConfig(name="table", table=asymmetric, form=form)).is_commutative


def test_point_in_table_leaves_the_equation_out():
    """Division has no answer for b = 0, so its table has points there."""
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
def test_table_gives_one_equation_per_number(rows: list[list[int | None]]):
    text = tables.tabulate(lambda a, b: rows[a][b], len(rows))
    task = tasks.build(TaskConfig(name="table", table=text))
    n = range(len(rows))
    assert answer_table(task) == {(a, b): rows[a][b] for a in n for b in n if rows[a][b] is not None}
    assert task.d_vocab_out == len(rows)


def test_invalid_table_is_refused():
    with pytest.raises(GrokscopeError, match="row 1 has '2'"):
        tasks.build(TaskConfig(name="table", table="0 1; 1 2"))


@pytest.mark.parametrize("text", [". .; . .", "0 .; . ."])
def test_table_with_fewer_than_two_equations_is_refused(text: str):
    with pytest.raises(GrokscopeError):
        tasks.load(TaskConfig(name="table", table=text), seed=0)
