"""Import: make a run on disk from checkpoints of another program, and evaluate its log at each checkpoint.

An imported run has no resume state, so it cannot be trained further. Everything that reads a run reads it.
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
from grokscope.errors import GrokscopeError, quoted_value
from grokscope.interop import formats, safe_load
from grokscope.opened_run import data_digest
from grokscope.store.record import IMPORTED, packed_indices
from grokscope.store.run_names import new_run_folder
from grokscope.store.run_store import LOG_COLUMNS, Record, create
from grokscope.training.checkpointer import SEGMENT_BYTES, SEGMENT_CHECKPOINTS, as_arrays
from grokscope.trajectory import Trajectory

_STEP = re.compile(r"(?<!\d[^-])(?<!\d[eE][-+])(?<![\dvV])(?<![\W_][-+.,])\d{1,18}\Z")
"""The step at the end of a file's name. The end of 1.5e6, 12,000, 1_000, 1e-5, v2, -1 or 3fa9b2c7 is not a step."""


def import_checkpoints(
    paths: Sequence[Path | str],
    config: RunConfig,
    run: str | None = None,
    root: Path | str = "checkpoints",
    steps: Sequence[int] | None = None,
    answers_only: bool = False,
) -> Trajectory:
    """Make a new run from the checkpoints in files of another program, and return its trajectory.

    The log has a row for each checkpoint, with the losses and accuracies that are evaluated here. An error leaves
    nothing on disk.

    Args:
        paths: Files ending in .safetensors, .pt or .pth, read as `formats.parse_content` describes. Parameters have
            TransformerLens' names and shapes, or those of Nanda et al. 2023 (see `formats.to_transformer_lens`).
            "train_indices" in a file replaces the config's split.
        config: The config of the imported run. Its `n_steps` is replaced by the last step.
        run: The run's name; by default the task's name, then NAME-2, NAME-3, …
        root: The folder that contains the runs.
        steps: The step of each state dict, in the order of the files. By default the step that the file contains, or
            else the number at the end of its name.
        answers_only: Whether to drop the unembedding's columns of tokens that are never an answer, such as "=".

    Returns:
        The trajectory of the new run.

    Raises:
        GrokscopeError: A file cannot be read, or is not a checkpoint; a parameter is missing, unknown, misshapen or
            not finite; a step is unknown or repeated; or the run's name is taken.
    """
    config = config.validate()
    sources = [Path(path) for path in paths]
    if not sources:
        raise GrokscopeError("There is no file to import; allowed: one or more .safetensors, .pt or .pth files.")
    folder = new_run_folder(Path(root), run, config.task.name)
    files = [formats.parse_content(safe_load.read(path), path, steps is None) for path in sources]
    state_dicts = _by_step(files, sources, steps)
    task = tasks.build(config.task)
    split = _split([file.train_indices for file in files], config, task)
    # A config has at least one update, so the run of a single untrained checkpoint has n_steps = 1.
    config = dataclasses.replace(config, n_steps=max(1, *state_dicts)).validate()
    parameters = {step: formats.to_transformer_lens(state_dict) for step, state_dict in state_dicts.items()}
    parameters = _with_answers_only(parameters, task, answers_only)
    trajectory = Trajectory.from_state_dicts(config, parameters, split)
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
        event["train"] = packed_indices(split.train.numpy(), len(task.inputs))
    _write(folder, trajectory, event)
    return Trajectory.open(folder)


def _write(folder: Path, trajectory: Trajectory, event: Mapping[str, Any]) -> None:
    """Write a trajectory in memory as a run, complete or not at all."""
    log = measures.evaluate("loss", trajectory)
    rows = [(float(step), *(float(log[name][i]) for name in LOG_COLUMNS[1:])) for i, step in enumerate(log.steps)]
    record = Record(trajectory.config, {}, data_digest(trajectory.task, trajectory.split), (event,))
    n_bytes = sum(tensor.nbytes for tensor in trajectory.first.parameters.values())
    n_at_once = max(1, min(SEGMENT_CHECKPOINTS, SEGMENT_BYTES // n_bytes))
    with atomic.build_folder(folder) as building, ExitStack() as locks:
        locks.enter_context(Lock(building))
        store = create(building, record)
        before = -1
        for first in range(0, len(trajectory), n_at_once):
            part = trajectory[first : first + n_at_once]
            steps = part.steps.tolist()
            store.commit(
                steps,
                [as_arrays(snapshot.parameters) for snapshot in part],
                coverage=(before, steps[-1]),
                log=rows[first : first + n_at_once],
            )
            before = steps[-1]


def _by_step(
    files: list[formats.CheckpointFile], sources: list[Path], given: Sequence[int] | None
) -> dict[int, Mapping[Any, Any]]:
    """Return every state dict by its step, sorted; raise GrokscopeError if one is missing or repeated."""
    listed = [
        (step, state_dict, path)
        for file, path in zip(files, sources, strict=True)
        for step, state_dict in file.state_dicts
    ]
    if given is not None:
        if len(given) != len(listed) or any(type(step) is not int or not 0 <= step < 2**62 for step in given):
            raise GrokscopeError(
                f"steps: {quoted_value(list(given))} for {len(listed)} state dicts; allowed: one whole number from 0 "
                "for each."
            )
        listed = [(step, state_dict, path) for step, (_, state_dict, path) in zip(given, listed, strict=True)]
    by_step: dict[int, Mapping[Any, Any]] = {}
    for step, state_dict, path in listed:
        # The lookbehinds of _STEP need two characters before the name.
        in_name = _STEP.search(f"  {path.stem}")
        if step is None and in_name and sum(source == path for _, _, source in listed) == 1:
            step = int(in_name[0])
        if step is None:
            raise GrokscopeError(
                f"{quoted_value(str(path))} does not tell the step of its checkpoint. Name it with --steps, or end "
                "the file's name in the step, in digits alone."
            )
        if step in by_step:
            raise GrokscopeError(
                f"Step {step} occurs twice, the second time in {quoted_value(str(path))}. Name the steps with "
                "--steps."
            )
        by_step[step] = state_dict
    return dict(sorted(by_step.items()))


def _split(train_indices: list[Any], config: RunConfig, task: tasks.Task) -> tasks.Split | None:
    """Return the split of the training examples that the files name; None if no file names them."""
    named = [indices for indices in train_indices if indices is not None]
    if not named:
        return None
    first = named[0]
    n_examples = len(task.inputs)
    is_valid = all(
        isinstance(indices, Tensor) and indices.dtype == torch.int64 and indices.ndim == 1 for indices in named
    )
    if not is_valid or any(not torch.equal(indices, first) for indices in named):
        raise GrokscopeError("train_indices: allowed: one tensor of whole numbers, the same in every file.")
    is_proper = 0 < len(first) < n_examples and len(first.unique()) == len(first)
    if not is_proper or first.min() < 0 or first.max() >= n_examples:
        raise GrokscopeError(
            f"train_indices: {len(first)} numbers; allowed for {config.task.name!r}: different numbers from 0 to "
            f"{n_examples - 1}, and not all of them."
        )
    is_train = torch.zeros(n_examples, dtype=torch.bool)
    is_train[first] = True
    return tasks.Split(is_train.nonzero()[:, 0], (~is_train).nonzero()[:, 0])


def _with_answers_only(
    state_dicts: dict[int, dict[str, Any]], task: tasks.Task, answers_only: bool
) -> dict[int, dict[str, Any]]:
    """Return the state dicts with an unembedding of answers alone; raise GrokscopeError if that needs a flag."""
    shortened = {}
    for step, state_dict in state_dicts.items():
        shortened[step] = dict(state_dict)
        for name in ("unembed.W_U", "unembed.b_U"):
            value = state_dict.get(name)
            if isinstance(value, Tensor) and value.ndim and value.shape[-1] == task.d_vocab > task.d_vocab_out:
                if not answers_only:
                    raise GrokscopeError(
                        f"step {step}: {name} has {task.d_vocab} columns, one for each token, but this task has "
                        f"{task.d_vocab_out} answers. --answers-only drops the columns of other tokens, as the "
                        "analysis of Nanda et al. 2023 does; the losses are then among the answers alone."
                    )
                shortened[step][name] = value[..., : task.d_vocab_out]
    return shortened


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
