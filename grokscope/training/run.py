"""Runs: `train`, `resume` and `densify` drain the training loop into a folder.

What a run saves is a function of its config and its environment, never of the clock: where a segment ends
depends on time, but the checkpoints, the log and the final resume state are the same wherever it does.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokscope import environment
from grokscope.config import RunConfig
from grokscope.disk import atomic
from grokscope.disk.lock import Lock
from grokscope.errors import BusyError, GrokscopeError
from grokscope.store.run_store import Record, RunStore, Segment, checked_name, create, free_name, segments_folder
from grokscope.training.checkpointer import Recorder
from grokscope.training.loop import NotFiniteError, Row, Setup, State, optimize
from grokscope.training.signals import InterruptedRunError, deferred_signals
from grokscope.trajectory import Trajectory, data_digest, open_store

Observer = Callable[[int, Row], None]
"""Called after every step with the step and the latest row of the log; what it does cannot touch the training, and
what it raises ends that, with the step committed."""


def train(
    config: RunConfig,
    run: str | None = None,
    root: Path | str = "checkpoints",
    observer: Observer | None = None,
) -> Trajectory:
    """Train a model as `config` says into the new folder root/run, and return its trajectory.

    Without `run` the name is the task's, then TASK-2, … The folder appears with step 0 committed in it. A
    signal (SIGINT, SIGTERM) commits and raises InterruptedRunError. Raise GrokscopeError for a config that cannot be
    used, before any file exists; for a name in use; for an I/O error; and for a number that is not finite.
    """
    setup = Setup(config)
    name = free_name(config.task.name, Path(root)) if run is None else checked_name(run)
    folder = Path(root) / name
    if atomic.is_there(folder):
        raise BusyError(
            f"{folder} exists already. Go on with it by `grokscope resume {name}`, or choose another --run name."
        )
    with deferred_signals() as interrupted, ExitStack() as held:
        state = setup.state()
        recorder = begun(folder, setup, state, environment.present(config.device), held)
        drain(setup, state, recorder, observer, interrupted)
    return Trajectory.open(folder)


def resume(
    path: Path | str,
    n_steps: int | None = None,
    allow_drift: bool = False,
    observer: Observer | None = None,
) -> Trajectory:
    """Go on with a run from its last resume state, exact to the bit, and return its trajectory.

    `n_steps` may make it longer. Where the environment differs from the run's in anything that decides bits,
    raise GrokscopeError that names each difference, unless `allow_drift`, which is recorded in the run. A
    finished run is returned as it is.
    """
    folder = Path(path)
    with deferred_signals() as interrupted:
        run = RunStore(folder)
        require_trained(run)
        if n_steps is not None and n_steps < max(run.record.config.n_steps, run.last_step):
            raise GrokscopeError(
                f"n_steps: {n_steps} would shorten {folder}; allowed: from {run.record.config.n_steps}."
            )
        if run.last_step >= (n_steps or run.record.config.n_steps):
            return Trajectory.open(folder)
        with writing(folder) as run:
            here = environment.present(run.record.config.device)
            run.record = renewed(run, here, n_steps, allow_drift)
            setup = Setup(run.record.config)
            state, resumed = latest(setup, run, run.last_step)
            recorder = Recorder(setup, run, state, resumed)
            drain(setup, state, recorder, observer, interrupted)
    return Trajectory.open(folder)


def require_trained(run: RunStore) -> None:
    """Raise GrokscopeError for a run that was imported: nothing says how its optimizer stood, so none can go on."""
    if run.record.imported:
        raise GrokscopeError(
            f"{run.folder} was imported: it has checkpoints and no optimizer state, so training cannot go on from "
            f"them."
        )


def begun(
    folder: Path,
    setup: Setup,
    state: State,
    here: Mapping[str, str],
    held: ExitStack,
    *,
    history: tuple[Mapping[str, Any], ...] = (),
    resumed: Mapping[str, Tensor] | None = None,
    initialization: Mapping[str, np.ndarray] | None = None,
) -> Recorder:
    """Make a new run's folder with its first step committed in it, locked for as long as `held`; return its recorder.

    That is step 0, or for a fork the step that its `history` says, with the resume state it goes on from and its
    origin's `initialization`.
    """
    record = Record(setup.config, here, data_digest(setup.task, setup.split), history)
    with atomic.building(folder) as building:
        # The lock outlives the renaming: it is on the file, whatever the folder above is called.
        held.enter_context(Lock(building))
        started = create(building, record)
        recorder = Recorder(setup, started, state, resumed)
        with recorder:
            recorder.take(state)
            recorder.commit(state, initialization=initialization)
    started.folder = folder
    return recorder


@contextmanager
def writing(folder: Path) -> Iterator[RunStore]:
    """Yield a run's store under its lock; raise GrokscopeError for no run, a lock that is taken, or other data."""
    Record.read(folder)
    with Lock(folder):
        atomic.remove_temporary(segments_folder(folder))
        # Opened under the lock: nobody commits behind its back.
        run = open_store(folder)
        Trajectory.of_store(run)
        yield run


def drain(
    setup: Setup,
    state: State,
    recorder: Recorder,
    observer: Observer | None,
    interrupted: Callable[[], int],
) -> None:
    """Train to the last step and commit what is left; raise InterruptedRunError for a signal, having committed.

    What the observer raises passes through, after a commit too.
    """
    remaining = setup.config.n_steps - state.step
    with recorder:
        try:
            for _ in islice(optimize(setup, state), remaining):
                recorder.observe(state)
                if observer:
                    try:
                        observer(state.step, recorder.row)
                    except BaseException:
                        recorder.commit(state)
                        raise
                if interrupted():
                    recorder.commit(state)
                    raise InterruptedRunError(recorder.folder, interrupted())
            recorder.commit(state)
        except NotFiniteError as error:
            if error.resumable or recorder.has_taken:
                recorder.commit(state, resumable=error.resumable)
            raise


def renewed(run: RunStore, here: Mapping[str, str], n_steps: int | None, allow_drift: bool) -> Record:
    """Return the record with a new length or an allowed drift, and save it; raise GrokscopeError for other drift.

    `here` is what decides bits now.
    """
    record, step = run.record, run.last_step
    drift = environment.drift(record.environment, here)
    if drift and not allow_drift:
        raise GrokscopeError(
            f"{run.folder} was trained elsewhere, and going on here may change bits: {'; '.join(drift)}. "
            f"Restore what differs, or accept it with --allow-drift, which is recorded in the run."
        )
    history, config = list(record.history), record.config
    if drift:
        history.append({"event": "drift allowed", "step": step, "drift": drift})
    if n_steps is not None and n_steps != config.n_steps:
        history.append({"event": "lengthened", "step": step, "from": config.n_steps, "to": n_steps})
        config = dataclasses.replace(config, n_steps=n_steps).validate()
    if len(history) > len(record.history):
        record = Record(config, here, record.data_digest, tuple(history))
        record.write(run.folder)
    return record


def latest(setup: Setup, run: RunStore, step: int) -> tuple[State, Mapping[str, Tensor]]:
    """Return the latest state at or before `step` that can be read, and the resume state that it comes from."""
    reasons = list(run.damaged)
    for segment in reversed(run.resume_points()):
        if (segment.resume_step or 0) <= step:
            try:
                return resumed_at(setup, segment)
            except GrokscopeError as error:
                reasons.append(str(error))
    raise GrokscopeError(f"{run.folder} has no readable resume state. {' '.join(reasons)}".strip())


def resumed_at(setup: Setup, segment: Segment) -> tuple[State, Mapping[str, Tensor]]:
    """Return the state at a segment's end, and the resume state it comes from; raise GrokscopeError naming it."""
    resumed = {name: torch.from_numpy(array) for name, array in segment.resume_state().items()}
    try:
        setup.require_resumable(resumed)
    except GrokscopeError as error:
        raise GrokscopeError(f"{segment.path} is damaged. {error}") from error
    return setup.state(resumed), resumed
