"""Runs that train together in one ensemble, each in its own folder, stored like a run that trains alone.

All runs commit at the same steps, so there is always a step from which all of them can resume.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from grokscope import environment
from grokscope.config import RunConfig, checkpoint_schedule
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import Record, RunStore
from grokscope.training.checkpointer import Checkpointer
from grokscope.training.ensemble import Ensemble
from grokscope.training.run import create_run, locked_run, update_record
from grokscope.training.signals import InterruptedRunError, deferred_signals
from grokscope.training.state import NotFiniteError

POSITION = re.compile(r"run (?P<i>\d{1,9}) of (?P<ensemble>\d{1,9}, \w+)")
"""The entry "ensemble" of a run's environment: the run's number from 1, the number of runs, and a digest of them."""
COMMIT_BYTES = 2**30
"""All runs commit when their checkpoints in memory reach this size together."""


def train_ensemble(
    configs: list[RunConfig],
    folders: list[Path],
    allow_drift: bool = False,
    observer: Callable[[int], None] | None = None,
) -> dict[Path, NotFiniteError]:
    """Start or resume runs in one ensemble, and train all of them to the end.

    - A run with a value that is not finite keeps what it has saved, and the others continue. A later call does not
      train that run again, because it would fail again.
    - A run that its rule `stop` ends is saved and never continues, and the others are trained further.
    - The set of runs and their order decide bits, and each run's environment records them. The same runs resume
      exactly together. A run that continues alone, or with other runs, needs `allow_drift`.

    Args:
        configs: A config per run, as `Ensemble` allows them.
        folders: The folder of each run. Missing folders are created.
        allow_drift: Whether to resume although the environment differs in something that decides bits.
        observer: A function that is called with the step after every step.

    Returns:
        The error of each run that failed, now or in an earlier call, by folder.

    Raises:
        GrokscopeError: The runs cannot be in one ensemble, or for the same reasons as in `train` and `resume`.
        BusyError: Another process writes one of the runs.
        InterruptedRunError: A signal stopped the training; all runs are saved.
    """
    with deferred_signals() as interrupted, ExitStack() as locks:
        ensemble = Ensemble(configs)
        training = _Training(ensemble, folders)
        training.open_runs(allow_drift, locks)
        while training.checkpointers and ensemble.step < configs[0].n_steps:
            ensemble.advance()
            if observer:
                observer(ensemble.step)
            signal_number = interrupted()
            training.take_and_commit(is_last=bool(signal_number))
            if signal_number:
                raise InterruptedRunError(folders[0].parent, signal_number)
    return {folders[i]: error for i, error in training.failures.items()}


def ensemble_positions(configs: list[RunConfig]) -> list[str]:
    """Return the entry "ensemble" of each run's environment, in the form of `POSITION`."""
    digest = hashlib.sha256("".join(config.digest for config in configs).encode()).hexdigest()[:16]
    return [f"run {i} of {len(configs)}, {digest}" for i in range(1, len(configs) + 1)]


class _Training:
    """The runs of an ensemble on disk.

    Attributes:
        checkpointers: The checkpointer of each run that still trains, by the number of its model.
        failures: The error of each run that has failed, by the number of its model.
    """

    def __init__(self, ensemble: Ensemble, folders: list[Path]):
        self._ensemble, self._folders, self._configs = ensemble, folders, ensemble.configs
        self.checkpointers: dict[int, Checkpointer] = {}
        self.failures: dict[int, NotFiniteError] = {}
        config = self._configs[0]
        self._n_steps, self._evaluate_every = config.n_steps, config.evaluate_every
        self._fixed = set(checkpoint_schedule.parse(config.checkpoints).fixed_steps(config.n_steps).tolist())

    def open_runs(self, allow_drift: bool, locks: ExitStack) -> None:
        """Create or open each run under its lock, and load the latest step that all runs have."""
        ensemble, configs = self._ensemble, self._configs
        opened = {i: locks.enter_context(locked_run(path)) for i, path in enumerate(self._folders) if path.is_dir()}
        for i, run in opened.items():
            _require_same_settings(run, configs[i])
        environments = [
            {**environment.describe(config.device, ensemble.threads.n), "ensemble": position}
            for config, position in zip(configs, ensemble_positions(configs), strict=True)
        ]
        self.failures = {i: error for i, run in opened.items() if (error := _recorded_failure(run))}
        finished = {i for i, run in opened.items() if run.stopped}
        resumed = {i: run for i, run in opened.items() if i not in finished | self.failures.keys()}
        resume_states = _common_resume_states(resumed, are_all=len(opened) == len(self._folders))
        for i, run in resumed.items():
            ensemble.load(i, resume_states[i])
            if ensemble.step < self._n_steps:
                _require_no_rewrite(run, ensemble.step, environments[i])
                update_record(run, environments[i], self._n_steps, allow_drift)
        for i, folder in enumerate(self._folders):
            if i in finished or i in self.failures:
                continue
            state, evaluate = ensemble.state(i), partial(ensemble.evaluate, i)
            if i in resumed:
                checkpointer = Checkpointer(resumed[i], evaluate, state, resume_states[i])
            else:
                record = Record(configs[i], environments[i], ensemble.datasets[i].digest)
                checkpointer = create_run(folder, record, evaluate, state, locks)
            self.checkpointers[i] = locks.enter_context(checkpointer)

    def take_and_commit(self, is_last: bool) -> None:
        """Record the present step in each run, and commit all runs if a segment is full or the step is the last."""
        step = self._ensemble.step
        is_last = is_last or step == self._n_steps
        if not (is_last or step % self._evaluate_every == 0 or step in self._fixed):
            return
        for i, update in enumerate(self._ensemble.failed_updates()):
            if i in self.checkpointers and update >= 0:
                self._fail(i, _not_finite(update))
        for i, checkpointer in list(self.checkpointers.items()):
            with self._catch_failure(i):
                checkpointer.take(self._ensemble.state(i))
                if checkpointer.has_stopped(step):
                    self.checkpointers.pop(i).commit(self._ensemble.state(i))
        n_bytes = sum(checkpointer.n_uncommitted_bytes for checkpointer in self.checkpointers.values())
        is_full = any(checkpointer.is_commit_due for checkpointer in self.checkpointers.values())
        if is_last or is_full or n_bytes >= COMMIT_BYTES:
            for i, checkpointer in list(self.checkpointers.items()):
                with self._catch_failure(i):
                    checkpointer.commit(self._ensemble.state(i))

    @contextmanager
    def _catch_failure(self, i: int) -> Iterator[None]:
        try:
            yield
        except NotFiniteError as error:
            self._fail(i, error)

    def _fail(self, i: int, error: NotFiniteError) -> None:
        """End a run, and commit what it has without a resume state."""
        self.failures[i] = error
        # Coverage up to the next step, without a resume state, marks the failure for `_recorded_failure`.
        state = replace(self._ensemble.state(i), step=error.step + 1)
        self.checkpointers.pop(i).commit(state, resumable=False)


def _not_finite(update: int) -> NotFiniteError:
    return NotFiniteError("A loss, gradient or weight", update, update - 1, resumable=False)


def _recorded_failure(run: RunStore) -> NotFiniteError | None:
    """Return the error of a run that has failed: its last segment covers steps beyond its last resume state."""
    end = max((segment.coverage[1] for segment in run.segments if segment.coverage), default=0)
    return _not_finite(end - 1) if end > run.last_step else None


def _require_same_settings(run: RunStore, config: RunConfig) -> None:
    recorded = run.record.config
    if recorded.digest != config.digest:
        raise GrokscopeError(
            f"{run.folder} has other settings than its config in this ensemble. Choose another folder."
        )
    if config.n_steps < recorded.n_steps:
        raise GrokscopeError(
            f"n_steps: {config.n_steps} would shorten {run.folder}. Allowed: from {recorded.n_steps}."
        )


def _require_no_rewrite(run: RunStore, step: int, present: Mapping[str, str]) -> None:
    """Raise GrokscopeError if steps that a run has saved would be repeated in an environment that may change bits."""
    drift = environment.drift(run.record.environment, present)
    if drift and run.last_step > step:
        raise GrokscopeError(
            f"{run.folder} is at step {run.last_step} and its ensemble at step {step}, so the steps between would be "
            f"repeated in a different environment: {'; '.join(drift)}. Continue these runs one by one with "
            f"`grokscope resume RUN --allow-drift`."
        )


def _common_resume_states(runs: Mapping[int, RunStore], are_all: bool) -> dict[int, dict[str, Tensor]]:
    """Return the resume states of the latest step that all runs can resume from.

    Without `are_all`, a run of the ensemble does not exist yet, so the step is 0.
    """
    if not runs:
        return {}
    steps = set.intersection(
        *({segment.resume_step or 0 for segment in run.resume_points()} for run in runs.values())
    )
    messages = [message for run in runs.values() for message in run.damaged]
    for step in sorted(steps, reverse=True) if are_all else sorted(steps & {0}):
        try:
            return {i: _resume_state(run, step) for i, run in runs.items()}
        except GrokscopeError as error:
            messages.append(str(error))
    names = ", ".join(run.folder.name for run in runs.values())
    raise GrokscopeError(f"There is no step from which {names} can all resume. {' '.join(messages)}".strip())


def _resume_state(run: RunStore, step: int) -> dict[str, Tensor]:
    """Return the first resume state of a run at a step."""
    segment = next(segment for segment in run.resume_points() if segment.resume_step == step)
    return {name: torch.from_numpy(array) for name, array in segment.resume_state().items()}
