"""Training: `optimize` is a generator of steps; `train`, `resume` and `densify` drain it into a run.

What a run saves is a function of its config and its environment, never of the clock: where a segment ends
depends on time, but the checkpoints, the log and the final resume state are the same wherever it does.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from grokscope import environment, files, schedule, store, tasks
from grokscope import model as models
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.interrupts import Interrupted, deferred_signals
from grokscope.optimizers import Optimizer
from grokscope.trajectory import Trajectory, data_digest

Row = dict[str, float]
Observer = Callable[[int, Row], None]
"""Called after every step with the step and the latest row of the log; what it does cannot touch the training."""

_SEGMENT_CHECKPOINTS = 64
_SEGMENT_BYTES = 2**26
_SEGMENT_SECONDS = 30.0


class NotFinite(GrokscopeError):
    """A loss, gradient or weight is not finite; `weights_are_finite` says whether training could go on from here."""

    def __init__(self, what: str, step: int, last_finite: int, *, weights_are_finite: bool):
        super().__init__(
            f"{what} is not finite at step {step}; the last finite step is {last_finite}. What was saved is "
            f"intact. A smaller optimizer.lr or model.init_scale, or loss_dtype 'float64', may help."
        )
        self.weights_are_finite = weights_are_finite


@dataclass
class State:
    """What training changes: the number of updates made, the parameters (in place) and the optimizer."""

    step: int
    parameters: dict[str, Tensor]
    optimizer: Optimizer


class Setup:
    """What training reads: config, task, split, model, and the data on the training device."""

    def __init__(self, config: RunConfig):
        self.config = config.validate()
        self.task = tasks.build(config.task)
        self.split = tasks.split(self.task, config.task.train_fraction, config.split_seed)
        self.model = models.build(config.model, self.task)
        self.device = _device(config.device)
        self.inputs, self.labels = self.task.inputs.to(self.device), self.task.labels.to(self.device)
        self._train = self.split.train.to(self.device)
        self._test = self.split.test.to(self.device)
        self._train_inputs, self._train_labels = self.inputs[self._train], self.labels[self._train]
        self._epoch: tuple[int, Tensor] = (-1, self._train)
        n_train = len(self._train)
        if config.batch_size is not None and config.batch_size > n_train:
            raise GrokscopeError(
                f"batch_size: {config.batch_size} exceeds the training set; allowed: from 1 to {n_train}, or none."
            )

    def state(self, resumed: Mapping[str, Tensor] | None = None) -> State:
        """Return the state at initialization, or the one that `resume_state` described."""
        if resumed is None:
            parameters = self.model.initialize(self.config.init_seed)
        else:
            parameters = {name: resumed[f"parameters/{name}"] for name in self.model.shapes}
        parameters = {name: tensor.to(self.device) for name, tensor in parameters.items()}
        for name in self.model.trained:
            parameters[name].requires_grad_()
        optimizer = Optimizer(self.config.optimizer, {name: parameters[name] for name in self.model.trained})
        if resumed is None:
            return State(0, parameters, optimizer)
        prefix = "optimizer/"
        optimizer.load({name[len(prefix) :]: one for name, one in resumed.items() if name.startswith(prefix)})
        return State(int(resumed["step"]), parameters, optimizer)

    def batch(self, step: int) -> tuple[Int[Tensor, "batch n_ctx"], Int[Tensor, " batch"]]:
        """Return the batch of the update that follows `step`: a function of the training seed and the step.

        Minibatches run through the training set in a new random order each epoch; an epoch's last may be short.
        """
        if self.config.batch_size is None:
            return self._train_inputs, self._train_labels
        n_train = len(self._train)
        epoch, position = divmod(step, -(-n_train // self.config.batch_size))
        if self._epoch[0] != epoch:
            order = tasks.permutation("batches", self.config.training_seed, epoch, n_train)
            self._epoch = (epoch, torch.from_numpy(order).to(self.device))
        chosen = self._epoch[1][position * self.config.batch_size :][: self.config.batch_size]
        return self._train_inputs[chosen], self._train_labels[chosen]

    def evaluate(self, state: State) -> Row:
        """Return the log's row for the present parameters; raise NotFinite if a loss is not finite."""
        loss, right = models.evaluate(self.model, state.parameters, self.inputs, self.labels, self.config.loss_dtype)
        row = {
            "train_loss": float(loss[self._train].mean()),
            "test_loss": float(loss[self._test].mean()),
            "train_accuracy": float(right[self._train].double().mean()),
            "test_accuracy": float(right[self._test].double().mean()),
        }
        for name in ("train_loss", "test_loss"):
            if not np.isfinite(row[name]):
                raise NotFinite(f"The {name}", state.step, state.step - 1, weights_are_finite=True)
        return row


def optimize(setup: Setup, state: State) -> Iterator[State]:
    """Make one update after the other, for ever, and yield the state after each.

    Raise NotFinite, naming the tensor, before an update with a loss or gradient that is not finite, and after
    one that leaves a weight so.
    """
    trained = {name: state.parameters[name] for name in setup.model.trained}
    while True:
        inputs, labels = setup.batch(state.step)
        logits = setup.model.logits(state.parameters, inputs)
        loss = models.losses(logits, labels, setup.config.loss_dtype).mean()
        gradients = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
        _require_finite(state.step, {"The training loss": loss.detach()}, weights_are_finite=True)
        _require_finite(
            state.step,
            {f"The gradient of {name}": gradient for name, gradient in gradients.items()},
            weights_are_finite=True,
        )
        state.optimizer.update(gradients, state.step)
        state.step += 1
        weights = {f"The parameter {name}": tensor.detach() for name, tensor in trained.items()}
        _require_finite(state.step, weights, weights_are_finite=False)
        yield state


class _Recorder:
    """Takes checkpoints and log rows as the schedule says, and commits them in segments."""

    def __init__(self, setup: Setup, run: store.Store, state: State, resumed: Mapping[str, Tensor] | None):
        self._setup, self._store = setup, run
        self._schedule = schedule.parse(setup.config.checkpoints)
        fixed = self._schedule.fixed_steps(setup.config.n_steps)
        self._fixed = set(fixed.tolist())
        self._adaptive_left = setup.config.max_checkpoints - len(fixed)
        self._reference = float(resumed["schedule/reference"]) if resumed else 1.0
        self._n_adaptive = int(resumed["schedule/n_adaptive"]) if resumed else 0
        # After a lost segment or a step that was not finite, some later steps are there already.
        self._have_checkpoints = set(run.steps.tolist())
        self._have_rows = set(run.log()[:, 0].astype(int).tolist())
        self._begin = state.step if resumed else -1
        self._steps: list[int] = []
        self._checkpoints: list[Mapping[str, np.ndarray]] = []
        self._rows: list[tuple[float, ...]] = []
        self._committed_at = time.monotonic()
        self.row: Row = {}

    def observe(self, state: State) -> None:
        """Evaluate, take a checkpoint and commit, each if it is time to."""
        config, step, amount = self._setup.config, state.step, self._schedule.adaptive
        wanted = step in self._fixed
        evaluated = step % config.evaluate_every == 0 or step == config.n_steps
        if evaluated or (wanted and amount):
            row = self._setup.evaluate(state)
            # Below the smallest normal number a loss has no meaningful logarithm.
            test_loss = max(row["test_loss"], float(np.finfo(np.float64).tiny))
            if evaluated:
                self.row = row
                if step not in self._have_rows:
                    self._rows.append((float(step), *row.values()))
            if amount and not wanted and abs(np.log(test_loss / self._reference)) >= amount:
                wanted = self._n_adaptive < self._adaptive_left
                self._n_adaptive += wanted
            if wanted:
                self._reference = test_loss
        if wanted and step not in self._have_checkpoints:
            self._steps.append(step)
            self._checkpoints.append(_as_arrays(state.parameters))
        if self._is_due():
            self.commit(state)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._store.folder

    def adaptive_is_spent(self) -> bool:
        """Return whether the adaptive schedule has taken all the checkpoints that `max_checkpoints` leaves it."""
        return self._schedule.adaptive is not None and self._n_adaptive >= self._adaptive_left

    def _is_due(self) -> bool:
        n_bytes = sum(array.nbytes for one in self._checkpoints[:1] for array in one.values())
        return (
            len(self._checkpoints) >= _SEGMENT_CHECKPOINTS
            or len(self._checkpoints) * n_bytes >= _SEGMENT_BYTES
            or time.monotonic() - self._committed_at >= _SEGMENT_SECONDS
        )

    def commit(self, state: State, *, resumable: bool = True) -> None:
        """Write what was taken since the last commit as one segment, with a resume state if `resumable`."""
        if state.step == self._begin and not self._steps:
            return
        resume = {
            "step": torch.tensor(state.step),
            "schedule/reference": torch.tensor(self._reference, dtype=torch.float64),
            "schedule/n_adaptive": torch.tensor(self._n_adaptive),
            **{f"parameters/{name}": tensor.detach() for name, tensor in state.parameters.items()},
            **{f"optimizer/{name}": tensor for name, tensor in state.optimizer.state().items()},
        }
        self._store.commit(
            self._steps,
            self._checkpoints,
            coverage=(self._begin, state.step),
            log=self._rows,
            resume=_as_arrays(resume) if resumable else None,
        )
        self._begin = state.step
        self._steps, self._checkpoints, self._rows = [], [], []
        self._committed_at = time.monotonic()


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
    name = free_name(config.task.name, Path(root)) if run is None else checked_name(run)
    folder = Path(root) / name
    if folder.exists():
        raise GrokscopeError(
            f"{folder} exists already. Go on with it by `grokscope resume {name}`, or choose another --run name."
        )
    record = store.Record(config, environment.present(config.device), data_digest(setup.task, setup.split))
    with deferred_signals() as interrupted, ExitStack() as held:
        with files.building(folder) as building:
            # The lock outlives the renaming: it is on the file, whatever the folder above is called.
            held.enter_context(files.Lock(building))
            state = setup.state()
            started = store.create(building, record)
            recorder = _Recorder(setup, started, state, None)
            recorder.observe(state)
            recorder.commit(state)
        started.folder = folder
        _drain(setup, state, recorder, observer, interrupted)
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
        if n_steps is not None and n_steps < max(run.record.config.n_steps, run.last_step):
            raise GrokscopeError(
                f"n_steps: {n_steps} would shorten {folder}; allowed: from {run.record.config.n_steps}."
            )
        if run.last_step >= (n_steps or run.record.config.n_steps):
            return Trajectory.open(folder)
        with files.Lock(folder):
            files.remove_temporary(store.segments_folder(folder))
            run = store.Store(folder)
            _prepare_to_resume(run, n_steps, allow_drift)
            run = store.Store(folder)
            setup = Setup(run.record.config)
            state, resumed = _latest(setup, run, run.last_step)
            recorder = _Recorder(setup, run, state, resumed)
            _drain(setup, state, recorder, observer, interrupted)
    return Trajectory.open(folder)


def densify(path: Path | str, start: int, stop: int, every: int = 1, observer: Observer | None = None) -> Trajectory:
    """Train steps `start` … `stop` of a run once more and add the checkpoints start, start + every, … to it.

    It begins at the latest resume state at or before `start` and adds only steps that the run lacks. Where it
    passes a checkpoint that exists, the bits must agree: at the first difference it raises GrokscopeError that
    names step, tensor and what drifted, and adds nothing more.
    """
    folder = Path(path)
    with deferred_signals() as interrupted, files.Lock(folder):
        files.remove_temporary(store.segments_folder(folder))
        run = store.Store(folder)
        if not (0 <= start <= stop <= run.last_step and every >= 1):
            raise GrokscopeError(
                f"densify: start {start}, stop {stop}, every {every}; allowed: 0 <= start <= stop <= "
                f"{run.last_step}, the last step of {folder}, and every from 1."
            )
        setup = Setup(run.record.config)
        state, _ = _latest(setup, run, start)
        wanted = set(range(start, stop + 1, every)) - set(run.steps.tolist())
        present = set(run.steps.tolist())
        steps: list[int] = []
        checkpoints: list[Mapping[str, np.ndarray]] = []

        def commit() -> None:
            if steps:
                run.commit(steps, checkpoints, coverage=None)
            steps.clear()
            checkpoints.clear()

        last = max((step for step in wanted), default=-1)
        updates = optimize(setup, state)
        while state.step <= last:
            if state.step in present:
                _compare(run, state)
            if state.step in wanted:
                steps.append(state.step)
                checkpoints.append(_as_arrays(state.parameters))
            if len(steps) >= _SEGMENT_CHECKPOINTS:
                commit()
            if interrupted():
                commit()
                raise Interrupted(folder, interrupted())
            if observer:
                observer(state.step, {})
            if state.step == last:
                break
            next(updates)
        commit()
    return Trajectory.open(folder)


def disk_use(setup: Setup) -> int:
    """Estimate the bytes that a run's fixed checkpoints and their resume states take on disk."""
    n_bytes = 4 * sum(math.prod(shape) for shape in setup.model.shapes.values())
    n_fixed = len(schedule.parse(setup.config.checkpoints).fixed_steps(setup.config.n_steps))
    per_segment = min(_SEGMENT_CHECKPOINTS, max(_SEGMENT_BYTES // n_bytes, 1))
    # A resume state holds the parameters and two moments of each.
    return n_bytes * (n_fixed + 3 * -(-n_fixed // per_segment))


def checked_name(name: str) -> str:
    """Return a run's name; raise GrokscopeError if it is none: a name is no path and hides no folder."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,99}", name):
        raise GrokscopeError(
            f"{name[:120]!r} is no name for a run; allowed: up to 100 letters, digits and _ . + = -, the first a "
            f"letter, digit or _."
        )
    return name


def free_name(base: str, root: Path) -> str:
    """Return `base`, or the first of base-2, base-3, … that is no folder in `root`."""
    name, number = base, 1
    while (root / name).exists():
        number += 1
        name = f"{base}-{number}"
    return name


def _drain(
    setup: Setup,
    state: State,
    recorder: _Recorder,
    observer: Observer | None,
    interrupted: Callable[[], int],
) -> None:
    remaining = setup.config.n_steps - state.step
    try:
        for _ in islice(optimize(setup, state), remaining):
            recorder.observe(state)
            if observer:
                observer(state.step, recorder.row)
            if interrupted():
                recorder.commit(state)
                raise Interrupted(recorder.folder, interrupted())
    except NotFinite as error:
        recorder.commit(state, resumable=error.weights_are_finite)
        raise
    recorder.commit(state)


def _prepare_to_resume(run: store.Store, n_steps: int | None, allow_drift: bool) -> None:
    """Bring the record up to date: a new length, an accepted drift; raise GrokscopeError for one not accepted."""
    record, step = run.record, run.last_step
    drift = environment.drift(record.environment, environment.present(record.config.device))
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
        here = environment.present(record.config.device)
        store.Record(config, here, record.data_digest, tuple(history)).write(run.folder)


def _latest(setup: Setup, run: store.Store, step: int) -> tuple[State, Mapping[str, Tensor] | None]:
    """Return the latest state at or before `step` that can be read, and the resume state that it comes from."""
    reasons = list(run.damaged)
    for segment in reversed(run.resume_points()):
        if (segment.resume_step or 0) <= step:
            try:
                resumed = {name: torch.from_numpy(array) for name, array in segment.resume_state().items()}
                return setup.state(resumed), resumed
            except GrokscopeError as error:
                reasons.append(str(error))
    raise GrokscopeError(f"{run.folder} has no readable resume state. {' '.join(reasons)}".strip())


def _compare(run: store.Store, state: State) -> None:
    saved = run.read(state.parameters, [state.step])
    for name, array in _as_arrays(state.parameters).items():
        if array.tobytes() != saved[name][0].tobytes():
            here = environment.present(run.record.config.device)
            drift = environment.drift(run.record.environment, here)
            raise GrokscopeError(
                f"Training {run.folder} once more gives other bits at step {state.step}, first in {name}; "
                f"nothing more is added. What drifted: {'; '.join(drift) or 'nothing that is recorded'}."
            )


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().to("cpu", copy=True).numpy() for name, tensor in tensors.items()}


def _require_finite(step: int, tensors: Mapping[str, Tensor], *, weights_are_finite: bool) -> None:
    total = torch.nn.utils.get_total_norm(list(tensors.values()))
    if torch.isfinite(total):
        return
    # The norm of finite numbers may overflow: only the elements decide.
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise NotFinite(name, step, step - 1, weights_are_finite=weights_are_finite)


def _device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise GrokscopeError(
            f"device: {name!r} is not there; this machine has {torch.cuda.device_count()} CUDA devices, and 'cpu'."
        )
    return device
