"""The task settings of a run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from grokscope import plugins
from grokscope.algebra import group_names, table_text
from grokscope.config import expressions, mixtures, task_size
from grokscope.config.validation import checked, choice, flag, integer, number, registered

TRAIN_SET_ALLOWED = "a bit per equation, in hexadecimal, as --split-from FILE writes it; or '' for a drawn set"
TOKEN_FORMS = ("a b =", "a ∘ b =")
"""The forms of an equation with a single answer."""
TWO_TOKEN_FORM = "a b"
"""The form of operands alone, of which the last one has the answer (Zhong et al. 2023)."""
SEQUENCE_FORM = "eos a ∘ b = c eos"
"""The form of Power et al. 2022, with two answers: c and "eos"."""
LARGEST_P = 2003
_DATA_ALLOWED = "@FILE with a .npz, .pt or .csv file, or the text that Task.to_config returns"


def is_train_set(value: object) -> bool:
    """Return whether a value is empty or hexadecimal; `contradictions` checks its length."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]*", value) is not None


@dataclass(frozen=True)
class TaskConfig:
    """The task to learn: its elements, its training fraction and the form of its equations."""

    name: str = registered("addition", "tasks")
    """The task. `grokscope list tasks` prints the names."""
    p: int = integer(113, 2, LARGEST_P)
    """The modulus of a modular operation, a prime or any other whole number. The operands are 0 … p − 1."""
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
    form: str = choice("a b =", *TOKEN_FORMS, SEQUENCE_FORM, TWO_TOKEN_FORM)
    """The tokens of an equation: "a b =", "a ∘ b =" or "eos a ∘ b = c eos". The model answers at the position of "=".
    In the third form (Power et al. 2022), it also answers "eos" at the position of c.
    In the form "a b" (Zhong et al. 2023) there are only operands, and it answers at the position of the last one."""
    outliers: int = integer(0, 0)
    """The number of training equations that get the answer of another training equation (Power et al. 2022)."""
    random_labels: bool = flag(False)
    """Whether every train and test answer is random. This control task cannot be generalised."""
    split: str = choice("equations", "equations", "pairs", "nanda2023")
    """The unit of the train/test split: "equations", or "pairs" of operands in any order.
    By pairs, a + b and b + a are both training or both test equations.
    "nanda2023" draws the very equations that the code of Nanda et al. 2023 draws with `split_seed`."""
    n_operands: int = integer(2, 2, 6)
    """The number of operands of a sum or a product, such as 3 for a + b + c."""
    zero_divisors: bool = flag(True)
    """Whether products and quotients keep the operands without an inverse modulo p: zero, and divisors of zero.
    A quotient leaves them out as the second operand in any case."""
    expression: str = checked("a*b + c", expressions.ALLOWED, lambda value: isinstance(value, str), str)
    """The operation of the task "expression" modulo p, in the operands a, b, c, …, such as "a*b + c"."""
    sizes: str = checked("", expressions.SIZES_ALLOWED, lambda value: isinstance(value, str), str)
    """The number of values of each operand of an expression, such as "7 11 13"; each operand then has tokens of its
    own. By default, all operands have the values 0 … p − 1 and share their tokens."""
    n_digits: int = integer(3, 1, 30)
    """The number of digits of each summand of "digit_addition"."""
    base: int = integer(10, 2, 1000)
    """The base of the digits of "digit_addition"."""
    n_bits: int = integer(20, 1, 60)
    """The number of bits of the task "parity"."""
    n_parity_bits: int = integer(3, 1, 60)
    """The number of bits whose parity is the answer of the task "parity"."""
    n_tokens: int = integer(32, 2, 5000)
    """The number of tokens of the task "induction"."""
    length: int = integer(24, 4, 2000)
    """The number of random tokens in a sequence of the task "induction"."""
    n_repeated: int = integer(8, 2, 1000)
    """The length of the repeated subsequence of the task "induction"."""
    n_examples: int = integer(10_000, 2, 10_000_000)
    """The number of distinct examples that are drawn of a task with more of them, such as "digit_addition"."""
    data_seed: int = integer(0, 0)
    """The seed of the drawn examples, and of the bits that count in the task "parity"."""
    fresh: bool = flag(False)
    """Whether each batch is drawn from all possible examples outside the test set, instead of a fixed training
    set. The log then evaluates the training examples as a second sample."""
    mixture: str = checked("addition; subtraction", mixtures.ALLOWED, lambda value: isinstance(value, str), str)
    """The tasks of a "mixture", separated by ";", each a name with its settings, such as "addition p=59; division
    p=59 train_fraction=0.5". The first token of an equation names its task."""
    data: str = checked("", _DATA_ALLOWED, lambda value: isinstance(value, str), str)
    """The examples of the task "data". "@FILE" reads them from a .npz, .pt or .csv file."""
    train_set: str = checked("", TRAIN_SET_ALLOWED, is_train_set, str)
    """The training set itself, which replaces the drawn one: a bit per equation, in hexadecimal.
    `grokscope train --split-from FILE` writes it."""


def contradictions(task: TaskConfig, invalid: set[str]) -> list[str]:
    """Return the faults of a task's texts, sizes, train/test split and outliers.

    Args:
        task: The settings.
        invalid: The dotted names of the settings that are invalid by themselves. Checks that need them are skipped.
    """
    if "task.name" in invalid:
        return []
    # A plug-in task has no settings of its own: only its own module can count its equations.
    settings = plugins.task_settings(task.name)
    messages = [] if "task.table" in invalid or task.name == "table" else _table_faults(task)
    if not invalid.isdisjoint(f"task.{name}" for name in settings):
        return messages
    messages += list(_own_faults(task))
    if not messages and settings and invalid.isdisjoint({"task.train_fraction", "task.train_set", "task.outliers"}):
        messages += _split_faults(task)
    return messages


def has_sequences(task: TaskConfig) -> bool:
    """Return whether a valid task has answers at several positions; False for a task of another package."""
    family = plugins.task_family(task.name)
    if family is None:
        return False
    if task.name == "data":
        from grokscope.config import own_data

        return own_data.decode(task.data)["labels"].ndim == 2
    return family.has_sequences or ("form" in family.settings and task.form == SEQUENCE_FORM)


def _table_faults(task: TaskConfig) -> list[str]:
    if task.table:
        return [f"task.table: a table, but the task is {task.name!r}; allowed: with the task 'table' only"]
    return []


def _own_faults(task: TaskConfig) -> Iterator[str]:
    """Yield the faults of the settings that determine the equations."""
    checks = {
        "table": lambda: table_text.table_faults(task.table),
        "data": lambda: _data_faults(task.data),
        "mixture": lambda: _mixture_faults(task),
        "expression": lambda: expressions.expression_faults(task.expression),
    }
    if task.name in checks:
        faults = checks[task.name]()
        yield from (f"task.{task.name}: {fault}" for fault in faults)
        if task.name == "expression" and not faults:
            n_operands = expressions.n_operands(task.expression)
            yield from (f"task.sizes: {fault}" for fault in expressions.sizes_faults(task.sizes, n_operands))
    elif task.name == "division_or_subtraction" and not _has_odd_units(task.p):
        yield (
            f"task.p: {task.p}; allowed with 'division_or_subtraction': a prime or a power of 2, because every odd "
            f"number below p needs an inverse"
        )
    elif task.name == "digit_addition" and task.base ** (2 * task.n_digits) > 2**62:
        yield f"task.n_digits: {task.n_digits} in base {task.base}; allowed: base to the power 2·n_digits up to 2**62"
    elif task.name == "parity" and task.n_parity_bits > task.n_bits:
        yield f"task.n_parity_bits: {task.n_parity_bits}; allowed: 1 to n_bits = {task.n_bits}"
    elif task.name == "induction":
        if 2 * task.n_repeated > task.length:
            yield f"task.n_repeated: {task.n_repeated}; allowed: 2 to half of length = {task.length}"
        elif task.n_tokens < task.length - task.n_repeated:
            yield (
                f"task.n_tokens: {task.n_tokens}; allowed: from length - n_repeated = "
                f"{task.length - task.n_repeated}, because all tokens of a sequence differ outside its repetition"
            )


def _data_faults(text: str) -> list[str]:
    from grokscope.config import own_data  # It needs NumPy, which `--help` does without.

    return own_data.data_faults(text)


def _mixture_faults(task: TaskConfig) -> list[str]:
    """Return the faults of a mixture and of its members."""
    faults = mixtures.mixture_faults(task)
    if faults:
        return faults
    members = mixtures.members(task)
    faults = [f"{fault} in {member.name!r}" for member in members for fault in contradictions(member, set())]
    sequences = [member.name for member in members if has_sequences(member)] if not faults else []
    return faults + [f"{name!r} has answers at several positions; allowed: single answers" for name in sequences]


def _has_odd_units(n: int) -> bool:
    """Return whether every odd number below n has an inverse modulo n."""
    is_power_of_two = n & (n - 1) == 0
    return is_power_of_two or task_size.totient(n) == n - 1


def _split_faults(task: TaskConfig) -> list[str]:
    n_equations = task_size.n_equations(task)
    if n_equations > task_size.LARGEST:
        return [
            f"task.{plugins.task_settings(task.name)[0]}: {n_equations:,} equations; allowed: up to "
            f"{task_size.LARGEST:,}"
        ]
    if task.train_set:
        fault = task_size.train_set_fault(task.train_set, n_equations)
    else:
        fault = task_size.split_fault(task.name, task.train_fraction, n_equations)
    n_train = task_size.size_of_train_set(task.train_set, task.train_fraction, n_equations)
    fault = fault or task_size.outliers_fault(task.outliers, n_train)
    if not fault and has_sequences(task):
        fault = relabelling_fault(task)
    return [fault] if fault else []


def relabelling_fault(task: TaskConfig) -> str:
    """Return a fault if a task whose examples have several answers has outliers or random labels."""
    wrong = "outliers" if task.outliers else "random_labels" if task.random_labels else ""
    return wrong and (
        f"task.{wrong}: {getattr(task, wrong)}, but the examples of {task.name!r} have several answers; allowed: "
        f"with a single answer"
    )
