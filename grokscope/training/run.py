"""Training into a run's folder: `train` starts a run, and `resume` continues one.

Saved data are a function of the config and the environment, never of the clock. Where a segment ends depends on time,
but the checkpoints, the log and the final resume state do not.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from grokscope import environment
from grokscope.config import RunConfig, unused
from grokscope.disk import atomic
from grokscope.disk.lock import Lock
from grokscope.errors import GrokscopeError
from grokscope.model import own
from grokscope.model.state_dicts import initial_parameters, parameters_digest
from grokscope.opened_run import open_store
from grokscope.store.run_names import new_run_folder
from grokscope.store.run_store import Record, RunStore, create, segments_folder
from grokscope.training.checkpointer import Checkpointer
from grokscope.training.evaluation import Row
from grokscope.training.learner import latest_state
from grokscope.training.loop import Setup, optimize
from grokscope.training.memory import require_memory
from grokscope.training.run_progress import Display, Observer, displayed
from grokscope.training.signals import InterruptedRunError, deferred_signals
from grokscope.training.state import NotFiniteError, State
from grokscope.trajectory import Trajectory

_SILENTLY_UNUSED = {
    # `resume` may add steps, so what happens after this run's last step can have an effect later.
    *("optimizer.warmup_steps", "optimizer.schedule"),
    # The preset has set what given data replace.
    *("task.train_fraction", "task.split", "split_seed", "model.init", "model.init_scale", "init_seed"),
}
"""The settings without effect that `train` does not warn about."""
MOST_UNCHECKED = 50
"""The most updates between two looks for values that are not finite; evaluations and checkpoints look as well."""


def train(
    config: RunConfig,
    run: str | None = None,
    root: Path | str = "checkpoints",
    observer: Observer | None = None,
    progress: Display | bool = True,
    *,
    initialization: Mapping[str, Tensor] | None = None,
    model: torch.nn.Module | None = None,
) -> Trajectory:
    """Train a model into a new folder root/run, and return its trajectory.

    The folder appears once step 0 is committed in it. SIGINT and SIGTERM stop the training after a commit. A setting
    that differs from its default and has no effect gives a warning.

    Args:
        config: The config of the run.
        run: The run's name: up to 100 letters, digits and _ . + = -. By default the task's name, then TASK-2, …
        root: The folder that contains the runs.
        observer: A function that is called after every step, with the step and the latest log row. If it raises, the
            step is committed, and the exception ends the training.
        progress: Whether to show a progress bar. It appears only in a terminal or a notebook, and changes no bit. A
            function replaces the bar (`Display`).
        initialization: The initial parameters under TransformerLens names, instead of drawn ones. Step 0 stores them,
            and `config.initialization` gets their digest.
        model: A module of your own that maps tokens (n, n_ctx) to logits, with its initial parameters
            (`grokscope.model.own`). By default the network that `config.model` describes.

    Returns:
        The trajectory of all checkpoints.

    Raises:
        GrokscopeError: The config or the name is invalid, the initial parameters do not fit the model, or writing
            failed. An invalid config raises before any file is written.
        BusyError: The name is taken.
        NotFiniteError: A number is not finite; everything before it is saved.
        InterruptedRunError: A signal stopped the training; the run is saved.
    """
    config = own.with_module(config, model)
    setup = Setup(config)
    if initialization is not None:
        parameters = initial_parameters(setup.model, initialization)
        if not config.initialization:
            config = dataclasses.replace(config, initialization=parameters_digest(parameters))
        setup = Setup(config, lambda: parameters)
    require_memory(setup)
    changed = unused.changed_settings(config) - _SILENTLY_UNUSED
    for fault in unused.unused_settings(config, changed).values():
        warnings.warn(f"{fault}.", unused.UnusedSettingWarning, stacklevel=2)
    folder = new_run_folder(Path(root), run, config.task.name)
    with deferred_signals() as interrupted, ExitStack() as locks:
        state = setup.learner.initial_state()
        record = Record(config, environment.describe(config.device, setup.threads.n), setup.dataset.digest)
        checkpointer = create_run(folder, record, setup.evaluator.evaluate, state, locks)
        with displayed(progress, config.n_steps, state.step, observer, config.loss) as observer:
            train_to_end(setup, state, checkpointer, observer, interrupted)
    return Trajectory.open(folder)


def resume(
    path: Path | str,
    n_steps: int | None = None,
    allow_drift: bool = False,
    observer: Observer | None = None,
    progress: Display | bool = True,
    model: torch.nn.Module | None = None,
) -> Trajectory:
    """Continue a run from its last resume state, exact to the bit, and return its trajectory.

    A finished run is returned unchanged, also one that its rule `stop` has ended. With `n_steps`, such a run
    continues to that step, and the rule no longer applies.

    Args:
        path: The run's folder.
        n_steps: A number of steps, at least the present one. By default the number does not change.
        allow_drift: Whether to continue although the environment differs in something that decides bits. The run's
            record then contains the differences.
        observer: A function that is called after every step, with the step and the latest log row.
        progress: Whether to show a progress bar; as for `train`.
        model: The module of a run that trains a module of your own; its present parameters are not used.

    Returns:
        The trajectory of all checkpoints.

    Raises:
        GrokscopeError: The folder is not a run, has no readable resume state, or was imported; `n_steps` is too
            small; the environment differs, and the error names each difference; or writing failed.
        BusyError: Another process writes the run.
        NotFiniteError: A number is not finite; everything before it is saved.
        InterruptedRunError: A signal stopped the training; the run is saved.
    """
    own.remember(model)
    folder = Path(path)
    with deferred_signals() as interrupted:
        run = RunStore(folder)
        require_trained(run)
        if n_steps is not None and n_steps < max(run.record.config.n_steps, run.last_step):
            raise GrokscopeError(
                f"n_steps: {n_steps} would shorten {folder}. Allowed: from {run.record.config.n_steps}."
            )
        if run.last_step >= (n_steps or run.end_step):
            return Trajectory.open(folder)
        with locked_run(folder) as run:
            setup = Setup.of_run(run)
            present = environment.describe(setup.config.device, setup.threads.n)
            update_record(run, present, n_steps, allow_drift)
            if run.record.config != setup.config:  # The run has become longer.
                setup = Setup.of_run(run)
            state, resume_state = latest_state(setup.learner, run, run.last_step)
            checkpointer = Checkpointer(run, setup.evaluator.evaluate, state, resume_state)
            with displayed(progress, setup.config.n_steps, state.step, observer, setup.config.loss) as observer:
                train_to_end(setup, state, checkpointer, observer, interrupted)
    return Trajectory.open(folder)


def require_trained(run: RunStore) -> None:
    """Raise GrokscopeError for an imported run, which has no optimizer state to continue from."""
    if run.record.imported:
        raise GrokscopeError(
            f"{run.folder} was imported: it has checkpoints and no optimizer state, so it cannot be trained further. "
            f"`grokscope fork RUN --step N --fresh-optimizer` trains a checkpoint in a new run."
        )


def create_run(
    folder: Path,
    record: Record,
    evaluate: Callable[[State], Row],
    state: State,
    locks: ExitStack,
    *,
    resume_state: Mapping[str, Tensor] | None = None,
    initialization: Mapping[str, np.ndarray] | None = None,
) -> Checkpointer:
    """Create a run's folder with its first step committed in it, and return the run's checkpointer.

    Args:
        folder: The new folder.
        record: The run's record.
        evaluate: Returns the log row of a state.
        state: The state at the first step: step 0, or the step at which a fork starts.
        locks: Holds the run's lock until it is closed.
        resume_state: The resume state that a fork starts from.
        initialization: The parameters of step 0, which a fork copies from its origin.

    Returns:
        The checkpointer, which has committed the first step.

    Raises:
        BusyError: The folder exists by now.
        GrokscopeError: Writing failed.
        NotFiniteError: The first evaluation is not finite.
    """
    with atomic.build_folder(folder) as building:
        # The lock is on the file, so it outlives the renaming of the folder.
        locks.enter_context(Lock(building))
        store = create(building, record)
        checkpointer = Checkpointer(store, evaluate, state, resume_state)
        with checkpointer:
            checkpointer.take(state)
            checkpointer.commit(state, initialization=initialization)
    store.folder = folder
    return checkpointer


@contextmanager
def locked_run(folder: Path) -> Iterator[RunStore]:
    """Lock a run for writing inside the block.

    Yields:
        The run's store, opened under the lock.

    Raises:
        GrokscopeError: The folder is not a run, or its task gives other data than the run was trained on.
        BusyError: Another process writes the run.
    """
    Record.read(folder)
    with Lock(folder):
        atomic.remove_temporary_files(segments_folder(folder))
        # Opened under the lock, so that no other process commits after the store was read.
        run = open_store(folder)
        Trajectory.of_store(run)
        yield run


def train_to_end(
    setup: Setup,
    state: State,
    checkpointer: Checkpointer,
    observer: Observer | None,
    interrupted: Callable[[], int],
) -> None:
    """Train to the last step, or to the step at which the run's rule ends it, and commit everything.

    An exception of the observer passes through after a commit.

    Args:
        setup: The run's parts.
        state: The state to start from.
        checkpointer: The run's checkpointer.
        observer: A function that is called after every step, with the step and the latest log row.
        interrupted: Returns the number of a caught signal, or 0.

    Raises:
        InterruptedRunError: A signal was caught; the run is committed.
        NotFiniteError: A number is not finite; everything before it is committed.
        GrokscopeError: Writing failed.
    """
    # The rule may hold at the very first evaluation.
    remaining = 0 if checkpointer.has_stopped(state.step) else setup.config.n_steps - state.step
    # With an optimizer of another package, a gradient that is not finite may leave the weights finite.
    look_every = MOST_UNCHECKED if setup.config.optimizer.name in ("adam", "adamw", "sgd") else 1
    with checkpointer:
        try:
            for _ in islice(optimize(setup, state, look_every=look_every), remaining):
                checkpointer.take_and_commit(state)
                if observer:
                    try:
                        observer(state.step, checkpointer.latest_row)
                    except BaseException:
                        checkpointer.commit(state)
                        raise
                if interrupted():
                    checkpointer.commit(state)
                    raise InterruptedRunError(checkpointer.folder, interrupted())
                if checkpointer.has_stopped(state.step):
                    break
            checkpointer.commit(state)
        except NotFiniteError as error:
            if error.resumable or checkpointer.has_uncommitted:
                checkpointer.commit(state, resumable=error.resumable)
            raise


def update_record(run: RunStore, present: Mapping[str, str], n_steps: int | None, allow_drift: bool) -> None:
    """Add a new length or an allowed drift to a run's record, and write the record if it changed.

    Args:
        run: The run, locked by the caller.
        present: The present environment, as `environment.describe` returns it.
        n_steps: A new number of steps; None for no change.
        allow_drift: Whether the environment may differ from the recorded one.

    Raises:
        GrokscopeError: The environment differs without `allow_drift`; the error names each difference.
    """
    record, step = run.record, run.last_step
    drift = environment.drift(record.environment, present)
    if drift and not allow_drift:
        raise GrokscopeError(
            f"{run.folder}: the environment differs from the recorded one, so continuing may change bits: "
            f"{'; '.join(drift)}. Restore it, or accept the difference with --allow-drift, which the run records."
        )
    history, config = list(record.history), record.config
    if drift:
        history.append({"event": "drift allowed", "step": step, "drift": drift})
    if n_steps is not None and n_steps != config.n_steps:
        history.append({"event": "lengthened", "step": step, "from": config.n_steps, "to": n_steps})
        config = dataclasses.replace(config, n_steps=n_steps).validate()
    if len(history) > len(record.history):
        run.record = Record(config, present, record.data_digest, tuple(history))
        run.record.write(run.folder)
