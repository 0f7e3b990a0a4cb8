"""Opening a run's folder: its store without another model's segments, its split, and its data's digest."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from grokscope import tasks
from grokscope.model import families
from grokscope.store.run_store import Record, RunStore


def open_store(folder: Path) -> RunStore:
    """Open a run's store without the segments that belong to another model; raise GrokscopeError for no run."""
    store = RunStore(folder)
    config = store.record.config
    shapes = families.build(config.model, tasks.build(config.task)).shapes if store.segments else {}
    return store.limited_to(shapes)


def data_digest(task: tasks.Task, split: tasks.Split | None) -> str:
    """Return the SHA-256 of everything that a model learns from: the equations, the answers and the known split."""
    digest = hashlib.sha256()
    for tensor in (task.inputs, task.labels, *([split.train] if split else [])):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def has_recorded_data(record: Record, task: tasks.Task, split: tasks.Split | None) -> bool:
    """Return whether a task and a split are those that a run was trained on, or imported with."""
    if data_digest(task, split) == record.data_digest:
        return True
    if record.has_split:
        return False
    # grokscope 0.2.0 recorded the split that the config draws for files that name none.
    drawn = tasks.draw_split(task, record.config.task.train_fraction, record.config.split_seed)
    return data_digest(task, drawn) == record.data_digest


def recorded_split(record: Record) -> tasks.Split | None:
    """Return the split that an imported run names; None for any other run."""
    if record.imported is None:
        return None
    n_examples = len(tasks.build(record.config.task).inputs)
    train = record.train(n_examples)
    if train is None:
        return None
    test = np.setdiff1d(np.arange(n_examples), train)
    return tasks.Split(torch.from_numpy(train), torch.from_numpy(test))
