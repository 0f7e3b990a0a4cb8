"""Runs that train together in one ensemble, each in a folder of its own, kept as a run that trains alone is.

All commit at the same steps, so that there is always a step from which all of them can go on.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from grokscope import environment
from grokscope.config import RunConfig, checkpoint_schedule
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore
from grokscope.training.checkpointer import Recorder
from grokscope.training.ensemble import Ensemble
from grokscope.training.loop import NotFiniteError
from grokscope.training.run import begun, renewed, writing
from grokscope.training.signals import InterruptedRunError, deferred_signals

PLACE = re.compile(r"run (?P<i>\d{1,9}) of (?P<ensemble>\d{1,9}, \w+)")
"""How a run's environment records its place, and which ensemble it is in: how many runs, and a digest of them."""
MOST_BYTES = 2**30
"""All commit when their checkpoints in memory reach this."""


def train_together(
    configs: list[RunConfig],
    folders: list[Path],
    allow_drift: bool = False,
    observer: Callable[[int], None] | None = None,
) -> dict[Path, NotFiniteError]:
    """Train runs in one ensemble into their folders, or go on with them, to the end; return why some failed.

    A run whose numbers stop being finite keeps what it has, and the others go on, now and when this is called again,
    without it: it is not trained once more, since it would fail once more. Which runs are in the ensemble
    decides bits and is recorded as part of each run's environment: together they resume exactly; going on with one
    alone, or with others, is drift. A signal commits all and raises InterruptedRunError. Raise GrokscopeError for runs that
    cannot be in one ensemble, and as `training.train` and `training.resume` do.
    """
    n_steps = configs[0].n_steps
    with deferred_signals() as interrupted, ExitStack() as held:
        ensemble = Ensemble(configs)
        recorders, failed = _recorders(ensemble, configs, folders, allow_drift, held)
        fixed = set(checkpoint_schedule.parse(configs[0].checkpoints).fixed_steps(n_steps).tolist())

        def note(i: int, error: NotFiniteError) -> None:
            failed[folders[i]] = error
            # The segment says, as `_failure` reads it, that the next update was made and cannot be gone on from.
            recorders.pop(i).commit(replace(ensemble.state(i), step=error.step + 1), resumable=False)

        while recorders and ensemble.step < n_steps:
            ensemble.advance()
            if observer:
                observer(ensemble.step)
            stopped = interrupted()
            is_evaluated = ensemble.step % configs[0].evaluate_every == 0 or ensemble.step == n_steps
            if not (is_evaluated or ensemble.step in fixed or stopped):
                continue
            for i, update in enumerate(ensemble.failures()):
                if i in recorders and update >= 0:
                    note(i, NotFiniteError("A loss, gradient or weight", update, update - 1, resumable=False))
            for i, recorder in list(recorders.items()):
                try:
                    recorder.take(ensemble.state(i))
                except NotFiniteError as error:
                    note(i, error)
            waiting = sum(recorder.n_bytes for recorder in recorders.values())
            is_due = waiting >= MOST_BYTES or any(recorder.is_due for recorder in recorders.values())
            if is_due or stopped or ensemble.step == n_steps:
                for i, recorder in list(recorders.items()):
                    try:
                        recorder.commit(ensemble.state(i))
                    except NotFiniteError as error:
                        note(i, error)
            if stopped:
                raise InterruptedRunError(folders[0].parent, stopped)
    return failed


def places(configs: list[RunConfig]) -> list[str]:
    """Return what each run's environment says of its place in the ensemble of these configs."""
    digest = hashlib.sha256("".join(config.digest for config in configs).encode()).hexdigest()[:16]
    return [f"run {i} of {len(configs)}, {digest}" for i in range(1, len(configs) + 1)]


def _recorders(
    ensemble: Ensemble, configs: list[RunConfig], folders: list[Path], allow_drift: bool, held: ExitStack
) -> tuple[dict[int, Recorder], dict[Path, NotFiniteError]]:
    """Make or open each run, locked for as long as `held`, and load the latest step that all have.

    Return the recorders of those that train, and why the others have failed before.
    """
    there = {i: held.enter_context(writing(folder)) for i, folder in enumerate(folders) if folder.is_dir()}
    for i, run in there.items():
        _require_same_settings(run, configs[i])
    here = [
        {**environment.present(config.device), "ensemble": place}
        for config, place in zip(configs, places(configs), strict=True)
    ]
    failures = {i: error for i, run in there.items() if (error := _failure(run))}
    going = {i: run for i, run in there.items() if i not in failures}
    resumed = _resume_states(going, are_all=len(there) == len(folders))
    for i, run in going.items():
        ensemble.members[i].require_resumable(resumed[i], whole=int(resumed[i]["step"]) > 0)
        ensemble.load(i, resumed[i])
        if ensemble.step < configs[i].n_steps:
            _require_no_other_way(run, ensemble.step, here[i])
            run.record = renewed(run, here[i], configs[i].n_steps, allow_drift)
    recorders = {}
    for i, folder in enumerate(folders):
        if i in failures:
            continue
        member, state = ensemble.members[i], ensemble.state(i)
        if i in going:
            recorders[i] = Recorder(member, going[i], state, resumed[i])
        else:
            recorders[i] = begun(folder, member, state, here[i], held)
        held.enter_context(recorders[i])
    return recorders, {folders[i]: error for i, error in failures.items()}


def _failure(run: RunStore) -> NotFiniteError | None:
    """Return why a run cannot go on, if its last segment says so by covering steps without a state to resume from."""
    end = max((one.coverage[1] for one in run.segments if one.coverage), default=0)
    if end <= run.last_step:
        return None
    return NotFiniteError("A loss, gradient or weight", end - 1, end - 2, resumable=False)


def _require_same_settings(run: RunStore, config: RunConfig) -> None:
    there = run.record.config
    if there.digest != config.digest:
        raise GrokscopeError(f"{run.folder} has other settings than those it is to go on with.")
    if config.n_steps < there.n_steps:
        raise GrokscopeError(f"n_steps: {config.n_steps} would shorten {run.folder}; allowed: from {there.n_steps}.")


def _require_no_other_way(run: RunStore, step: int, here: Mapping[str, str]) -> None:
    """Raise GrokscopeError if the run would be trained once more in an environment that may give it other bits."""
    drift = environment.drift(run.record.environment, here)
    if drift and run.last_step > step:
        raise GrokscopeError(
            f"{run.folder} is at step {run.last_step}, its ensemble at {step}, and from there it may come another "
            f"way: {'; '.join(drift)}. Go on with these runs one by one, by `grokscope resume --allow-drift`."
        )


def _resume_states(there: Mapping[int, RunStore], are_all: bool) -> dict[int, dict[str, Tensor]]:
    """Return the resume states of the latest step that all runs can go on from; it is 0 if a run has none yet."""
    steps = [{one.resume_step for one in run.resume_points()} for run in there.values()]
    common = set[int | None].intersection(*steps) if there else set()
    reasons = [reason for run in there.values() for reason in run.damaged]
    for step in sorted((step for step in common if step is not None and (are_all or step == 0)), reverse=True):
        try:
            return {i: _resume_state(run, step) for i, run in there.items()}
        except GrokscopeError as error:
            reasons.append(str(error))
    if there:
        names = ", ".join(run.folder.name for run in there.values())
        raise GrokscopeError(f"There is no step from which {names} can all go on. {' '.join(reasons)}".strip())
    return {}


def _resume_state(run: RunStore, step: int) -> dict[str, Tensor]:
    segment = next(one for one in run.resume_points() if one.resume_step == step)
    return {name: torch.from_numpy(array) for name, array in segment.resume_state().items()}
