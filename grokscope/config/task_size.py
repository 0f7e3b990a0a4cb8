"""The number of equations in a task, and in its training set, without building the task and without torch.

A config uses it to report an empty train or test set together with all other faults.
"""

import math
from fractions import Fraction

from grokscope import plugins
from grokscope.algebra import group_names, table_text


def n_equations(name: str, domain: int | str) -> int:
    """Return the number of equations of a built-in task.

    Args:
        name: The name of the task.
        domain: The valid value of its domain setting: `p`, `group` or `table`.
    """
    setting = plugins.domain_setting(name)
    if setting == "p":
        return int(domain) * (int(domain) - (name == "division"))
    if setting == "group":
        return group_names.group_order(str(domain)) ** 2
    return table_text.n_equations(str(domain))


def n_train(train_fraction: float, n_equations: int) -> int:
    """Return ⌊train_fraction · n_equations⌋, computed exactly: in floating point 0.29 · 100 is below 29."""
    return int(Fraction(str(train_fraction)) * n_equations)


def split_fault(name: str, train_fraction: float, n_equations: int) -> str:
    """Return the fault that leaves the train or the test set empty, or "" without such a fault."""
    if n_equations < 2:
        return f"task.name: {name!r} has too few equations ({n_equations}); allowed: at least 2, to train and to test"
    train_size = n_train(train_fraction, n_equations)
    if 0 < train_size < n_equations:
        return ""
    # Rounding up keeps the printed bound itself valid.
    smallest = math.ceil(1e6 / n_equations) / 1e6
    return (
        f"task.train_fraction: {train_fraction} of {n_equations} equations leaves the "
        f"{'training' if train_size == 0 else 'test'} set empty; allowed: from {smallest} to below 1"
    )


def outliers_fault(n_outliers: int, n_train: int) -> str:
    """Return the fault of having more outliers than training equations, or "" without such a fault."""
    if not n_outliers or (n_outliers <= n_train and n_train > 1):
        return ""
    largest = n_train if n_train > 1 else 0
    return f"task.outliers: {n_outliers} of {n_train} training equations; allowed: 0 to {largest}"
