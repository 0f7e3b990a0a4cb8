"""The number of equations in a task, and the faults of impossible splits."""

from typing import Any

import pytest

from grokscope import tasks
from grokscope.config import TaskConfig, task_size


@pytest.mark.parametrize(
    ("settings", "n_equations"),
    [
        ({"name": "addition", "p": 7}, 49),
        ({"name": "addition", "p": 7, "n_operands": 3}, 343),
        ({"name": "division", "p": 7}, 42),
        ({"name": "division", "p": 12}, 48),
        ({"name": "division", "p": 12, "zero_divisors": False}, 16),
        ({"name": "multiplication", "p": 10, "n_operands": 3, "zero_divisors": False}, 64),
        ({"name": "composition", "group": "S3"}, 36),
        ({"name": "composition", "group": "C3xC5"}, 225),
        ({"name": "table", "table": "0 1; 1 ."}, 3),
        ({"name": "expression", "p": 5}, 125),
        ({"name": "expression", "expression": "a - b", "sizes": "3 8"}, 24),
        ({"name": "digit_addition", "n_digits": 1, "base": 3}, 9),
        ({"name": "digit_addition", "n_digits": 3, "n_examples": 50}, 50),
        ({"name": "parity", "n_bits": 4}, 16),
        ({"name": "induction", "n_examples": 30}, 30),
        ({"name": "mixture", "mixture": "addition p=5; division p=7"}, 67),
    ],
)
def test_equations_are_counted_without_the_task(settings: dict[str, Any], n_equations: int):
    config = TaskConfig(**settings)
    assert task_size.n_equations(config) == n_equations == len(tasks.build(config).inputs)


def test_training_equations_are_rounded_down_exactly():
    assert 0.29 * 100 < 29
    assert task_size.n_train(0.29, 100) == 29
    assert task_size.n_train(0.299, 100) == 29


def test_split_fault_names_the_smallest_valid_fraction():
    assert task_size.split_fault("addition", 0.5, 49) == ""
    fault = task_size.split_fault("addition", 0.02, 49)
    assert fault.endswith("0.02 of 49 equations leaves the training set empty; allowed: from 0.020409 to below 1")
    assert task_size.split_fault("addition", 0.020409, 49) == ""
    assert "too few equations (1)" in task_size.split_fault("table", 0.5, 1)


@pytest.mark.parametrize(
    ("n_outliers", "n_train", "largest"), [(0, 0, None), (5, 5, None), (6, 5, 5), (1, 1, 0), (1, 2, None)]
)
def test_outliers_need_another_training_equation(n_outliers: int, n_train: int, largest: int | None):
    fault = task_size.outliers_fault(n_outliers, n_train)
    assert fault == "" if largest is None else fault.endswith(f"allowed: 0 to {largest}")
