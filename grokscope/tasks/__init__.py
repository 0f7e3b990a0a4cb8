"""Tasks as data: equations in tokens, their answers, and the structure that measures need.

A task is a function `TaskConfig -> Task`; each family of tasks has a small file of its own.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import plugins, rng
from grokscope.algebra.groups import Group
from grokscope.config import TaskConfig, task_size
from grokscope.errors import GrokscopeError


@dataclass(frozen=True, eq=False)
class Task:
    """All equations of an operation in tokens, and the structure that measures and colourings need.

    The elements are tokens 0 … n − 1; larger tokens are signs. A model's answer is read at the last position.
    `equations` builds a task of a binary operation: token n is "=", which ends every equation, and the form "a ∘ b ="
    adds n + 1 for "∘". A task of another package may have other signs, none, or another number of operands.
    """

    name: str
    """The name of the operation, such as "addition"."""
    formula: str
    """The operation in the field's notation, such as "a + b mod 59"."""
    inputs: Int[Tensor, "n_examples n_ctx"]
    """The tokens of each equation without its answer."""
    labels: Int[Tensor, " n_examples"]
    """The training target of each equation, an element. Includes outliers and random labels."""
    n_elements: int
    """The number of elements, n."""
    d_vocab: int
    """The number of tokens: elements and signs."""
    d_vocab_out: int
    """The number of possible answers."""
    circle: Int[Tensor, " n"] | None = None
    """The tokens in cyclic order: token `circle[j]` is at angle 2πj/n, with n = len(circle). Elements outside the
    cyclic structure (zero, for multiplication) are left out. None if the operation has no such structure."""
    circle_sign: int = 1
    """The s in position(answer) = position(a) + s · position(b) mod n: 1 to add, −1 to subtract or divide."""
    is_commutative: bool = False
    """Whether a ∘ b = b ∘ a wherever both are equations of the task. Ignores outliers and random labels."""
    group: Group | None = None
    """The group whose elements are the tokens, for its conjugacy classes and cosets. None without a group."""
    is_composition: bool = False
    """Whether a ∘ b is the group product a·b in every equation. Ignores outliers and random labels."""

    @property
    def n_ctx(self) -> int:
        """The number of tokens in an equation without its answer."""
        return self.inputs.shape[1]

    @cached_property
    def operand_positions(self) -> tuple[int, ...]:
        """The positions of the operands: those that contain an element in every equation."""
        return tuple((self.inputs < self.n_elements).all(0).nonzero()[:, 0].tolist())

    @cached_property
    def operands(self) -> Int[Tensor, "n_examples n_operands"]:
        """The operands of each equation in order, such as a and b."""
        return self.inputs[:, list(self.operand_positions)]

    @property
    def answer_position(self) -> int:
        """The position at which the answer is read: the last one."""
        return self.n_ctx - 1

    @cached_property
    def signs(self) -> tuple[str, ...]:
        """The names of the tokens from n_elements up: "=", "∘", and then numbered signs."""
        n_signs = self.d_vocab - self.n_elements
        return ("=", "∘", *(f"sign {i}" for i in range(3, n_signs + 1)))[:n_signs]

    @cached_property
    def position_names(self) -> tuple[str, ...]:
        """The name of each position: "a", "b", "c", … for the operands, the sign, or "sign" where signs differ."""
        operands, names = iter("abcdefghijklmnopqrstuvwxyz"), []
        for position, tokens in enumerate(self.inputs.T):
            if position in self.operand_positions:
                names.append(next(operands, "operand"))
            else:
                is_constant = bool((tokens == tokens[0]).all())
                names.append(self.signs[int(tokens[0]) - self.n_elements] if is_constant else "sign")
        return tuple(names)

    @cached_property
    def n_examples_off_circle(self) -> int:
        """The number of equations with an operand outside the circle; circular measures leave these out."""
        if self.circle is None:
            return len(self.inputs)
        return int((~torch.isin(self.operands, self.circle).all(1)).sum())


@dataclass(frozen=True, eq=False)
class Split:
    """The train and the test set: indices into `task.inputs`, in increasing order when drawn by `draw_split`."""

    train: Int[Tensor, " n_train"]
    test: Int[Tensor, " n_test"]


def validated_split(split: Split | tuple[Tensor, Tensor] | None, n_examples: int) -> Split | None:
    """Return the caller's split as a `Split`, or None if the caller gave none.

    Args:
        split: Indices of the training and of the test examples.
        n_examples: The number of equations of the task.

    Raises:
        GrokscopeError: An index repeats or is out of range, or the train set is empty.
    """
    if split is None:
        return None
    if not isinstance(split, Split):
        split = Split(*(torch.as_tensor(indices).long() for indices in split))
    indices = torch.cat([split.train, split.test])
    has_repeats = len(indices.unique()) != len(indices)
    if has_repeats or not len(split.train) or indices.min() < 0 or indices.max() >= n_examples:
        raise GrokscopeError(
            f"The split is invalid. Allowed: indices from 0 to {n_examples - 1} without repeats, "
            f"at least one of them for training."
        )
    return split


def build(config: TaskConfig) -> Task:
    """Return the task that `config` names, with correct answers throughout.

    Raises:
        GrokscopeError: No task of this name is registered.
    """
    return plugins.load("tasks", config.name)(config)


def load(config: TaskConfig, seed: int, split: Split | None = None) -> tuple[Task, Split]:
    """Return the task and the split that a run trains on, with the random labels or outliers that `config` sets.

    Args:
        config: The task's settings.
        seed: Decides the split, the outliers and the random labels.
        split: Replaces the split that `seed` draws.

    Raises:
        GrokscopeError: The train or the test set would be empty, or outliers outnumber the training examples.
    """
    task = build(config)
    split = split or draw_split(task, config.train_fraction, seed)
    if config.random_labels:
        task = with_random_labels(task, seed)
    if config.outliers:
        task = with_outliers(task, split, config.outliers, seed)
    return task, split


def equations(
    config: TaskConfig,
    formula: str,
    a: Int[Tensor, " n_examples"],
    b: Int[Tensor, " n_examples"],
    labels: Int[Tensor, " n_examples"],
    n_elements: int,
    *,
    circle: Int[Tensor, " n"] | None = None,
    circle_sign: int = 1,
    group: Group | None = None,
) -> Task:
    """Return the task of the equations a ∘ b = label, written in the tokens of `config.form`.

    Args:
        config: The task's settings; only `name` and `form` matter here.
        formula: The operation in the field's notation, such as "a + b mod 59".
        a: The first operand of each equation, an element from 0 to n_elements − 1.
        b: The second operand of each equation.
        labels: The answer to each equation, an element.
        n_elements: The number of elements.
        circle: The tokens in cyclic order, if the operation adds or subtracts positions on a circle.
        circle_sign: 1 if the operation adds positions on the circle, −1 if it subtracts them.
        group: The group whose elements are the tokens.
    """
    equals, operation = torch.full_like(a, n_elements), torch.full_like(a, n_elements + 1)
    columns = [a, operation, b, equals] if config.form == "a ∘ b =" else [a, b, equals]
    return Task(
        name=config.name,
        formula=formula,
        inputs=torch.stack(columns, 1),
        labels=labels,
        n_elements=n_elements,
        d_vocab=n_elements + len(columns) - 2,
        d_vocab_out=n_elements,
        circle=circle,
        circle_sign=circle_sign,
        is_commutative=_is_commutative(a, b, labels, n_elements),
        group=group,
        is_composition=group is not None and bool((torch.from_numpy(group.table)[a, b] == labels).all()),
    )


def draw_split(task: Task, train_fraction: float, seed: int) -> Split:
    """Draw ⌊train_fraction · n_examples⌋ training examples; the others are the test set.

    The random order sorts 64-bit numbers from a stream that never changes, so a seed gives the same split in every
    version of grokscope.

    Args:
        task: The task to split.
        train_fraction: The fraction of training examples, above 0 and below 1.
        seed: Decides the split.

    Raises:
        GrokscopeError: The train or the test set would be empty.
    """
    n_examples = len(task.inputs)
    if fault := task_size.split_fault(task.name, train_fraction, n_examples):
        raise GrokscopeError(f"{fault}.")
    n_train = task_size.n_train(train_fraction, n_examples)
    order = torch.from_numpy(rng.permutation("split", seed, 0, n_examples))
    return Split(order[:n_train].sort().values, order[n_train:].sort().values)


def with_outliers(task: Task, split: Split, n_outliers: int, seed: int) -> Task:
    """Return the task with the answers of `n_outliers` training equations replaced. Test answers do not change.

    An outlier takes the answer of another training equation, drawn at random; by chance it may be the right one.
    With one seed, a smaller number of outliers is a subset of a larger one.

    Args:
        task: The task with correct answers.
        split: The split whose train set receives the outliers.
        n_outliers: The number of outliers, from 0 to the number of training equations.
        seed: Decides the outliers and their answers.

    Raises:
        GrokscopeError: Outliers outnumber the training equations, or there is only one training equation.

    References:
        Power et al. 2022, section 3.3.
    """
    n_train = len(split.train)
    if fault := task_size.outliers_fault(n_outliers, n_train):
        raise GrokscopeError(f"{fault}.")
    order = split.train[torch.from_numpy(rng.permutation("outliers", seed, 0, n_train))]
    shifts = rng.integers("outliers", seed, 1, n_train) % (n_train - 1) + 1
    sources = (torch.arange(n_train) + torch.from_numpy(shifts.astype("int64"))) % n_train
    labels = task.labels.clone()
    labels[order[:n_outliers]] = task.labels[order[sources[:n_outliers]]]
    return dataclasses.replace(task, labels=labels)


def with_random_labels(task: Task, seed: int) -> Task:
    """Return the task with every answer drawn uniformly at random, which leaves nothing to generalise to."""
    labels = rng.integers("random labels", seed, 0, len(task.labels)) % task.d_vocab_out
    return dataclasses.replace(task, labels=torch.from_numpy(labels.astype("int64")))


def _is_commutative(
    a: Int[Tensor, " n_examples"], b: Int[Tensor, " n_examples"], labels: Int[Tensor, " n_examples"], n_elements: int
) -> bool:
    """Return whether a ∘ b = b ∘ a for every pair of which both orders are equations."""
    answers = torch.full((n_elements, n_elements), -1)
    answers[a, b] = labels
    has_both_orders = (answers >= 0) & (answers.T >= 0)
    return bool((answers == answers.T)[has_both_orders].all())
