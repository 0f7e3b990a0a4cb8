"""The number of equations in a task, and in its training set, without building the task and without torch.

A config uses it to report an empty train or test set together with all other faults.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from grokscope import plugins
from grokscope.algebra import group_names, table_text
from grokscope.config import expressions, mixtures

LARGEST = 20_000_000
"""The most equations of a task: their tokens take about a gigabyte."""


def n_equations(task: Any) -> int:
    """Return the number of equations of a built-in task, whose settings are valid.

    Args:
        task: The TaskConfig.
    """
    counts: dict[str, Callable[[], int]] = {
        "group": lambda: group_names.group_order(task.group) ** 2,
        "table": lambda: table_text.n_equations(task.table),
        "expression": lambda: math.prod(expression_sizes(task)),
        "n_digits": lambda: min(task.n_examples, task.base ** (2 * task.n_digits)),
        "n_bits": lambda: min(task.n_examples, 2**task.n_bits),
        "n_tokens": lambda: task.n_examples,
        "data": lambda: _n_own_examples(task.data),
        "mixture": lambda: sum(map(n_equations, mixtures.members(task))),
        "p": lambda: _n_modular(task),
    }
    return counts[plugins.task_settings(task.name)[0]]()


def _n_own_examples(text: str) -> int:
    from grokscope.config import own_data  # It needs NumPy, which `--help` does without.

    return len(own_data.decode(text)["inputs"])


def expression_sizes(task: Any) -> list[int]:
    """Return the number of values of each operand of a valid expression."""
    return expressions.sizes(task.sizes) or [task.p] * expressions.n_operands(task.expression)


def _n_modular(task: Any) -> int:
    if task.name == "addition":
        return task.p**task.n_operands
    if task.name not in ("multiplication", "division"):
        return task.p**2
    n_units = totient(task.p)
    n_first = task.p if task.zero_divisors else n_units
    return n_first * n_units if task.name == "division" else n_first**task.n_operands


def totient(n: int) -> int:
    """Return φ(n), the number of units modulo n."""
    return sum(math.gcd(i, n) == 1 for i in range(n))


def n_train(train_fraction: float, n_equations: int) -> int:
    """Return ⌊train_fraction · n_equations⌋, computed exactly: in floating point 0.29 · 100 is below 29."""
    return int(Fraction(str(train_fraction)) * n_equations)


def size_of_train_set(train_set: str, train_fraction: float, n_equations: int) -> int:
    """Return the number of training equations: those of a given `train_set`, or of a drawn one."""
    return int(train_set, 16).bit_count() if train_set else n_train(train_fraction, n_equations)


def train_set_fault(train_set: str, n_equations: int) -> str:
    """Return the fault of a `task.train_set` in hexadecimal that does not fit a task, or "" if it fits."""
    n_digits, n_unused = 2 * math.ceil(n_equations / 8), -n_equations % 8
    bits = int(train_set, 16)
    if len(train_set) == n_digits and not bits % 2**n_unused and 0 < bits.bit_count() < n_equations:
        return ""
    return (
        f"task.train_set: {len(train_set):,} hexadecimal digits with {bits.bit_count():,} training equations do not "
        f"fit the {n_equations:,} equations of the task; allowed: {n_digits:,} digits, one bit per equation"
    )


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
