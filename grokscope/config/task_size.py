"""How many equations a task has and how many are trained on, counted without building it. No torch here.

So a config can say that its train or test set would be empty, together with everything else that is wrong with it.
"""

import math
from fractions import Fraction

from grokscope import plugins
from grokscope.algebra import groups, tables


def n_equations(name: str, domain: int | str) -> int:
    """Return the number of equations of a built-in task, given a valid value of its domain setting."""
    setting = plugins.domain_setting(name)
    if setting == "p":
        return int(domain) * (int(domain) - (name == "division"))
    if setting == "group":
        return groups.order(str(domain)) ** 2
    return int((tables.read_table(str(domain)) >= 0).sum())


def n_train(train_fraction: float, n_equations: int) -> int:
    """Return ⌊train_fraction · n⌋, exactly: in floating point 0.29 · 100 is below 29."""
    return int(Fraction(str(train_fraction)) * n_equations)


def split_fault(name: str, train_fraction: float, n_equations: int) -> str:
    """Say why so many equations cannot be split into a train and a test set; nothing if they can."""
    if n_equations < 2:
        return f"task.name: {name!r} has {n_equations} equations here; allowed: from 2, to train and test"
    trained_on = n_train(train_fraction, n_equations)
    if 0 < trained_on < n_equations:
        return ""
    # Rounded up, so that what is allowed really is.
    smallest = math.ceil(1e6 / n_equations) / 1e6
    return (
        f"task.train_fraction: {train_fraction} of {n_equations} equations leaves the "
        f"{'training' if trained_on == 0 else 'test'} set empty; allowed: from {smallest} to below 1"
    )


def outliers_fault(n_outliers: int, n_train: int) -> str:
    """Say why the answers of so many training equations cannot be replaced; nothing if they can."""
    if not n_outliers or (n_outliers <= n_train and n_train > 1):
        return ""
    most = n_train if n_train > 1 else 0
    return f"task.outliers: {n_outliers} of {n_train} training equations; allowed: 0 to {most}"
