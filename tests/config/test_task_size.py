"""The number of equations in a task, and the faults of impossible splits."""

import pytest

from grokscope.config import task_size


@pytest.mark.parametrize(
    ("name", "domain", "n_equations"),
    [
        ("addition", 7, 49),
        ("division", 7, 42),
        ("composition", "S3", 36),
        ("composition", "C3xC5", 225),
        ("table", "0 1; 1 .", 3),
    ],
)
def test_equations_are_counted_without_the_task(name: str, domain: int | str, n_equations: int):
    assert task_size.n_equations(name, domain) == n_equations


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
