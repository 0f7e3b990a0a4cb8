"""Import: make a run on disk from checkpoints of another program, and evaluate its log at each checkpoint.

An imported run has no resume state, so it cannot be trained further. Everything that reads a run reads it. Its record
tells what the files contain and what the caller asserted.
"""

import hashlib
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokscope import measures, tasks
from grokscope.config import RunConfig
from grokscope.config.dotted_settings import with_settings
from grokscope.disk import atomic
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError, quoted_name, quoted_value
from grokscope.interop import assessment, findings, formats, network, step_readings, train_sets
from grokscope.interop.conversion import Conversion, completed, detect, equal_weights
from grokscope.interop.skipping import Skipped, in_file
from grokscope.interop.sources import find as find_sources
from grokscope.model import families
from grokscope.opened_run import data_digest
from grokscope.series import Series
from grokscope.store.record import IMPORTED, packed_indices
from grokscope.store.run_names import new_run_folder
from grokscope.store.run_store import Record, create
from grokscope.training.checkpointer import SEGMENT_BYTES, SEGMENT_CHECKPOINTS, as_arrays
from grokscope.trajectory import Trajectory

_MOST_NOTES = 50
"""The most sentences that a record keeps."""


def import_checkpoints(
    paths: Sequence[Path | str],
    config: RunConfig,
    run: str | None = None,
    root: Path | str = "checkpoints",
    steps: Sequence[int] | None = None,
    answers_only: bool = False,
    *,
    train_indices: Path | str | Sequence[Any] | np.ndarray | Tensor | None = None,
    split: str | None = None,
    leave_out: Collection[str] = (),
    is_causal: bool = False,
    given: Collection[str] = (),
    is_described: bool = True,
    skip_damaged: bool = False,
) -> Trajectory:
    """Make a new run from the checkpoints in files of another program, and return its trajectory.

    The log has a row for each checkpoint, with the losses and accuracies that are evaluated here. An error leaves
    nothing on disk. The record has sentences on how the files were read; those that cast doubt are also warnings.

    Args:
        paths: Files, sharded files or folders (see `sources.find`), read as `formats.parse_content` describes. The
            layout of the parameters is detected (see `layouts`). A tensor that copies a parameter is left out.
        config: The config of the imported run. `n_steps` is replaced by the last step, and the settings that the
            files determine are replaced by theirs (see `architecture.read`).
        run: The run's name; by default the task's name, then NAME-2, NAME-3, …
        root: The folder that contains the runs.
        steps: The step of each state dict, in the order of the files. By default `step_readings.resolve` reads them.
        answers_only: Whether to drop the unembedding's columns of tokens that are never an answer, such as "=".
        train_indices: The training examples, or a file with them (see `train_sets.split_of_indices`). By default
            "train_indices" in the files. Without any, and without `split`, the training set is unknown, and
            nothing is called train or test.
        split: The draw of the training set: "random-shuffle:SEED" or "grokscope:SEED" (see `train_sets.draw`).
        leave_out: The names of tensors that the model does not use.
        is_causal: Whether attention is causal in a file with several layers that does not tell.
        given: The dotted names of the settings that the user gave. A file that contradicts one is refused.
        is_described: Whether `config` describes the training. If not, only its `given` settings do, the task is read
            from the shapes and the config in the file, and settings that nothing determines are asked for.
        skip_damaged: Whether to leave out files and checkpoints that cannot be read, instead of refusing all.

    Returns:
        The trajectory of the new run.

    Raises:
        GrokscopeError: A file cannot be read, or is not a checkpoint; a parameter is missing, unknown, misshapen or
            not finite; a step is unknown or repeated; the files contradict each other, their names or the caller; the
            model computes another function than grokscope's; the weights leave open which settings they need; or the
            run's name is taken.
    """
    if "model.family" not in given and any(name.startswith("model.mlp.") for name in given):
        config = with_settings(config, {"model.family": "mlp"})
    config = config.validate(given)
    sources = find_sources(paths)
    if not sources:
        raise GrokscopeError("There is no file to import; allowed: one or more .safetensors, .pt or .pth files.")
    if run or is_described:
        new_run_folder(Path(root), run, config.task.name)
    notes: list[str] = []
    skipped = Skipped(skip_damaged, notes)
    files = []
    for source in sources:
        with skipped.file(source.path):
            files.append(formats.parse_content(source.read(), source.path, steps is None))
    step_lists, sentences = _steps(files, steps, config.batch_size is not None)
    notes += sentences
    detected = {}
    for file, file_steps in zip(files, step_lists, strict=True):
        for step, state_dict in zip(file_steps, file.state_dicts, strict=True):
            with skipped.checkpoint(file.path, step):
                detected[step] = detect(state_dict)
    skipped.require(detected)
    conversion = Conversion(leave_out, answers_only, notes=notes)
    with in_file(files[0].path):
        imported = network.read(
            files[0],
            detected[max(detected)],
            config,
            conversion,
            given=given,
            is_causal=is_causal,
            is_described=is_described,
        )
    notes += imported.notes
    config, task = imported.config, imported.task
    known = _known_split(files, config, task, train_indices, split)
    if known and conversion.order is not None:
        known = known[0], train_sets.reordered(known[1], task, conversion.order)
    config, determined = findings.apply(config, files[0], imported.settings, max(detected), given, notes)
    state_dicts = {}
    for step, layout in sorted(detected.items()):
        with skipped.checkpoint(None, step):
            state_dicts[step] = conversion.convert(layout, task)
    trajectory = _trajectory(config, state_dicts, task, known[1] if known else "unknown", skipped)
    log = measures.evaluate("loss", trajectory)
    doubts = [
        f"Steps {first:,} and {second:,} have equal weights, so one of them is a duplicate under a wrong step."
        for first, second in equal_weights(state_dicts)
    ]
    doubts += assessment.assess(trajectory, log, list(zip(files, step_lists, strict=True)), imported.unnamed, notes)
    event: dict[str, Any] = {
        "event": IMPORTED,
        "files": [{"name": path.name, "sha256": _sha256(path)} for source in sources for path in source.parts],
        "answers_only": answers_only,
        "split": known[0] if known else "unknown",
        "found": determined,
        "notes": list(dict.fromkeys(notes))[:_MOST_NOTES],
        "doubts": doubts,
    }
    if known:
        event["train"] = packed_indices(known[1].train.numpy(), len(task.inputs))
    folder = new_run_folder(Path(root), run, config.task.name)
    _write(folder, trajectory, log, event)
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=2)
    return Trajectory.open(folder)


def _steps(
    files: list[formats.CheckpointFile], given: Sequence[int] | None, has_batches: bool
) -> tuple[list[list[int]], list[str]]:
    """Return the steps of each file's state dicts, and sentences on how they were read."""
    counts, notes = [len(file.state_dicts) for file in files], []
    if given is None:
        lists = []
        for file in files:
            file_steps, sentences = step_readings.resolve(file.readings, file.path, has_batches)
            lists.append(file_steps)
            notes += sentences
    else:
        is_valid = all(type(step) is int and 0 <= step <= step_readings.LARGEST_STEP for step in given)
        if len(given) != sum(counts) or not is_valid:
            raise GrokscopeError(
                f"steps: {quoted_value(list(given))} for {sum(counts)} state dicts; allowed: a number from 0 to "
                f"{step_readings.LARGEST_STEP:,} for each."
            )
        ends = np.cumsum(counts)
        lists = [list(given[end - count : end]) for end, count in zip(ends, counts, strict=True)]
    seen: set[int] = set()
    for file, file_steps in zip(files, lists, strict=True):
        for step in file_steps:
            if step in seen:
                path = quoted_value(str(file.path))
                raise GrokscopeError(
                    f"Step {step} occurs twice, the second time in {path}. Name the steps with --steps."
                )
            seen.add(step)
    return lists, notes


def _known_split(
    files: list[formats.CheckpointFile],
    config: RunConfig,
    task: tasks.Task,
    train_indices: Any,
    draw: str | None,
) -> tuple[str, tasks.Split] | None:
    """Return where the training set comes from and the split; None if the training set is unknown."""
    splits = []
    for file in files:
        if file.train_indices is not None:
            source = f"train_indices in {file.path.name}"
            splits.append((source, train_sets.split_of_indices(file.train_indices, task, source)))
    if train_indices is not None:
        is_file = isinstance(train_indices, Path | str)
        values = train_sets.read_indices(Path(train_indices)) if is_file else train_indices
        source = f"--train-indices {train_indices}" if is_file else "train_indices"
        splits.append((source, train_sets.split_of_indices(values, task, source)))
    if draw is not None:
        source = f"--split {draw} with train_fraction {config.task.train_fraction:g}"
        splits.append((source, train_sets.draw(draw, config.task, task)))
    return train_sets.common(splits)


def _trajectory(
    config: RunConfig,
    state_dicts: dict[int, dict[str, Any]],
    task: tasks.Task,
    split: tasks.Split | str,
    skipped: Skipped,
) -> Trajectory:
    """Return the state dicts as a trajectory in memory; missing biases are zero."""
    shapes = families.build(config.model, task).shapes
    whole = {step: completed(parameters, shapes) for step, parameters in state_dicts.items()}
    if skipped.is_allowed:
        for step, parameters in list(whole.items()):
            with skipped.checkpoint(None, step):
                _require_finite(Trajectory.from_state_dicts(config, {step: whole.pop(step)}, split))
                whole[step] = parameters
        skipped.require(whole)
    try:
        trajectory = Trajectory.from_state_dicts(config, dict(sorted(whole.items())), split)
    except GrokscopeError as error:
        unknown = sorted({name for parameters in state_dicts.values() for name in parameters if name not in shapes})
        unknown = [name for name in unknown if not name.endswith((".attn.mask", ".attn.IGNORE"))]
        if not unknown:
            raise
        names = " ".join(map(quoted_name, unknown[:4]))
        raise GrokscopeError(
            f"{error}\n  --leave-out {names} leaves out tensors that the model does not use."
        ) from error
    _require_finite(trajectory)
    return trajectory


def _require_finite(trajectory: Trajectory) -> None:
    for snapshot in trajectory:
        for name, tensor in snapshot.parameters.items():
            if not torch.isfinite(tensor).all():
                raise GrokscopeError(f"{name} is not finite at step {snapshot.step}; leave that checkpoint out.")


def _write(folder: Path, trajectory: Trajectory, log: Series, event: Mapping[str, Any]) -> None:
    """Write a trajectory in memory as a run, complete or not at all.

    The losses over all equations take the columns of the train set if the training set is unknown.
    """
    part = "train_" if trajectory.has_split else ""
    nowhere = np.full(len(log), np.nan)
    columns = [log[f"{part}loss"], log["test_loss"] if part else nowhere]
    columns += [log[f"{part}accuracy"], log["test_accuracy"] if part else nowhere]
    rows = [tuple(map(float, row)) for row in zip(log.steps, *columns, strict=True)]
    record = Record(trajectory.config, {}, data_digest(trajectory.task, trajectory.split_or_none), (event,))
    n_bytes = sum(tensor.nbytes for tensor in trajectory.first.parameters.values())
    n_at_once = max(1, min(SEGMENT_CHECKPOINTS, SEGMENT_BYTES // n_bytes))
    with atomic.build_folder(folder) as building, ExitStack() as locks:
        locks.enter_context(Lock(building))
        store = create(building, record)
        before = -1
        for first in range(0, len(trajectory), n_at_once):
            part_of_run = trajectory[first : first + n_at_once]
            segment_steps = part_of_run.steps.tolist()
            store.commit(
                segment_steps,
                [as_arrays(snapshot.parameters) for snapshot in part_of_run],
                coverage=(before, segment_steps[-1]),
                log=rows[first : first + n_at_once],
            )
            before = segment_steps[-1]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
