"""Forks: a new run that continues from a step of another run, under a config that may differ.

A fork's trajectory begins at that step, with a checkpoint and a log row, and its steps count on from there. Warm-up,
batches, noise and schedule are functions of the absolute step. An unchanged fork is therefore its origin's
continuation, bit for bit. A fork stores its origin's initialization.
"""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokscope import environment
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.model import own
from grokscope.opened_run import open_store
from grokscope.store.record import FORKED, Record
from grokscope.store.run_names import new_run_folder
from grokscope.store.run_store import RunStore
from grokscope.training.checkpointer import Checkpointer, as_arrays
from grokscope.training.fork_settings import compare_settings, require_same_parameters
from grokscope.training.learner import latest_state, new_stop_state
from grokscope.training.loop import Setup, optimize
from grokscope.training.optimizers import expected_state
from grokscope.training.replay import ReplayCheck
from grokscope.training.run import create_run, require_trained, train_to_end
from grokscope.training.run_progress import Display, Observer, displayed
from grokscope.training.signals import deferred_signals
from grokscope.trajectory import Trajectory

_STOP = "stop/"
_OPTIMIZER, _FILTER = "optimizer/", "optimizer/filter/"


@dataclass(frozen=True)
class Fork:
    """A fork that is ready to train; `prepare_fork` makes it."""

    setup: Setup
    """The fork's own parts."""
    resume_state: Mapping[str, Tensor]
    """The resume state that it starts from."""
    initialization: Mapping[str, np.ndarray] | None
    """The parameters of step 0, if the origin still has them."""
    history: tuple[Mapping[str, Any], ...]
    """The origin's history up to the step, followed by the event of the fork."""

    def describe(self) -> list[str]:
        """Return where the fork starts and what differs from its origin, one sentence each."""
        event = self.history[-1]
        changed = "; ".join(f"{name} {before} → {after}" for name, (before, after) in event["changed"].items())
        sentences = [f"Continues {event['run']} from step {event['step']:,} with {changed or 'no changes'}."]
        if event["other_data"]:
            sentences.append(
                "Its train and test sets differ from its origin's."
                if event.get("knows_data", True)
                else "The training set of its origin is unknown, so it trains on a set of its own."
            )
        if event["anew"]:
            sentences.append(
                f"Starts with an empty state, because the tensors differ from the origin's: "
                f"{' and '.join(event['anew'])}."
            )
        if event.get("fresh_optimizer"):
            sentences.append("Its optimizer starts empty; warm-up and schedule count the steps of its origin.")
        if event["drift"]:
            sentences.append(
                f"Its environment differs, so bits may differ from its origin's: {'; '.join(event['drift'])}."
            )
        return sentences

    def train(self, folder: Path, observer: Observer | None = None, progress: Display | bool = True) -> Trajectory:
        """Train the fork into a new folder, and return its trajectory; raise as `training.train` does.

        Args:
            folder: The new folder, as `new_run_folder` returns it.
            observer: A function that is called after every step, with the step and the latest log row.
            progress: Whether to show a progress bar; as for `training.train`.

        Returns:
            The trajectory of all checkpoints.
        """
        config, evaluate = self.setup.config, self.setup.evaluator.evaluate
        record = Record(
            config, environment.describe(config.device, self.setup.threads.n), self.setup.dataset.digest, self.history
        )
        with deferred_signals() as interrupted, ExitStack() as locks:
            state = self.setup.learner.resumed_state(self.resume_state)
            checkpointer = create_run(
                folder,
                record,
                evaluate,
                state,
                locks,
                resume_state=self.resume_state,
                initialization=self.initialization,
            )
            with displayed(progress, config.n_steps, state.step, observer, config.loss) as observer:
                train_to_end(self.setup, state, checkpointer, observer, interrupted)
        return Trajectory.open(folder)


def fork(
    path: Path | str,
    step: int,
    config: RunConfig | None = None,
    run: str | None = None,
    root: Path | str = "checkpoints",
    observer: Observer | None = None,
    progress: Display | bool = True,
    fresh_optimizer: bool = False,
    model: torch.nn.Module | None = None,
) -> Trajectory:
    """Continue a step of a run as a new run root/run, and return the new run's trajectory.

    Args:
        path: The folder of the origin.
        step: A step that the origin has trained; with `fresh_optimizer` the step of a checkpoint.
        config: The fork's config; by default the origin's. Settings of the initialization, the parameters' shapes and
            the meaning of the tokens cannot change. `n_steps` counts from the origin's step 0.
        run: The fork's name; by default the origin's with "-fork", then "-fork-2", …
        root: The folder that contains the runs.
        observer: A function that is called after every step, with the step and the latest log row.
        progress: Whether to show a progress bar; as for `training.train`.
        fresh_optimizer: As for `prepare_fork`.
        model: The module of a run that trains a module of your own; its present parameters are not used.

    Returns:
        The trajectory of all checkpoints.

    Raises:
        GrokscopeError: As `prepare_fork` and `training.train` raise.
    """
    own.remember(model)
    folder = new_run_folder(Path(root), run, f"{Path(path).name}-fork")
    return prepare_fork(path, step, config, progress, fresh_optimizer).train(folder, observer, progress)


def prepare_fork(
    path: Path | str,
    step: int,
    config: RunConfig | None = None,
    progress: Display | bool = True,
    fresh_optimizer: bool = False,
) -> Fork:
    """Prepare a fork without writing a file.

    If the run has no resume state at `step`, training is repeated from the latest one before, and continues to the
    next saved state. Every saved state on the way must be reproduced bit for bit.

    With a fresh optimizer, the fork starts from a checkpoint, which has no optimizer state. An imported run has
    checkpoints only, so it can be forked in no other way.

    Args:
        path: The folder of the origin.
        step: A step that the origin has trained; with `fresh_optimizer` the step of a checkpoint.
        config: The fork's config; by default the origin's `Record.training_config`.
        progress: Whether to show a progress bar if training is repeated; as for `training.train`.
        fresh_optimizer: Whether the optimizer starts empty.

    Returns:
        The fork, ready to train.

    Raises:
        GrokscopeError: The origin has not trained `step`, or has no checkpoint there; a setting differs that cannot
            change; or repeated training gives other bits.
    """
    folder = Path(path)
    run = open_store(folder)
    if not fresh_optimizer:
        require_trained(run)
    trajectory = Trajectory.of_store(run)
    before = run.record.training_config
    config = config or before
    if not fresh_optimizer and not run.record.first_step <= step <= run.last_step:
        raise GrokscopeError(
            f"step: {step} is not a trained step of {folder}. Allowed: {run.record.first_step} to {run.last_step}."
        )
    if config.n_steps <= step:
        raise GrokscopeError(f"n_steps: {config.n_steps} for a fork at step {step}. Allowed: from {step + 1}.")
    changed = compare_settings(before, config)
    setup = Setup.of_run(run, config)
    require_same_parameters(before, config, changed, trajectory.task, setup.dataset.task)
    origin_state = _checkpoint_state(trajectory, step) if fresh_optimizer else _state_at(run, step, progress)
    resume_state, emptied = _transferred(
        setup, origin_state, keeps_rule="stop" not in changed and not fresh_optimizer
    )
    present = environment.describe(config.device, setup.threads.n)
    event = {
        "event": FORKED,
        "step": step,
        "run": folder.resolve().name,
        "config_digest": before.digest,
        "state_digest": _digest(origin_state),
        "changed": {name: list(values) for name, values in changed.items()},
        "other_data": setup.dataset.digest != run.record.data_digest,
        "anew": [] if fresh_optimizer else emptied,
        "fresh_optimizer": fresh_optimizer,
        "knows_data": run.record.has_split,
        "drift": [] if run.record.imported else environment.drift(run.record.environment, present),
    }
    events = tuple(past for past in run.record.history if past.get("step", 0) <= step)
    initialization = trajectory.initialization
    return Fork(setup, resume_state, as_arrays(initialization) if initialization else None, (*events, event))


def _checkpoint_state(trajectory: Trajectory, step: int) -> dict[str, Tensor]:
    """Return a resume state with the parameters of a checkpoint and nothing of an optimizer."""
    parameters = {f"parameters/{name}": tensor.float() for name, tensor in trajectory.at(step).parameters.items()}
    return {
        "step": torch.tensor(step),
        "schedule/reference": torch.tensor(1.0, dtype=torch.float64),
        "schedule/n_adaptive": torch.tensor(0),
        **parameters,
    }


def _state_at(run: RunStore, step: int, progress: Display | bool) -> dict[str, Tensor]:
    """Return the resume state at a step; where none was committed, repeat the training from the one before."""
    setup = Setup.of_run(run)
    state, resume_state = latest_state(setup.learner, run, step)
    if state.step == step:
        return dict(resume_state)
    # It only replays the adaptive schedule: nothing is committed.
    checkpointer = Checkpointer(run, setup.evaluator.evaluate, state, resume_state)
    check = ReplayCheck(run, setup.threads.n)
    with displayed(progress, check.next_saved(step), state.step, loss=setup.config.loss) as observer:
        for _ in optimize(setup, state):
            is_confirmed = check.confirm(state)
            if state.step <= step:
                checkpointer.take(state)
            if observer:
                observer(state.step, {})
            if state.step == step:
                arrays = as_arrays(checkpointer.resume_state(state))
                resume_state = {name: torch.from_numpy(array) for name, array in arrays.items()}
            if is_confirmed and state.step >= step:
                break
            check.require_later(state.step)
    return dict(resume_state)


def _transferred(
    setup: Setup, resume_state: Mapping[str, Tensor], *, keeps_rule: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the resume state for a fork's optimizer, and the parts of the optimizer that start empty.

    The optimizer, and separately the gradient filter, continues if its state has the same names and shapes as before,
    as between adam and adamw. Otherwise it starts as at step 0, except for warm-up, which counts absolute steps. An
    unchanged stop rule continues, so a fork from a step at or after its origin's stop does not stop.
    """
    transferred = {name: tensor for name, tensor in resume_state.items() if not name.startswith((_OPTIMIZER, _STOP))}
    rule = new_stop_state(setup.config)
    transferred |= {name: resume_state[name] for name in rule} if keeps_rule else rule
    trained = {name: transferred[f"parameters/{name}"] for name in setup.model.trained}
    optimizer_state, filter_state = expected_state(setup.config.optimizer, trained)
    emptied = []
    for part, expected, is_filter in (
        ("the optimizer", optimizer_state, False),
        ("the gradient filter", filter_state, True),
    ):
        present = {
            name: tensor
            for name, tensor in resume_state.items()
            if name.startswith(_OPTIMIZER) and name.startswith(_FILTER) == is_filter
        }
        shapes = {_OPTIMIZER + name: tensor.shape for name, tensor in expected.items()}
        if {name: tensor.shape for name, tensor in present.items()} == shapes:
            transferred |= present
        elif shapes and int(resume_state["step"]):
            emptied.append(part)
    return transferred, emptied


def _digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of every name and every byte of a resume state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
