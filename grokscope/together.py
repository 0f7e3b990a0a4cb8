"""Runs that train together in one ensemble, each in a folder of its own, kept as a run that trains alone is.

All commit at the same steps, so that there is always a step from which all of them can go on.
"""

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch

from grokscope import environment, schedule, store
from grokscope.config import RunConfig
from grokscope.ensemble import Ensemble
from grokscope.errors import GrokscopeError
from grokscope.interrupts import Interrupted, deferred_signals
from grokscope.optimize import NotFinite
from grokscope.recorder import Recorder
from grokscope.training import begun, renewed, writing

MOST_BYTES = 2**30
"""All commit when their checkpoints in memory reach this."""


def train_together(
    configs: list[RunConfig],
    folders: list[Path],
    allow_drift: bool = False,
    observer: Callable[[int], None] | None = None,
) -> dict[Path, NotFinite]:
    """Train runs in one ensemble into their folders, or go on with them, to the end; return why some failed.

    A run whose numbers stop being finite keeps what it has, and the others go on. Which runs are in the ensemble
    decides bits and is recorded as part of each run's environment: together they resume exactly; going on with one
    alone, or with others, is drift. A signal commits all and raises Interrupted. Raise GrokscopeError for runs that
    cannot be in one ensemble, and as `training.train` and `training.resume` do.
    """
    n_steps = configs[0].n_steps
    with deferred_signals() as interrupted, ExitStack() as held:
        ensemble = Ensemble(configs)
        recorders = _recorders(ensemble, configs, folders, allow_drift, held)
        failed: dict[Path, NotFinite] = {}
        watched = set(range(0, n_steps, configs[0].evaluate_every)) | {n_steps}
        watched.update(schedule.parse(configs[0].checkpoints).fixed_steps(n_steps).tolist())

        def note(i: int, error: NotFinite) -> None:
            failed[folders[i]] = error
            recorders.pop(i).commit(ensemble.state(i), resumable=False)

        while recorders and ensemble.step < n_steps:
            ensemble.advance()
            if observer:
                observer(ensemble.step)
            stopped = interrupted()
            if ensemble.step not in watched and not stopped:
                continue
            for i, update in enumerate(ensemble.failures()):
                if i in recorders and update >= 0:
                    note(i, NotFinite("A loss, gradient or weight", update, update - 1, resumable=False))
            for i, recorder in list(recorders.items()):
                try:
                    recorder.take(ensemble.state(i))
                except NotFinite as error:
                    note(i, error)
            waiting = sum(recorder.n_bytes for recorder in recorders.values())
            is_due = waiting >= MOST_BYTES or any(recorder.is_due for recorder in recorders.values())
            if is_due or stopped or ensemble.step == n_steps:
                for i, recorder in recorders.items():
                    recorder.commit(ensemble.state(i))
            if stopped:
                raise Interrupted(folders[0].parent, stopped)
    return failed


def _recorders(
    ensemble: Ensemble, configs: list[RunConfig], folders: list[Path], allow_drift: bool, held: ExitStack
) -> dict[int, Recorder]:
    """Make or open each run, locked for as long as `held`, and load the latest step that all have."""
    there = {i: held.enter_context(writing(folder)) for i, folder in enumerate(folders) if folder.is_dir()}
    step = min(run.last_step for run in there.values()) if len(there) == len(folders) else 0
    digest = hashlib.sha256("".join(config.digest for config in configs).encode()).hexdigest()[:16]
    resumed = {}
    for i, run in there.items():
        here = _environment(configs[i], i, len(configs), digest)
        run.record = renewed(run, here, configs[i].n_steps, allow_drift)
        resumed[i] = _resume_state(run, step)
        ensemble.load(i, resumed[i])
    recorders = {}
    for i, folder in enumerate(folders):
        member, state = ensemble.members[i], ensemble.state(i)
        if i in there:
            recorders[i] = Recorder(member, there[i], state, resumed[i])
        else:
            recorders[i] = begun(folder, member, state, _environment(configs[i], i, len(configs), digest), held)
        held.enter_context(recorders[i])
    return recorders


def _environment(config: RunConfig, i: int, n: int, digest: str) -> dict[str, str]:
    return {**environment.present(config.device), "ensemble": f"run {i + 1} of {n}, {digest}"}


def _resume_state(run: store.Store, step: int) -> dict[str, torch.Tensor]:
    for segment in run.resume_points():
        if segment.resume_step == step:
            return {name: torch.from_numpy(array) for name, array in segment.resume_state().items()}
    raise GrokscopeError(
        f"{run.folder} has no resume state at step {step}, the last that all runs of its ensemble have; it was "
        f"trained otherwise. Go on with it by itself, by `grokscope resume`."
    )
