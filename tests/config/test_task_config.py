"""TaskConfigs: the modulus, the group and the table."""

import numpy as np
import pytest
from support.configs import construct

from grokscope.config import TaskConfig
from grokscope.config.task_config import has_sequences


@pytest.mark.parametrize("name", ["table", "addition", "tabel"])
def test_table_that_is_not_text_is_a_fault_in_any_task(name: str):
    for table in (3, None, ["0 1", "1 0"], np.zeros((2, 2))):
        faults = construct({"task.name": name, "task.table": table}).faults()
        (fault,) = [fault for fault in faults if fault.startswith("task.table: ")]
        assert "allowed: rows of numbers" in fault


@pytest.mark.parametrize("group", ["S5", "A6", "D1001", "C2", "C3xC5"])
def test_group_is_checked_in_any_task(group: str):
    for name in ("addition", "composition"):
        assert construct({"task.group": group, "task.name": name}).faults() == []
    for wrong in (f"{group}x", group.lower(), f" {group}"):
        (fault,) = construct({"task.group": wrong}).faults()
        assert fault.startswith(f"task.group: {wrong!r}; allowed: ")


CONTRADICTIONS = {
    "task.p": {"task.name": "division_or_subtraction", "task.p": 15},
    "task.expression": {"task.name": "expression", "task.expression": "a + c"},
    "task.sizes": {"task.name": "expression", "task.expression": "a + b", "task.sizes": "3 4 5"},
    "task.n_digits": {"task.name": "digit_addition", "task.n_digits": 10},
    "task.n_parity_bits": {"task.name": "parity", "task.n_bits": 4, "task.n_parity_bits": 5},
    "task.n_repeated": {"task.name": "induction", "task.length": 8, "task.n_repeated": 5},
    "task.n_tokens": {"task.name": "induction", "task.length": 24, "task.n_tokens": 15},
    "task.mixture": {"task.name": "mixture", "task.mixture": "addition p=5; induction"},
    "task.data": {"task.name": "data"},
    "task.fresh": {"task.fresh": True},
    "task.random_labels": {"task.name": "induction", "task.random_labels": True},
    "task.outliers": {"task.form": "eos a ∘ b = c eos", "task.outliers": 1},
}


@pytest.mark.parametrize("setting", CONTRADICTIONS)
def test_contradicting_task_setting_is_named(setting: str):
    (fault,) = construct(CONTRADICTIONS[setting]).faults()
    assert fault.startswith(f"{setting}: ") and "allowed" in fault


def test_too_many_equations_are_refused_before_building():
    (fault,) = construct({"task.p": 113, "task.n_operands": 6}).faults()
    assert fault == "task.p: 2,081,951,752,609 equations; allowed: up to 20,000,000"


def test_tasks_with_several_answers_are_known_without_torch():
    assert [has_sequences(TaskConfig(name=name)) for name in ("addition", "digit_addition", "parity")] == [0, 1, 0]
    assert has_sequences(TaskConfig(form="eos a ∘ b = c eos"))
    # The form has no effect on a task that is not an operation.
    assert not has_sequences(TaskConfig(name="parity", form="eos a ∘ b = c eos"))
