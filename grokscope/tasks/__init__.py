"""Tasks: what is learned, as data. One small file a family; a task is a function `TaskConfig -> Task`."""

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
    """A table of equations in tokens, and the structure that measures and colourings ask for.

    Tokens are the elements 0 … n − 1, then "=", then "∘" where the form has it. The answer is read at the last
    position, which holds the "=".
    """

    name: str
    """What the operation is called."""
    formula: str
    """The operation in the field's notation, such as "a + b mod 59"."""
    inputs: Int[Tensor, "n_examples n_ctx"]
    """Every equation's tokens without the answer."""
    labels: Int[Tensor, " n_examples"]
    """Every equation's answer, an element: what is trained on, outliers and random labels included."""
    n_elements: int
    """The number of elements, n; their tokens are 0 … n − 1."""
    d_vocab: int
    """The number of tokens, elements and signs together."""
    d_vocab_out: int
    """The number of possible answers."""
    circle: Int[Tensor, " n"] | None = None
    """The elements' tokens in the order of the circle that the operation turns: token `circle[j]` lies at angle
    2πj/n, so len(circle) is the cyclic order. Elements on no circle (zero, for multiplication) are not in it; None
    if the operation has no circle."""
    circle_sign: int = 1
    """On the circle the answer lies at a's position plus this sign times b's: 1 to add, −1 to subtract or divide."""
    is_commutative: bool = False
    """Whether a ∘ b = b ∘ a wherever both are equations of the task, whatever answers were replaced since."""
    group: Group | None = None
    """The group whose elements the tokens are, with its conjugacy classes and cosets; None where there is none."""
    is_composition: bool = False
    """Whether a ∘ b is the group's own product a·b for every equation, whatever answers were replaced since."""

    @property
    def n_ctx(self) -> int:
        """The number of tokens in an equation, the answer not counted."""
        return self.inputs.shape[1]

    @cached_property
    def operands(self) -> Int[Tensor, "n_examples 2"]:
        """Every equation's a and b."""
        return self.inputs[:, [0, self.n_ctx - 2]]

    @cached_property
    def n_examples_off_circle(self) -> int:
        """How many equations have an operand that is on no circle, and so no part in circular measures."""
        if self.circle is None:
            return len(self.inputs)
        return int((~torch.isin(self.operands, self.circle).all(1)).sum())


@dataclass(frozen=True, eq=False)
class Split:
    """Which examples of a task are trained on: indices into `task.inputs`, increasing."""

    train: Int[Tensor, " n_train"]
    test: Int[Tensor, " n_test"]


def checked_split(split: Split | tuple[Tensor, Tensor] | None, n_examples: int) -> Split | None:
    """Return a given split, if there is one; raise GrokscopeError unless its indices are of different examples."""
    if split is None or isinstance(split, Split):
        checked = split
    else:
        checked = Split(*(torch.as_tensor(part).long() for part in split))
    if checked is not None:
        both = torch.cat([checked.train, checked.test])
        if len(both.unique()) != len(both) or not len(checked.train) or both.min() < 0 or both.max() >= n_examples:
            raise GrokscopeError(
                f"The split is none: allowed are indices from 0 to {n_examples - 1}, none of them twice, "
                f"and at least one to train on."
            )
    return checked


def build(config: TaskConfig) -> Task:
    """Return the task that the config names, every answer right; raise GrokscopeError if nobody has registered it."""
    return plugins.load("tasks", config.name)(config)


def load(config: TaskConfig, seed: int, split: Split | None = None) -> tuple[Task, Split]:
    """Return what a run learns from: the task, with random labels or outliers if the config asks, and the split.

    The split defaults to the one that `seed` draws. Raise GrokscopeError if train or test would be empty, or if
    there are more outliers than training examples.
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
    """Return the task of the equations a ∘ b = label, written in tokens as the config's form says."""
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
    """Draw ⌊train_fraction · n_examples⌋ training examples; the rest is the test set.

    The examples are sorted by random 64-bit numbers of a stream that never changes, so a split is the same for
    ever. Raise GrokscopeError if train or test would be empty.
    """
    n_examples = len(task.inputs)
    if fault := task_size.split_fault(task.name, train_fraction, n_examples):
        raise GrokscopeError(f"{fault}.")
    n_train = task_size.n_train(train_fraction, n_examples)
    order = torch.from_numpy(rng.permutation("split", seed, 0, n_examples))
    return Split(order[:n_train].sort().values, order[n_train:].sort().values)


def with_outliers(task: Task, split: Split, n_outliers: int, seed: int) -> Task:
    """Return the task with the answers of `n_outliers` training equations replaced by another one's.

    Equation i of a random order of the training set takes the answer of a training equation drawn at random from
    the others (Power et al. 2022, section 3.3), which may by chance be the right one. For one seed the outliers of
    a smaller number are among those of a larger. Test answers stay right.
    """
    n_train = len(split.train)
    if fault := task_size.outliers_fault(n_outliers, n_train):
        raise GrokscopeError(f"{fault}.")
    order = split.train[torch.from_numpy(rng.permutation("outliers", seed, 0, n_train))]
    drawn = rng.integers("outliers", seed, 1, n_train) % (n_train - 1) + 1
    source = (torch.arange(n_train) + torch.from_numpy(drawn.astype("int64"))) % n_train
    labels = task.labels.clone()
    labels[order[:n_outliers]] = task.labels[order[source[:n_outliers]]]
    return dataclasses.replace(task, labels=labels)


def with_random_labels(task: Task, seed: int) -> Task:
    """Return the task with every answer drawn uniformly at random, which leaves nothing to generalise to."""
    drawn = rng.integers("random labels", seed, 0, len(task.labels)) % task.d_vocab_out
    return dataclasses.replace(task, labels=torch.from_numpy(drawn.astype("int64")))


def _is_commutative(
    a: Int[Tensor, " n_examples"], b: Int[Tensor, " n_examples"], labels: Int[Tensor, " n_examples"], n_elements: int
) -> bool:
    answers = torch.full((n_elements, n_elements), -1)
    answers[a, b] = labels
    both = (answers >= 0) & (answers.T >= 0)
    return bool((answers == answers.T)[both].all())
