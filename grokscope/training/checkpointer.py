"""The checkpointer: which checkpoints and log rows a run takes, and when it commits them."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from grokscope.config import checkpoint_schedule
from grokscope.config.stop_rule import StopWatch
from grokscope.store.run_store import LOG_COLUMNS, RunStore
from grokscope.training.background_writer import BackgroundWriter
from grokscope.training.evaluation import Row
from grokscope.training.loop import Setup
from grokscope.training.optimizers import n_values_per_parameter
from grokscope.training.state import NotFiniteError, State

SEGMENT_CHECKPOINTS = 64
SEGMENT_BYTES = 2**26
SEGMENT_SECONDS = 30.0
"""A segment is committed when it reaches one of these limits. Saved data do not depend on where a segment ends."""
_SMALLEST_LOSS = float(np.finfo(np.float64).tiny)
"""The smallest normal float64; a smaller loss has no meaningful logarithm."""


class Checkpointer:
    """Takes checkpoints and log rows as the schedule says, and commits them in segments while training continues.

    Use it as a context manager; the block may be entered repeatedly. At the end of the block every commit in it is on
    the disk, or GrokscopeError gives the reason.

    Args:
        store: The run's store, with its lock held.
        evaluate: Returns the log row of a state; raises NotFiniteError if a loss is not finite.
        state: The state from which training starts or resumes.
        resume_state: The resume state that `state` comes from; None at initialization.

    Attributes:
        latest_row: The latest row of the log; empty before the first evaluation.
    """

    def __init__(
        self,
        store: RunStore,
        evaluate: Callable[[State], Row],
        state: State,
        resume_state: Mapping[str, Tensor] | None = None,
    ):
        self._store, self._evaluate, self._writer = store, evaluate, BackgroundWriter()
        self._config = store.record.config
        self._schedule = checkpoint_schedule.parse(self._config.checkpoints)
        fixed = self._schedule.fixed_steps(self._config.n_steps)
        self._fixed = set(fixed.tolist())
        self._max_adaptive = self._config.max_checkpoints - len(fixed)
        self._reference = float(resume_state["schedule/reference"]) if resume_state else 1.0
        self._n_adaptive = int(resume_state["schedule/n_adaptive"]) if resume_state else 0
        self._stop_watch = StopWatch(self._config.stop)
        if resume_state and self._config.stop:
            since, stop_step = resume_state["stop/since"].tolist(), int(resume_state["stop/step"])
            self._stop_watch = StopWatch(self._config.stop, since, stop_step)
        # A run that is continued beyond its stop does not stop again.
        self._past_stop = self._stop_watch.step
        # After a lost segment or a NotFiniteError, some later steps are already stored.
        self._stored_checkpoints = set(store.steps.tolist())
        self._stored_rows = set(store.log.rows[:, 0].astype(int).tolist())
        self._has_warned = False
        # The first segment covers everything before it, also in a fork.
        self._begin = state.step if store.segments else -1
        self._first_step = store.record.first_step
        self._steps: list[int] = []
        self._checkpoints: list[Mapping[str, np.ndarray]] = []
        self._rows: list[tuple[float, ...]] = []
        self._log_columns: tuple[str, ...] = ()
        self._committed_at = time.monotonic()
        self.latest_row: Row = {}

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.wait()

    def take_and_commit(self, state: State) -> None:
        """Take a state, then commit if a segment is full; raise the failure of an earlier commit."""
        self.take(state)
        if self.is_commit_due:
            self.commit(state)

    def take(self, state: State) -> None:
        """Evaluate a state and take a checkpoint, each if it is due; raise the failure of an earlier commit."""
        self._writer.raise_failure()
        step = state.step
        is_fixed, is_first = step in self._fixed, step == self._first_step
        is_evaluated = step % self._config.evaluate_every == 0 or step == self._config.n_steps
        # A fork stores its first step, but its schedule continues as its origin's, where that step is not special.
        is_scheduled = is_evaluated or bool(is_fixed and self._schedule.adaptive)
        if is_first or is_scheduled or is_fixed:
            state.require_finite()
        row = self._evaluate(state) if is_first or is_scheduled else {}
        if is_evaluated or is_first:
            self.latest_row = row
            if step not in self._stored_rows:
                self._rows.append((float(step), *row.values()))
                self._log_columns = tuple(row)[len(LOG_COLUMNS) - 1 :]
        # Only multiples of `evaluate_every` count: a longer run is not evaluated at a shorter run's last step.
        if is_evaluated and step % self._config.evaluate_every == 0:
            self._stop_watch.update(step, row)
        is_checkpoint = self._apply_schedule(step, row["test_loss"], is_fixed) if is_scheduled else is_fixed
        if (is_checkpoint or is_first or self.has_stopped(step)) and step not in self._stored_checkpoints:
            self._steps.append(step)
            self._checkpoints.append(as_arrays(state.parameters))

    def _apply_schedule(self, step: int, test_loss: float, is_fixed: bool) -> bool:
        """Return whether an evaluated step is a checkpoint; if it is, its test loss becomes the reference."""
        test_loss = max(test_loss, _SMALLEST_LOSS)
        is_checkpoint, threshold = is_fixed, self._schedule.adaptive
        if threshold and not is_fixed and abs(np.log(test_loss / self._reference)) >= threshold:
            is_checkpoint = self._n_adaptive < self._max_adaptive
            self._n_adaptive += is_checkpoint
            if not is_checkpoint:
                self._warn_about_limit(step)
        if is_checkpoint:
            self._reference = test_loss
        return is_checkpoint

    def _warn_about_limit(self, step: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"The adaptive schedule takes no checkpoints from step {step} on: max_checkpoints = "
                f"{self._config.max_checkpoints:,} is reached.",
                stacklevel=2,
            )

    def has_stopped(self, step: int) -> bool:
        """Return whether the run's rule ends it at this step, which `take` must have seen."""
        return self._stop_watch.step == step != self._past_stop

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._store.folder

    @property
    def has_uncommitted(self) -> bool:
        """Whether checkpoints or log rows were taken since the last commit."""
        return bool(self._steps or self._rows)

    @property
    def n_uncommitted_bytes(self) -> int:
        """The bytes of the checkpoints that were taken since the last commit."""
        if not self._checkpoints:
            return 0
        return len(self._checkpoints) * sum(array.nbytes for array in self._checkpoints[0].values())

    @property
    def is_commit_due(self) -> bool:
        """Whether the segment has reached a limit."""
        return (
            len(self._checkpoints) >= SEGMENT_CHECKPOINTS
            or self.n_uncommitted_bytes >= SEGMENT_BYTES
            or time.monotonic() - self._committed_at >= SEGMENT_SECONDS
        )

    def resume_state(self, state: State) -> dict[str, Tensor]:
        """Return everything that an exact resume needs; the parameters are live tensors, the others are copies."""
        stop = {"stop/since": torch.tensor(self._stop_watch.since), "stop/step": torch.tensor(self._stop_watch.step)}
        return {
            "step": torch.tensor(state.step),
            "schedule/reference": torch.tensor(self._reference, dtype=torch.float64),
            "schedule/n_adaptive": torch.tensor(self._n_adaptive),
            **(stop if self._config.stop else {}),
            **{f"parameters/{name}": tensor.detach() for name, tensor in state.parameters.items()},
            **{f"optimizer/{name}": tensor for name, tensor in state.optimizer.state().items()},
        }

    def commit(
        self, state: State, *, resumable: bool = True, initialization: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Start to write everything taken since the last commit as one segment.

        Nothing is written if there is nothing new. A call waits for the previous segment: no segment may follow a
        lost one, because a resume from it would leave the gap forever.

        Args:
            state: The present state.
            resumable: Whether the segment gets a resume state; False if the state is not finite.
            initialization: The parameters of step 0, which a fork's first segment contains.

        Raises:
            GrokscopeError: The previous segment could not be written.
            NotFiniteError: The optimizer's state is not finite.
        """
        if not self.has_uncommitted and state.step == self._begin:
            return
        state.require_finite()
        resume_state = as_arrays(self.resume_state(state)) if resumable else None
        self._require_finite(resume_state or {}, state.step)
        # The writer gets copies, and lists that nothing else changes.
        write = partial(
            self._store.commit,
            self._steps,
            self._checkpoints,
            coverage=(self._begin, state.step),
            log=self._rows,
            log_columns=self._log_columns,
            resume=resume_state,
            initialization=initialization,
        )
        self._writer.submit(write)
        self._begin = state.step
        self._steps, self._checkpoints, self._rows = [], [], []
        self._committed_at = time.monotonic()

    def _require_finite(self, resume_state: Mapping[str, np.ndarray], step: int) -> None:
        """Raise NotFiniteError if the optimizer's state is not finite, and drop what was taken since the last commit.

        An infinite second moment would stop a weight without any other sign. NaN in a gradient filter's ring is
        valid: there it means "no gradient yet".
        """
        for name, array in resume_state.items():
            is_checked = name.startswith("optimizer/") and not name.startswith("optimizer/filter/")
            if is_checked and not np.isfinite(array).all():
                # The fault's first step is unknown, so anything taken since the last commit may depend on it.
                self._steps, self._checkpoints, self._rows = [], [], []
                last_finite = max(self._begin, self._first_step)
                raise NotFiniteError(
                    f"The optimizer's {name.removeprefix('optimizer/')}", step, last_finite, resumable=False
                )


def estimate_disk_use(setup: Setup) -> int:
    """Return about how many bytes the fixed checkpoints of a run and their resume states take on disk."""
    n_bytes = 4 * sum(math.prod(shape) for shape in setup.model.shapes.values())
    n_fixed = len(checkpoint_schedule.parse(setup.config.checkpoints).fixed_steps(setup.config.n_steps))
    n_per_segment = min(SEGMENT_CHECKPOINTS, max(SEGMENT_BYTES // n_bytes, 1))
    # A resume state contains the parameters, and the optimizer's values for each of them.
    n_values = 1 + n_values_per_parameter(setup.config.optimizer)
    return n_bytes * (n_fixed + n_values * -(-n_fixed // n_per_segment))


def as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return copies of tensors as NumPy arrays, so that training can continue to change the tensors."""
    return {name: tensor.detach().to("cpu", copy=True).numpy() for name, tensor in tensors.items()}
