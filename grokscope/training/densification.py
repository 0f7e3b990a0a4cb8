"""`densify`: more checkpoints after the fact, by retraining a window of a run."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from grokscope.disk import atomic
from grokscope.errors import GrokscopeError
from grokscope.model import own
from grokscope.store.run_store import RunStore, segments_folder
from grokscope.training.background_writer import BackgroundWriter
from grokscope.training.checkpointer import SEGMENT_BYTES, SEGMENT_CHECKPOINTS, as_arrays
from grokscope.training.learner import latest_state
from grokscope.training.loop import Setup, optimize
from grokscope.training.replay import ReplayCheck
from grokscope.training.run import locked_run, require_trained
from grokscope.training.run_progress import Display, Observer, displayed
from grokscope.training.signals import InterruptedRunError, deferred_signals
from grokscope.training.state import State
from grokscope.trajectory import Trajectory


def densify(
    path: Path | str,
    start: int,
    stop: int,
    every: int = 1,
    observer: Observer | None = None,
    progress: Display | bool = True,
    model: torch.nn.Module | None = None,
) -> Trajectory:
    """Retrain steps `start` to `stop` of a run, and add the checkpoints start, start + every, … that it lacks.

    - Damaged checkpoints among these steps are replaced.
    - Retraining starts from the latest resume state at or before `start`, or from the initialization.
    - Every readable checkpoint and resume state on the way must be reproduced bit for bit. A new checkpoint is added
      only after the next saved state has confirmed it. Until then it waits, beyond about one segment, in a hidden
      file.

    Args:
        path: The run's folder.
        start: The first step, from the run's first step.
        stop: The last step, up to the run's last step.
        every: The number of steps from one checkpoint to the next.
        observer: A function that is called after every step, with the step and an empty row. Its last step is the
            saved state that confirms `stop`, which may come later than `stop`.
        progress: Whether to show a progress bar; as for `training.train`.
        model: The module of a run that trains a module of your own; its present parameters are not used.

    Returns:
        The trajectory of all checkpoints.

    Raises:
        GrokscopeError: The steps are not in the run; the run was imported; writing failed; or a saved state was not
            reproduced, and the error names the step, the tensor and how the environment differs.
        BusyError: Another process writes the run.
        InterruptedRunError: A signal stopped the training; confirmed checkpoints are saved.
    """
    own.remember(model)
    folder = Path(path)
    require_trained(RunStore(folder))
    with deferred_signals() as interrupted, locked_run(folder) as run, BackgroundWriter() as writer:
        first = run.record.first_step
        if not (first <= start <= stop <= run.last_step and every >= 1):
            raise GrokscopeError(
                f"densify: start {start}, stop {stop}, every {every}. Allowed: {first} <= start <= stop <= "
                f"{run.last_step}, the last step of {folder}, and every from 1."
            )
        requested = set(range(start, stop + 1, every))
        stored = requested & set(run.steps.tolist())
        missing = requested - stored | run.damage(stored).keys()
        setup = Setup.of_run(run)
        check = ReplayCheck(run, setup.threads.n)
        state = _start_state(setup, run, start)
        pending = _PendingCheckpoints(run, writer, _segment_length(setup))
        try:
            if missing:
                last, loss = check.next_saved(max(missing)), setup.config.loss
                with displayed(progress, last, state.step, observer, loss) as observer:
                    _retrain(setup, state, missing, pending, check, interrupted, observer)
        finally:
            with suppress(GrokscopeError):  # The end of the writer's block raises it.
                writer.wait()
            atomic.remove_temporary_files(segments_folder(folder))
    return Trajectory.open(folder)


def _retrain(
    setup: Setup,
    state: State,
    missing: set[int],
    pending: "_PendingCheckpoints",
    check: ReplayCheck,
    interrupted: Callable[[], int],
    observer: Observer | None,
) -> None:
    """Retrain from a state until every missing checkpoint is taken and confirmed; raise as `densify` does."""
    for _ in chain([state], optimize(setup, state)):
        if state.step in missing:
            pending.add(state)
        if check.confirm(state):
            pending.confirm(state.step)
        signal_number, is_done = interrupted(), pending.confirmed_step >= max(missing)
        pending.write(is_last=bool(signal_number) or is_done)
        if observer:
            observer(state.step, {})
        if signal_number:
            raise InterruptedRunError(pending.folder, signal_number)
        if is_done:
            break
        check.require_later(state.step)


class _PendingCheckpoints:
    """New checkpoints that wait, in memory and in hidden segments, until a saved state confirms them.

    Attributes:
        folder: The run's folder.
        confirmed_step: The last step that was confirmed; −1 before the first.
    """

    def __init__(self, run: RunStore, writer: BackgroundWriter, segment_length: int):
        self._run, self._writer, self._segment_length = run, writer, segment_length
        self.folder = run.folder
        self._checkpoints: dict[int, Mapping[str, np.ndarray]] = {}
        self._hidden: list[list[int]] = []
        self.confirmed_step = -1

    def add(self, state: State) -> None:
        """Take the checkpoint of a state."""
        self._checkpoints[state.step] = as_arrays(state.parameters)

    def confirm(self, step: int) -> None:
        """Confirm everything up to a step, and reveal the hidden segments."""
        self.confirmed_step = step
        while self._hidden:
            self._writer.submit(partial(self._run.reveal, self._hidden.pop(0)))

    def write(self, is_last: bool) -> None:
        """Write the checkpoints in memory if they fill a segment, unconfirmed ones into a hidden segment.

        The last call writes the rest, and drops the unconfirmed ones.
        """
        if is_last:
            self._checkpoints = {
                step: checkpoint for step, checkpoint in self._checkpoints.items() if step <= self.confirmed_step
            }
        if is_last or len(self._checkpoints) >= self._segment_length:
            self._commit([step for step in self._checkpoints if step <= self.confirmed_step], hidden=False)
            self._commit([step for step in self._checkpoints if step > self.confirmed_step], hidden=True)
        self._writer.raise_failure()

    def _commit(self, steps: list[int], hidden: bool) -> None:
        if steps:
            checkpoints = [self._checkpoints.pop(step) for step in steps]
            self._writer.submit(partial(self._run.commit, steps, checkpoints, coverage=None, hidden=hidden))
            if hidden:
                self._hidden.append(steps)


def _segment_length(setup: Setup) -> int:
    """Return how many checkpoints a segment contains."""
    n_bytes = 4 * sum(math.prod(shape) for shape in setup.model.shapes.values())
    return min(SEGMENT_CHECKPOINTS, max(SEGMENT_BYTES // n_bytes, 1))


def _start_state(setup: Setup, run: RunStore, step: int) -> State:
    """Return the latest readable state at or before a step, or the initialization; a fork cannot use the latter."""
    try:
        return latest_state(setup.learner, run, step)[0]
    except GrokscopeError:
        if run.record.origin:
            raise
        return setup.learner.initial_state()
