"""Import: checkpoints that other programs saved become a run on disk, with a log that is evaluated at each of them.

Such a run has no resume state, so nobody can train it on; everything that reads a run reads it.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grokscope import measures, tasks
from grokscope.config import RunConfig
from grokscope.disk import atomic
from grokscope.disk.lock import Lock
from grokscope.errors import BusyError, GrokscopeError, quoted_value
from grokscope.interop import formats, safe_load
from grokscope.store.record import IMPORTED, packed
from grokscope.store.run_store import LOG_COLUMNS, Record, checked_name, create, free_name
from grokscope.training.checkpointer import SEGMENT_BYTES, SEGMENT_CHECKPOINTS, as_arrays
from grokscope.trajectory import Trajectory, data_digest

_STEP = re.compile(r"(?<!\d[^-])(?<!\d[eE][-+])(?<![\dvV])(?<![\W_][-+.,])\d{1,18}\Z")
"""The step that a file's name ends in; none is the end of 1.5e6, 12,000, 1_000, 1e-5, v2, -1 or 3fa9b2c7."""


def import_checkpoints(
    paths: Sequence[Path | str],
    config: RunConfig,
    run: str | None = None,
    root: Path | str = "checkpoints",
    steps: Sequence[int] | None = None,
    answers_only: bool = False,
) -> Trajectory:
    """Make the new run root/run of the checkpoints in some files, and return its trajectory.

    `config` says what they are checkpoints of; its `n_steps` becomes the last step. What a file may hold is said in
    `layouts.checkpoints`: parameters under TransformerLens' names, or as Nanda et al. 2023 saved them, which is
    recognised by W_O's two axes and rearranged. Steps are `steps`, in the order of the files, or what a file says,
    or the number its name ends in. Training examples that a file names ("train_indices") take the place of the
    config's split. With `answers_only` an unembedding with a column for each token loses those of signs, which are
    never an answer. The log has a row for each checkpoint: its losses and accuracies, evaluated here.

    Nothing is written unless everything is right. Raise GrokscopeError as `foreign.read` and `layouts.checkpoints`
    do; one for every missing, unknown and misshapen parameter; and for steps that are not known, or twice.
    """
    config = config.validate()
    sources = [Path(path) for path in paths]
    if not sources:
        raise GrokscopeError("There is no file to import; allowed: one or more .safetensors, .pt or .pth files.")
    folder = Path(root) / (free_name(config.task.name, Path(root)) if run is None else checked_name(run))
    if folder.exists():
        raise BusyError(f"{folder} exists already; choose another --run name.")
    found = [formats.checkpoints(safe_load.read(path), path, steps is None) for path in sources]
    state_dicts = _by_step(found, sources, steps)
    task = tasks.build(config.task)
    split = _split([one.train for one in found], config, task)
    # A config counts from one update: a single untrained checkpoint is a run of one.
    config = dataclasses.replace(config, n_steps=max(1, *state_dicts)).validate()
    kept = {step: formats.named(state_dict) for step, state_dict in state_dicts.items()}
    kept = _answering(kept, task, answers_only)
    trajectory = Trajectory.from_state_dicts(config, kept, split)
    for snapshot in trajectory:
        for name, tensor in snapshot.parameters.items():
            if not torch.isfinite(tensor).all():
                raise GrokscopeError(f"{name} is not finite at step {snapshot.step}; leave that checkpoint out.")
    event: dict[str, Any] = {
        "event": IMPORTED,
        "files": [{"name": path.name, "sha256": _sha256(path)} for path in sources],
        "answers_only": answers_only,
    }
    if split is not None:
        event["train"] = packed(split.train.numpy(), len(task.inputs))
    _write(folder, trajectory, event)
    return Trajectory.open(folder)


def _write(folder: Path, trajectory: Trajectory, event: Mapping[str, Any]) -> None:
    """Write a trajectory in memory as a run, whole and at once."""
    log = measures.evaluate("loss", trajectory)
    rows = [(float(step), *(float(log[name][i]) for name in LOG_COLUMNS[1:])) for i, step in enumerate(log.steps)]
    record = Record(trajectory.config, {}, data_digest(trajectory.task, trajectory.split), (event,))
    n_bytes = sum(tensor.nbytes for tensor in trajectory.first.parameters.values())
    n_at_once = max(1, min(SEGMENT_CHECKPOINTS, SEGMENT_BYTES // n_bytes))
    with atomic.building(folder) as building, ExitStack() as held:
        held.enter_context(Lock(building))
        started = create(building, record)
        before = -1
        for first in range(0, len(trajectory), n_at_once):
            part = trajectory[first : first + n_at_once]
            steps = part.steps.tolist()
            started.commit(
                steps,
                [as_arrays(snapshot.parameters) for snapshot in part],
                coverage=(before, steps[-1]),
                log=rows[first : first + n_at_once],
            )
            before = steps[-1]


def _by_step(
    found: list[formats.Found], sources: list[Path], given: Sequence[int] | None
) -> dict[int, Mapping[Any, Any]]:
    """Return every state dict by its step, in increasing order; raise GrokscopeError for a step unknown or twice."""
    listed = [(step, one, path) for file, path in zip(found, sources, strict=True) for step, one in file.state_dicts]
    if given is not None:
        if len(given) != len(listed) or any(type(step) is not int or not 0 <= step < 2**62 for step in given):
            raise GrokscopeError(
                f"steps: {quoted_value(list(given))} for {len(listed)} state dicts; allowed: as many whole numbers from 0."
            )
        listed = [(step, one, path) for step, (_, one, path) in zip(given, listed, strict=True)]
    by_step: dict[int, Mapping[Any, Any]] = {}
    for step, one, path in listed:
        # Two characters in front of the name, for what looks back.
        in_name = _STEP.search(f"  {path.stem}")
        if step is None and in_name and sum(other == path for _, _, other in listed) == 1:
            step = int(in_name[0])
        if step is None:
            raise GrokscopeError(
                f"{quoted_value(str(path))} does not say plainly at which step it was saved; give --steps, or end its name "
                f"in the step, in digits alone."
            )
        if step in by_step:
            raise GrokscopeError(
                f"Step {step} is there twice, the second time in {quoted_value(str(path))}; give --steps."
            )
        by_step[step] = one
    return dict(sorted(by_step.items()))


def _split(trains: list[Any], config: RunConfig, task: tasks.Task) -> tasks.Split | None:
    """Return the split of the training examples that the files name, all the same; None if none does."""
    named = [one for one in trains if one is not None]
    if not named:
        return None
    first = named[0]
    n_examples = len(task.inputs)
    if any(not isinstance(one, Tensor) or one.dtype != torch.int64 or one.ndim != 1 for one in named) or any(
        not torch.equal(one, first) for one in named
    ):
        raise GrokscopeError("train_indices: allowed: one tensor of whole numbers, the same in every file.")
    is_some = 0 < len(first) < n_examples and len(first.unique()) == len(first)
    if not is_some or first.min() < 0 or first.max() >= n_examples:
        raise GrokscopeError(
            f"train_indices: {len(first)} of them; allowed for {config.task.name!r}: some, not all, of 0 to "
            f"{n_examples - 1}, none twice."
        )
    is_train = torch.zeros(n_examples, dtype=torch.bool)
    is_train[first] = True
    return tasks.Split(is_train.nonzero()[:, 0], (~is_train).nonzero()[:, 0])


def _answering(
    state_dicts: dict[int, dict[str, Any]], task: tasks.Task, answers_only: bool
) -> dict[int, dict[str, Any]]:
    """Return the state dicts without the unembedding's columns of signs, if asked to; else refuse them."""
    kept = {}
    for step, state_dict in state_dicts.items():
        kept[step] = dict(state_dict)
        for name in ("unembed.W_U", "unembed.b_U"):
            one = state_dict.get(name)
            if isinstance(one, Tensor) and one.ndim and one.shape[-1] == task.d_vocab > task.d_vocab_out:
                if not answers_only:
                    raise GrokscopeError(
                        f"step {step}: {name} has {task.d_vocab} columns, one for each token, where this task has "
                        f"{task.d_vocab_out} answers; --answers-only leaves out those of signs, as the analysis of "
                        f"Nanda et al. 2023 does, and its losses are among the answers alone."
                    )
                kept[step][name] = one[..., : task.d_vocab_out]
    return kept


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
