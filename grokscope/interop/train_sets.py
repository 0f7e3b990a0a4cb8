"""The training set of an imported run: indices in a file, or a draw that other code has published."""

import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import tasks
from grokscope.config import TaskConfig
from grokscope.errors import GrokscopeError, quoted_value
from grokscope.interop import safe_load

_KEYS = ("train_indices", "train")
_DRAW = re.compile(r"(random-shuffle|grokscope):(\d{1,18})")
_ALLOWED_DRAWS = "random-shuffle:SEED or grokscope:SEED"


def read_indices(path: Path) -> Any:
    """Return the training examples that a file contains: .pt, .pth, .safetensors, .npy, .json or .txt.

    A dict contains them as "train_indices" or "train", or as its only value. A text file contains numbers.

    Raises:
        GrokscopeError: The file cannot be read, or does not contain numbers.
    """
    readers = {".npy": _read_array, ".json": lambda path: json.loads(path.read_bytes()), ".txt": _read_text}
    try:
        content = readers[path.suffix](path) if path.suffix in readers else safe_load.read(path)
    except OSError as error:
        raise GrokscopeError(f"{quoted_value(str(path))} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise GrokscopeError(f"{path} does not contain training indices: {quoted_value(str(error))}.") from error
    if isinstance(content, dict):
        key = next((key for key in _KEYS if key in content), None)
        if key is None and len(content) != 1:
            raise GrokscopeError(f"{path} contains {quoted_value(list(content)[:8])}; allowed: 'train_indices'.")
        return content[key] if key else next(iter(content.values()))
    return content


def split_of_indices(values: Any, task: tasks.Task, source: str) -> tasks.Split:
    """Return the split of some training examples.

    Args:
        values: Indices of `task.inputs`, operands (n, 2) or tokens (n, n_ctx), or a mask over all examples: a list,
            an array or a tensor of any integer type.
        task: The task.
        source: Where the values come from, for messages.

    Raises:
        GrokscopeError: The values are not different examples of the task, or are all of them.
    """
    n_examples = len(task.inputs)
    indices = _indices(values, task)
    is_proper = indices is not None and 0 < len(indices) < n_examples and len(indices.unique()) == len(indices)
    if indices is None or not is_proper or indices.min() < 0 or indices.max() >= n_examples:
        size = "" if indices is None else f" {len(indices):,} of them were read."
        raise GrokscopeError(
            f"{source}: allowed for {task.name!r}: different whole numbers from 0 to {n_examples - 1}, or pairs of "
            f"operands, and not all of them.{size}"
        )
    return _split(indices, n_examples)


def draw(text: str, config: TaskConfig, task: tasks.Task) -> tasks.Split:
    """Return a split that published code draws.

    - "random-shuffle:SEED": the equations in the order of their operands, shuffled by Python's `random` after
      `random.seed(SEED)`; the first ⌊train_fraction · n⌋ are the training set (Nanda et al. 2023).
    - "grokscope:SEED": the split that grokscope draws with `split_seed` SEED.

    Args:
        text: One of the two.
        config: The task's settings, of which `train_fraction` and `split` matter.
        task: The task.

    Raises:
        GrokscopeError: The text has another form, or a part of the split is empty.
    """
    match = _DRAW.fullmatch(text)
    if not match:
        raise GrokscopeError(f"--split: {quoted_value(text)}; allowed: {_ALLOWED_DRAWS}.")
    if match[1] == "grokscope":
        return tasks.draw_split(task, config.train_fraction, int(match[2]), config.split)
    n_examples = len(task.inputs)
    # lexsort takes the most significant key last.
    order = np.lexsort(task.operands.T.flip(0).numpy()).tolist()
    random.Random(int(match[2])).shuffle(order)
    # The published code multiplies in floating point.
    train = torch.tensor(order[: int(config.train_fraction * n_examples)], dtype=torch.int64)
    if not len(train):
        raise GrokscopeError(f"task.train_fraction: {config.train_fraction} leaves the training set empty.")
    return _split(train, n_examples)


def reordered(split: tasks.Split, task: tasks.Task, order: Int[Tensor, " n"]) -> tasks.Split:
    """Return a split whose elements are numbered as in a file, with our numbers.

    Args:
        split: The split with the file's numbers.
        task: The task over all pairs of elements.
        order: The element of the file that each of our elements is.
    """
    operands = order.argsort()[task.operands[split.train]]
    train = split_of_indices(operands, task, "the training set").train
    return _split(train, len(task.inputs))


def common(splits: Iterable[tuple[str, tasks.Split]]) -> tuple[str, tasks.Split] | None:
    """Return the split that several sources name, with its first source; None without any.

    Raises:
        GrokscopeError: Two sources name different training sets.
    """
    named: Sequence[tuple[str, tasks.Split]] = list(splits)
    for source, split in named[1:]:
        if not torch.equal(split.train, named[0][1].train):
            raise GrokscopeError(
                f"{named[0][0]} and {source} name different training sets, of {len(named[0][1].train):,} and "
                f"{len(split.train):,} equations. Leave one of them out."
            )
    return named[0] if named else None


def _split(train: Int[Tensor, " n_train"], n_examples: int) -> tasks.Split:
    is_train = torch.zeros(n_examples, dtype=torch.bool)
    is_train[train] = True
    return tasks.Split(is_train.nonzero()[:, 0], (~is_train).nonzero()[:, 0])


def _indices(values: Any, task: tasks.Task) -> Int[Tensor, " n"] | None:
    """Return indices of examples, or None if the values cannot be such."""
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError, RecursionError):
        return None
    n_examples = len(task.inputs)
    if tensor.dtype == torch.bool:
        return tensor.nonzero()[:, 0] if tensor.shape == (n_examples,) else None
    if tensor.is_floating_point() or tensor.is_complex():
        return None
    tensor = tensor.long()
    if tensor.ndim == 1:
        return tensor
    for rows in (task.operands, task.inputs):
        if tensor.ndim == 2 and tensor.shape[1] == rows.shape[1]:
            example = {tuple(row): i for i, row in enumerate(rows.tolist())}
            return torch.tensor([example.get(tuple(row), -1) for row in tensor.tolist()], dtype=torch.int64)
    return None


def _read_array(path: Path) -> np.ndarray:
    # A memory map refuses a header that claims more than the file contains.
    return np.array(np.load(path, mmap_mode="r", allow_pickle=False))


def _read_text(path: Path) -> list[int]:
    return [int(word) for word in re.split(r"[\s,;]+", path.read_text(encoding="utf-8").strip())]
