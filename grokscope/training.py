"""Runs: `train`, `resume` and `densify` drain the training loop into a folder.

What a run saves is a function of its config and its environment, never of the clock: where a segment ends
depends on time, but the checkpoints, the log and the final resume state are the same wherever it does.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokscope import environment, files, store
from grokscope.config import RunConfig
from grokscope.errors import Busy, GrokscopeError
from grokscope.interrupts import Interrupted, deferred_signals
from grokscope.optimize import NotFinite, Row, Setup, State, optimize
from grokscope.recorder import SEGMENT_BYTES, SEGMENT_CHECKPOINTS, Recorder, as_arrays
from grokscope.trajectory import Trajectory, data_digest
from grokscope.witnesses import Witnesses
from grokscope.writer import Writer

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
    signal (SIGINT, SIGTERM) commits and raises Interrupted. Raise GrokscopeError for a config that cannot be
    used, before any file exists; for a name in use; for an I/O error; and for a number that is not finite.
    """
    setup = Setup(config)
    name = store.free_name(config.task.name, Path(root)) if run is None else store.checked_name(run)
    folder = Path(root) / name
    if files.is_there(folder):
        raise Busy(
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
        run = store.Store(folder)
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


def densify(path: Path | str, start: int, stop: int, every: int = 1, observer: Observer | None = None) -> Trajectory:
    """Train steps `start` … `stop` of a run once more and add the checkpoints start, start + every, … to it.

    It begins at the latest resume state at or before `start`, or at initialization where none is left, and adds only
    steps that the run lacks, or whose checkpoints are damaged. Whatever it
    passes that was saved before and can be read, a checkpoint or a resume state, must agree to the bit, and a new
    checkpoint is added only once training has reached the next of these: at the first difference it raises
    GrokscopeError that names step, tensor and what drifted, and adds nothing more. What waits to be confirmed waits
    on the disk, under a hidden name, but for about a segment.
    """
    folder = Path(path)
    require_trained(store.Store(folder))
    with deferred_signals() as interrupted, writing(folder) as run, Writer() as writer:
        first = run.record.first_step
        if not (first <= start <= stop <= run.last_step and every >= 1):
            raise GrokscopeError(
                f"densify: start {start}, stop {stop}, every {every}; allowed: {first} <= start <= stop <= "
                f"{run.last_step}, the last step of {folder}, and every from 1."
            )
        setup = Setup(run.record.config)
        state = _before(setup, run, start)
        run.check(step for step in range(start, stop + 1, every) if step in run.steps)
        wanted = set(range(start, stop + 1, every)) - set(run.steps.tolist())
        witnesses, n_bytes = Witnesses(run), 4 * sum(math.prod(shape) for shape in setup.model.shapes.values())
        limit, confirmed = min(SEGMENT_CHECKPOINTS, max(SEGMENT_BYTES // n_bytes, 1)), -1
        taken: dict[int, Mapping[str, np.ndarray]] = {}
        hidden: list[list[int]] = []
        try:
            for _ in chain([state], optimize(setup, state)) if wanted else ():
                if state.step in wanted:
                    taken[state.step] = as_arrays(state.parameters)
                if witnesses.confirm(state):
                    confirmed = state.step
                    while hidden:
                        writer.begin(partial(run.reveal, hidden.pop(0)))
                stopped, is_done = interrupted(), confirmed >= max(wanted)
                if stopped or is_done:
                    taken = {step: one for step, one in taken.items() if step <= confirmed}
                if len(taken) >= limit or (taken and (stopped or is_done)):
                    for is_hidden in (False, True):
                        steps = [step for step in taken if (step > confirmed) == is_hidden]
                        if steps:
                            some = [taken.pop(step) for step in steps]
                            writer.begin(partial(run.commit, steps, some, coverage=None, hidden=is_hidden))
                            hidden += [steps] * is_hidden
                writer.check()
                if observer:
                    observer(state.step, {})
                if stopped:
                    raise Interrupted(folder, stopped)
                if is_done:
                    break
                witnesses.require_later(state.step)
        finally:
            with suppress(GrokscopeError):  # It is raised at the end of the writer's block.
                writer.wait()
            files.remove_temporary(store.segments_folder(folder))
    return Trajectory.open(folder)


def require_trained(run: store.Store) -> None:
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
    record = store.Record(setup.config, here, data_digest(setup.task, setup.split), history)
    with files.building(folder) as building:
        # The lock outlives the renaming: it is on the file, whatever the folder above is called.
        held.enter_context(files.Lock(building))
        started = store.create(building, record)
        recorder = Recorder(setup, started, state, resumed)
        with recorder:
            recorder.take(state)
            recorder.commit(state, initialization=initialization)
    started.folder = folder
    return recorder


@contextmanager
def writing(folder: Path) -> Iterator[store.Store]:
    """Yield a run's store under its lock; raise GrokscopeError for no run, a lock that is taken, or other data."""
    store.Record.read(folder)
    with files.Lock(folder):
        files.remove_temporary(store.segments_folder(folder))
        # Opened under the lock: nobody commits behind its back.
        run = store.Store(folder)
        Trajectory.of_store(run)
        yield run


def drain(
    setup: Setup,
    state: State,
    recorder: Recorder,
    observer: Observer | None,
    interrupted: Callable[[], int],
) -> None:
    """Train to the last step and commit what is left; raise Interrupted for a signal, having committed.

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
                    raise Interrupted(recorder.folder, interrupted())
            recorder.commit(state)
        except NotFinite as error:
            if error.resumable or recorder.has_taken:
                recorder.commit(state, resumable=error.resumable)
            raise


def renewed(run: store.Store, here: Mapping[str, str], n_steps: int | None, allow_drift: bool) -> store.Record:
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
        record = store.Record(config, here, record.data_digest, tuple(history))
        record.write(run.folder)
    return record


def latest(setup: Setup, run: store.Store, step: int) -> tuple[State, Mapping[str, Tensor]]:
    """Return the latest state at or before `step` that can be read, and the resume state that it comes from."""
    reasons = list(run.damaged)
    for segment in reversed(run.resume_points()):
        if (segment.resume_step or 0) <= step:
            try:
                return resumed_at(setup, segment)
            except GrokscopeError as error:
                reasons.append(str(error))
    raise GrokscopeError(f"{run.folder} has no readable resume state. {' '.join(reasons)}".strip())


def _before(setup: Setup, run: store.Store, step: int) -> State:
    """Return the latest state at or before `step`, where none can be read the initialization; a fork has no other."""
    try:
        return latest(setup, run, step)[0]
    except GrokscopeError:
        if run.record.origin:
            raise
        return setup.state()


def resumed_at(setup: Setup, segment: store.Segment) -> tuple[State, Mapping[str, Tensor]]:
    """Return the state at a segment's end, and the resume state it comes from; raise GrokscopeError naming it."""
    resumed = {name: torch.from_numpy(array) for name, array in segment.resume_state().items()}
    try:
        setup.require_resumable(resumed)
    except GrokscopeError as error:
        raise GrokscopeError(f"{segment.path} is damaged. {error}") from error
    return setup.state(resumed), resumed
