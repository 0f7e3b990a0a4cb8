"""Forks: a new run that goes on from a step of another, under a config that may differ.

The trajectory of a fork begins at that step, its first checkpoint and its first row of the log, and counts on from
there: warm-up, batches, noise and schedule are functions of the absolute step, so a fork with nothing changed is its
origin's continuation, bit for bit. What step 0 was it keeps from its origin.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokscope import environment, plugins
from grokscope.config import RunConfig, TaskConfig
from grokscope.errors import BusyError, GrokscopeError, quoted_value
from grokscope.model import transformer
from grokscope.store.record import FORKED
from grokscope.store.run_store import RunStore, checked_name, free_name
from grokscope.tasks import Task
from grokscope.training.checkpointer import Recorder, as_arrays
from grokscope.training.loop import Setup, optimize
from grokscope.training.optimizers import remembered
from grokscope.training.replay import Witnesses
from grokscope.training.run import Observer, begun, drain, latest, require_trained
from grokscope.training.signals import deferred_signals
from grokscope.trajectory import Trajectory, data_digest, open_store

_BEGINNING = ("model.init", "model.init_scale", "model.positions", "init_seed")
"""Settings that decide how the weights begin, which a fork's no longer do."""
_OPTIMIZER, _FILTER = "optimizer/", "optimizer/filter/"


@dataclass(frozen=True)
class Fork:
    """A fork that is ready to be trained: `train` makes the run."""

    setup: Setup
    state: Mapping[str, Tensor]
    """The resume state that it goes on from."""
    initialization: Mapping[str, np.ndarray] | None
    """The parameters of step 0, if its origin still has them."""
    history: tuple[Mapping[str, Any], ...]
    """What went before in its origin, and last the fork itself."""

    def sentences(self) -> list[str]:
        """Say where it comes from and what is not as it was there, a sentence each."""
        event = self.history[-1]
        changed = "; ".join(f"{name} {was} → {now}" for name, (was, now) in event["changed"].items())
        said = [f"Goes on from {event['run']} at step {event['step']:,}, {changed or 'with nothing changed'}."]
        if event["other_data"]:
            said.append("It learns from other examples than its origin did: its train and test sets are its own.")
        if event["anew"]:
            said.append(f"Begins anew, since it remembers other things than before: {' and '.join(event['anew'])}.")
        if event["drift"]:
            said.append(
                f"Its environment is another, so bits may differ from its origin's: {'; '.join(event['drift'])}."
            )
        return said

    def train(self, run: str, root: Path | str = "checkpoints", observer: Observer | None = None) -> Trajectory:
        """Train it into the new folder root/run, and return its trajectory; raise as `training.train` does."""
        folder = Path(root) / checked_name(run)
        if folder.exists():
            raise BusyError(f"{folder} exists already; choose another --run name.")
        with deferred_signals() as interrupted, ExitStack() as held:
            state = self.setup.state(self.state)
            recorder = begun(
                folder,
                self.setup,
                state,
                environment.present(self.setup.config.device),
                held,
                history=self.history,
                resumed=self.state,
                initialization=self.initialization,
            )
            drain(self.setup, state, recorder, observer, interrupted)
        return Trajectory.open(folder)


def fork(
    path: Path | str,
    step: int,
    config: RunConfig | None = None,
    run: str | None = None,
    root: Path | str = "checkpoints",
    observer: Observer | None = None,
) -> Trajectory:
    """Go on from `step` of a run as `config` says, as the new run root/run, and return its trajectory.

    `config` is the origin's with any fields changed (by default none): not those that decide how the weights begin,
    the parameters' shapes or what the tokens stand for, which GrokscopeError names. `n_steps` counts from the
    origin's step 0. Without `run` the name is the origin's with "-fork". Raise GrokscopeError as `prepare` and
    `training.train` do.
    """
    prepared = prepare(path, step, config)
    name = free_name(f"{Path(path).name}-fork", Path(root)) if run is None else checked_name(run)
    return prepared.train(name, root, observer)


def prepare(path: Path | str, step: int, config: RunConfig | None = None) -> Fork:
    """Make a fork ready, without writing anything.

    Where the run has no resume state at `step`, those steps are trained once more from the latest one before, and on
    to the next that was saved: whatever was saved must agree to the bit. Raise GrokscopeError for a step that the
    run has not trained, for a field that cannot change, and where training once more gives other bits.
    """
    folder = Path(path)
    run = open_store(folder)
    require_trained(run)
    trajectory = Trajectory.of_store(run)
    before, config = run.record.config, config or run.record.config
    if not run.record.first_step <= step <= run.last_step:
        raise GrokscopeError(
            f"step: {step}; allowed: {run.record.first_step} to {run.last_step}, what {folder} has trained."
        )
    if config.n_steps <= step:
        raise GrokscopeError(f"n_steps: {config.n_steps} for a fork at step {step}; allowed: from {step + 1}.")
    changed = changes(before, config)
    setup = Setup(config)
    _require_same_parameters(before, config, changed, trajectory.task, setup.task)
    resumed = _reached(run, step)
    state, anew = _carried(setup, resumed)
    here = environment.present(config.device)
    event = {
        "event": FORKED,
        "step": step,
        "run": folder.resolve().name,
        "config_digest": before.digest,
        "state_digest": _digest(resumed),
        "changed": {name: list(values) for name, values in changed.items()},
        "other_data": data_digest(setup.task, setup.split) != run.record.data_digest,
        "anew": anew,
        "drift": environment.drift(run.record.environment, here),
    }
    lived = tuple(one for one in run.record.history if one.get("step", 0) <= step)
    origin = trajectory.initialization
    return Fork(setup, state, as_arrays(origin) if origin else None, (*lived, event))


def changes(before: RunConfig, after: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, by dotted name, as (before, after) in plain values."""
    was, now = flat(before.to_dict()), flat(after.to_dict())
    return {name: (was[name], now[name]) for name in was if was[name] != now[name]}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _require_same_parameters(
    before: RunConfig, after: RunConfig, changed: Mapping[str, tuple[Any, Any]], task: Task, its_task: Task
) -> None:
    """Raise GrokscopeError that names a changed field under which the origin's parameters are no model's any more."""
    shapes = transformer.build(before.model, task).shapes
    is_same = _tokens(before.task, task) == _tokens(after.task, its_task) and (
        None in (task.group, its_task.group) or getattr(task.group, "name", "") == getattr(its_task.group, "name", "")
    )
    for name, (was, now) in changed.items():
        table, _, leaf = name.rpartition(".")
        what = ""
        if name in _BEGINNING:
            what = "decides how weights begin, and a fork's have begun"
        elif table == "model":
            alone = dataclasses.replace(before.model, **{leaf: now})
            what = "changes the parameters' shapes" * (transformer.build(alone, task).shapes != shapes)
        elif leaf in ("name", "p", "group", "table", "form") and table == "task":
            what = "changes what the tokens are" * (not is_same)
        if what:
            raise GrokscopeError(f"{name}: {quoted_value(now)} {what}; allowed in a fork: {quoted_value(was)}.")


def _tokens(config: TaskConfig, task: Task) -> tuple[Any, ...]:
    """Return what tells apart the tokens of two tasks; those of one module name their elements alike."""
    module = plugins.load("tasks", config.name).__module__
    return module, config.form, task.n_elements, task.d_vocab, task.d_vocab_out, task.n_ctx


def _reached(run: RunStore, step: int) -> dict[str, Tensor]:
    """Return the resume state at `step`, trained once more from the one before where none was committed there."""
    setup = Setup(run.record.config)
    state, resumed = latest(setup, run, step)
    if state.step == step:
        return dict(resumed)
    recorder = Recorder(setup, run, state, resumed)
    witnesses = Witnesses(run)
    found = {}
    for _ in optimize(setup, state):
        is_confirmed = witnesses.confirm(state)
        if state.step <= step:
            # For what the schedule remembers: nothing of it is written.
            recorder.take(state)
        if state.step == step:
            found = {name: torch.from_numpy(one) for name, one in as_arrays(recorder.resume_state(state)).items()}
        if is_confirmed and state.step >= step:
            return found
        witnesses.require_later(state.step)
    raise AssertionError("training has no end of its own")


def _carried(setup: Setup, resumed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the resume state with what the new optimizer can go on with, and what of it begins anew.

    The optimizer, and by itself the gradient filter, goes on if it remembers tensors of the same names and shapes as
    before, as adam and adamw do of each other; otherwise it begins as at step 0, but for warm-up, which counts steps.
    """
    step = int(resumed["step"])
    kept = {name: one for name, one in resumed.items() if not name.startswith(_OPTIMIZER)}
    needed = remembered(setup.config.optimizer, {name: kept[f"parameters/{name}"] for name in setup.model.trained})
    anew = []
    for part, is_filter in (("the optimizer", False), ("the gradient filter", True)):
        there = {name: one for name, one in resumed.items() if name.startswith(_OPTIMIZER)}
        there = {name: one for name, one in there.items() if name.startswith(_FILTER) == is_filter}
        wanted = {_OPTIMIZER + name: one.shape for name, one in needed[is_filter].items()}
        if {name: one.shape for name, one in there.items()} == wanted:
            kept |= there
        elif wanted and step:
            anew.append(part)
    return kept, anew


def _digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a resume state: of every name and every byte."""
    digest = hashlib.sha256()
    for name, one in sorted(state.items()):
        digest.update(name.encode())
        digest.update(one.contiguous().numpy().tobytes())
    return digest.hexdigest()
