"""Tasks as data: equations in tokens, their answers, and the structure that measures need.

A task is a function `TaskConfig -> Task`; each family of tasks has a small file of its own.
"""

import dataclasses

import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import plugins, rng
from grokscope.algebra.groups import Group
from grokscope.config import TaskConfig, task_size
from grokscope.config.task_config import SEQUENCE_FORM, TWO_TOKEN_FORM, relabelling_fault
from grokscope.errors import GrokscopeError, quoted_value
from grokscope.tasks.circle import circle_faults
from grokscope.tasks.split import Split, draw_split, given_split, validated_split
from grokscope.tasks.task import NO_TARGET, Examples, Part, Sampler, Task

__all__ = [
    "NO_TARGET",
    "Examples",
    "Part",
    "Sampler",
    "Split",
    "Task",
    "build",
    "draw_split",
    "equations",
    "load",
    "load_unsplit",
    "operand_equations",
    "validated_split",
    "with_outliers",
    "with_random_labels",
]


def build(config: TaskConfig) -> Task:
    """Return the task that `config` names, with correct answers throughout.

    Raises:
        GrokscopeError: No task of this name is registered, or another package's task fails or is invalid.
    """
    task = plugins.call("tasks", config.name, config)
    subject = plugins.described("tasks", config.name)
    if not isinstance(task, Task):
        raise GrokscopeError(f"{subject[0].upper()}{subject[1:]} returned {quoted_value(task)}; allowed: a Task.")
    targets = task.labels[task.labels != NO_TARGET] if task.is_sequence else task.labels
    faults = _token_faults("inputs", task.inputs, "d_vocab", task.d_vocab)
    faults += _token_faults("labels", targets, "d_vocab_out", task.d_vocab_out)
    if len(task.labels) != len(task.inputs):
        faults.append(f"labels: {len(task.labels)} answers for {len(task.inputs)} equations")
    elif task.is_sequence and task.labels.shape != task.inputs.shape:
        faults.append(f"labels: the shape {tuple(task.labels.shape)}; allowed: {tuple(task.inputs.shape)}")
    elif task.is_sequence and not (task.labels != NO_TARGET).any(1).all():
        faults.append(f"labels: an example has no target; allowed: at least one that is not {NO_TARGET}")
    faults = faults or circle_faults(task)
    if faults:
        raise GrokscopeError(f"{subject[0].upper()}{subject[1:]} is invalid: {'; '.join(faults)}.")
    return task


def _token_faults(name: str, tokens: Tensor, vocabulary: str, size: int) -> list[str]:
    """Return a fault if tokens are outside their vocabulary."""
    if not tokens.numel() or (tokens.min() >= 0 and tokens.max() < size):
        return []
    return [f"{name}: {int(tokens.min())} to {int(tokens.max())}; allowed: 0 to {vocabulary} - 1 = {size - 1}"]


def load(config: TaskConfig, seed: int, split: Split | None = None) -> tuple[Task, Split]:
    """Return the task and the split that a run trains on, with the random labels or outliers that `config` sets.

    Args:
        config: The task's settings.
        seed: Decides the split, the outliers and the random labels.
        split: Replaces the split that `config.train_set` names or `seed` draws.

    Raises:
        GrokscopeError: The train or the test set would be empty, or outliers outnumber the training examples.
    """
    task = build(config)
    if split is None and config.train_set:
        split = given_split(task, config.train_set)
    split = split or draw_split(task, config.train_fraction, seed, config.split)
    if task.is_sequence and (fault := relabelling_fault(config)):
        raise GrokscopeError(f"{fault}.")
    if config.random_labels:
        task = with_random_labels(task, seed)
    if config.outliers:
        task = with_outliers(task, split, config.outliers, seed)
    return task, split


def load_unsplit(config: TaskConfig, seed: int) -> Task:
    """Return the task of a run whose training set is not known, with the random labels that `config` sets.

    Args:
        config: The task's settings.
        seed: Decides the random labels.

    Raises:
        GrokscopeError: The task has outliers, which are training equations.
    """
    if config.outliers:
        raise GrokscopeError(f"task.outliers: {config.outliers}, but the training set is unknown; allowed: 0.")
    task = build(config)
    return with_random_labels(task, seed) if config.random_labels else task


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
    operands = torch.stack([a, b], 1)
    return operand_equations(
        config, formula, operands, labels, n_elements, circle=circle, circle_sign=circle_sign, group=group
    )


def operand_equations(
    config: TaskConfig,
    formula: str,
    operands: Int[Tensor, "n_examples k"],
    labels: Int[Tensor, " n_examples"],
    n_elements: int,
    *,
    n_answers: int = 0,
    circle: Int[Tensor, " n"] | None = None,
    torus: Int[Tensor, "..."] | None = None,
    circle_sign: int = 1,
    group: Group | None = None,
) -> Task:
    """Return the task of equations of k operands, such as a ∘ b ∘ c = label, in the tokens of `config.form`.

    In the form "eos a ∘ b = c eos" (Power et al. 2022), the model answers twice: c at the position of "=", and "eos"
    at the position of c. The answers then include every token.

    Args:
        config: The task's settings; only `name` and `form` matter here.
        formula: The operation in the field's notation, such as "a + b + c mod 31".
        operands: The tokens of the operands, from 0 to n_elements − 1.
        labels: The answer to each equation, a number below `n_answers`.
        n_elements: The number of elements.
        n_answers: The number of answers; by default `n_elements`.
        circle: The tokens in cyclic order, if the operation adds or subtracts positions on a circle.
        torus: The tokens on a product of circles; see `Task.torus`.
        circle_sign: 1 if the operation adds positions on the circle or torus, −1 if it subtracts them.
        group: The group whose elements are the tokens.
    """
    equals, operation, eos = (torch.full_like(labels, n_elements + i) for i in range(3))
    columns = list(operands.unbind(1))
    n_signs = {TWO_TOKEN_FORM: 0, "a b =": 1}.get(config.form, 2)
    if n_signs == 2:
        columns = [column for operand in columns for column in (operand, operation)][:-1]
    columns += [equals] if n_signs else []
    targets, d_vocab_out, is_single = labels, n_answers or n_elements, config.form != SEQUENCE_FORM
    d_vocab = n_elements + n_signs
    if not is_single:
        columns = [eos, *columns, labels]
        d_vocab = d_vocab_out = n_elements + 3
        targets = torch.full((len(labels), len(columns)), NO_TARGET)
        targets[:, -2], targets[:, -1] = labels, eos
    return Task(
        name=config.name,
        formula=formula,
        inputs=torch.stack(columns, 1),
        labels=targets,
        n_elements=n_elements,
        d_vocab=d_vocab,
        d_vocab_out=d_vocab_out,
        circle=circle,
        torus=torus,
        circle_sign=circle_sign,
        is_commutative=_is_commutative(operands, labels, n_elements),
        group=group,
        is_composition=group is not None
        and operands.shape[1] == 2
        and bool((torch.from_numpy(group.table)[tuple(operands.T)] == labels).all()),
        sign_names=("=", "∘") if is_single else ("=", "∘", "eos"),
    )


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
    operands: Int[Tensor, "n_examples k"], labels: Int[Tensor, " n_examples"], n_elements: int
) -> bool:
    """Return whether the answer is the same in every order of the operands in which they are an equation."""
    if operands.shape[1] == 2:
        a, b = operands.T
        answers = torch.full((n_elements, n_elements), -1)
        answers[a, b] = labels
        has_both_orders = (answers >= 0) & (answers.T >= 0)
        return bool((answers == answers.T)[has_both_orders].all())
    place_values = n_elements ** torch.arange(operands.shape[1])
    _, group_of = (operands.sort(1).values * place_values).sum(1).unique(return_inverse=True)
    answers = torch.zeros(len(labels), dtype=torch.int64)
    answers[group_of] = labels
    return bool((answers[group_of] == labels).all())
