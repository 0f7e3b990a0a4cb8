"""The task settings of a run."""

import math
from dataclasses import dataclass

from grokscope import plugins
from grokscope.algebra import group_names, table_text
from grokscope.config import task_size
from grokscope.config.validation import checked, choice, flag, integer, number, registered

TOKEN_FORMS = ("a b =", "a ∘ b =")
LARGEST_P = 2003


def is_prime(value: int) -> bool:
    """Return whether `value` is a prime number."""
    return value > 1 and all(value % divisor for divisor in range(2, math.isqrt(value) + 1))


def _modulus_advice(value: object) -> str:
    """Return the flags that add modulo a number that is not prime, or "" for a value that is not such a number."""
    if not isinstance(value, int) or isinstance(value, bool) or not group_names.is_group_name(f"C{value}"):
        return ""
    return f"--task.name composition --task.group C{value} adds modulo {value}"


@dataclass(frozen=True)
class TaskConfig:
    """The binary operation to learn: its elements, its training fraction and the form of its equations."""

    name: str = registered("addition", "tasks")
    """The operation. `grokscope list tasks` prints the names."""
    p: int = checked(
        113,
        f"a prime from 3 to {LARGEST_P}",
        lambda value: isinstance(value, int) and 3 <= value <= LARGEST_P and is_prime(value),
        int,
        _modulus_advice,
    )
    """The modulus of a modular operation, a prime. The operands are 0 … p − 1."""
    group: str = checked(
        "S5",
        group_names.ALLOWED_NAMES,
        lambda value: isinstance(value, str) and group_names.is_group_name(value),
        str,
    )
    """The finite group of a group operation, such as "S5", "A5", "D7", "C12" or the product "C3xC5"."""
    table: str = checked("", table_text.TABLE_ALLOWED, lambda value: isinstance(value, str), str)
    """The answers of the task "table", as rows of element numbers. "@FILE" reads them from a file."""
    train_fraction: float = number(0.3, "a number between 0 and 1, both excluded", lambda value: 0 < value < 1)
    """The share of all equations in the training set. The others are the test set."""
    form: str = choice("a b =", *TOKEN_FORMS)
    """The tokens of an equation: "a b =" or "a ∘ b =". The model answers at the position of "="."""
    outliers: int = integer(0, 0)
    """The number of training equations that get the answer of another training equation (Power et al. 2022)."""
    random_labels: bool = flag(False)
    """Whether every train and test answer is random. This control task cannot be generalised."""
    split: str = choice("equations", "equations", "pairs")
    """The unit of the train/test split: "equations", or "pairs" of operands in any order.
    By pairs, a + b and b + a are both training or both test equations."""


def contradictions(task: TaskConfig, invalid: set[str]) -> list[str]:
    """Return the faults of the table, of the train/test split and of the outliers.

    Args:
        task: The settings.
        invalid: The dotted names of the settings that are invalid by themselves. Checks that need them are skipped.
    """
    if "task.name" in invalid:
        return []
    messages = [] if "task.table" in invalid else _table_faults(task)
    if messages:
        invalid = invalid | {"task.table"}
    # A plug-in task has no domain setting: only its own module can count its equations.
    domain = plugins.domain_setting(task.name)
    if domain and invalid.isdisjoint({f"task.{domain}", "task.train_fraction", "task.outliers"}):
        messages += _split_faults(task, domain)
    return messages


def _table_faults(task: TaskConfig) -> list[str]:
    if task.name == "table":
        return [f"task.table: {fault}" for fault in table_text.table_faults(task.table)]
    if task.table:
        return [f"task.table: a table, but the task is {task.name!r}; allowed: with the task 'table' only"]
    return []


def _split_faults(task: TaskConfig, domain: str) -> list[str]:
    n_equations = task_size.n_equations(task.name, getattr(task, domain))
    fault = task_size.split_fault(task.name, task.train_fraction, n_equations)
    n_train = task_size.n_train(task.train_fraction, n_equations)
    fault = fault or task_size.outliers_fault(task.outliers, n_train)
    return [fault] if fault else []
