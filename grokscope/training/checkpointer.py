"""The recorder: which checkpoints and log rows a run takes, and when it commits them."""

import math
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from grokscope.config import checkpoint_schedule
from grokscope.store.run_store import RunStore
from grokscope.training.background_writer import Writer
from grokscope.training.loop import NotFiniteError, Row, Setup, State
from grokscope.training.optimizers import n_remembered

SEGMENT_CHECKPOINTS = 64
SEGMENT_BYTES = 2**26
SEGMENT_SECONDS = 30.0
"""A segment is committed when it reaches one of these. Nothing that is saved depends on where one ends."""


class Recorder:
    """Takes checkpoints and log rows as the schedule says, and commits them in segments while training goes on.

    Use as a context manager, more than once if need be: when the block ends, however it does, what was committed in
    it is on the disk, or GrokscopeError says why not.
    """

    def __init__(self, setup: Setup, run: RunStore, state: State, resumed: Mapping[str, Tensor] | None):
        self._setup, self._store, self._writer = setup, run, Writer()
        self._schedule = checkpoint_schedule.parse(setup.config.checkpoints)
        fixed = self._schedule.fixed_steps(setup.config.n_steps)
        self._fixed = set(fixed.tolist())
        self._adaptive_left = setup.config.max_checkpoints - len(fixed)
        self._reference = float(resumed["schedule/reference"]) if resumed else 1.0
        self._n_adaptive = int(resumed["schedule/n_adaptive"]) if resumed else 0
        # After a lost segment or a step that was not finite, some later steps are there already.
        self._have_checkpoints = set(run.steps.tolist())
        self._have_rows = set(run.log.rows[:, 0].astype(int).tolist())
        self._said_spent = False
        # Also of a fork, whose first segment answers for all that went before it.
        self._begin = state.step if run.segments else -1
        self._first = run.record.first_step
        self._steps: list[int] = []
        self._checkpoints: list[Mapping[str, np.ndarray]] = []
        self._rows: list[tuple[float, ...]] = []
        self._committed_at = time.monotonic()
        self.row: Row = {}

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.wait()

    def observe(self, state: State) -> None:
        """Evaluate, take a checkpoint and commit, each if it is time to; raise what has gone wrong with a commit."""
        self.take(state)
        if self.is_due:
            self.commit(state)

    def take(self, state: State) -> None:
        """Evaluate and take a checkpoint, each if it is time to; raise what has gone wrong with a commit."""
        self._writer.check()
        config, step, amount = self._setup.config, state.step, self._schedule.adaptive
        wanted = step in self._fixed
        evaluated = step % config.evaluate_every == 0 or step == config.n_steps
        # Where a fork begins is kept and evaluated too, but its schedule goes on as its origin's: for that it is a
        # step like others.
        begins, is_for_schedule = step == self._first, evaluated or bool(wanted and amount)
        row = self._setup.evaluate(state) if begins or is_for_schedule else {}
        if evaluated or begins:
            self.row = row
            if step not in self._have_rows:
                self._rows.append((float(step), *row.values()))
        if is_for_schedule:
            # Below the smallest normal number a loss has no meaningful logarithm.
            test_loss = max(row["test_loss"], float(np.finfo(np.float64).tiny))
            if amount and not wanted and abs(np.log(test_loss / self._reference)) >= amount:
                wanted = self._n_adaptive < self._adaptive_left
                self._n_adaptive += wanted
                if not wanted and not self._said_spent:
                    self._said_spent = True
                    warnings.warn(
                        f"At step {step} the adaptive schedule has taken all that max_checkpoints = "
                        f"{config.max_checkpoints:,} leaves it, and takes no more.",
                        stacklevel=2,
                    )
            if wanted:
                self._reference = test_loss
        if (wanted or begins) and step not in self._have_checkpoints:
            self._steps.append(step)
            self._checkpoints.append(as_arrays(state.parameters))

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._store.folder

    @property
    def has_taken(self) -> bool:
        """Whether there are checkpoints or rows of the log that were taken since the last commit."""
        return bool(self._steps or self._rows)

    @property
    def n_bytes(self) -> int:
        """The bytes of the checkpoints that were taken since the last commit."""
        return len(self._checkpoints) * sum(array.nbytes for one in self._checkpoints[:1] for array in one.values())

    @property
    def is_due(self) -> bool:
        """Whether it is time to commit."""
        return (
            len(self._checkpoints) >= SEGMENT_CHECKPOINTS
            or self.n_bytes >= SEGMENT_BYTES
            or time.monotonic() - self._committed_at >= SEGMENT_SECONDS
        )

    def resume_state(self, state: State) -> dict[str, Tensor]:
        """Return all that going on from here exactly needs; the parameters are live, the rest are copies."""
        return {
            "step": torch.tensor(state.step),
            "schedule/reference": torch.tensor(self._reference, dtype=torch.float64),
            "schedule/n_adaptive": torch.tensor(self._n_adaptive),
            **{f"parameters/{name}": tensor.detach() for name, tensor in state.parameters.items()},
            **{f"optimizer/{name}": tensor for name, tensor in state.optimizer.state().items()},
        }

    def commit(
        self, state: State, *, resumable: bool = True, initialization: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Begin to write what was taken since the last commit as one segment, with a resume state if `resumable`.

        A fork's first segment also holds its `initialization`, the parameters of step 0. Wait for the segment before,
        and raise what went wrong with it: after a segment that is lost none may follow.
        """
        if not self.has_taken and state.step == self._begin:
            return
        resume = as_arrays(self.resume_state(state)) if resumable else None
        self._require_finite(resume or {}, state.step)
        # All that the writer gets are copies, or lists that nobody else will touch.
        segment = partial(
            self._store.commit,
            self._steps,
            self._checkpoints,
            coverage=(self._begin, state.step),
            log=self._rows,
            resume=resume,
            initialization=initialization,
        )
        self._writer.begin(segment)
        self._begin = state.step
        self._steps, self._checkpoints, self._rows = [], [], []
        self._committed_at = time.monotonic()

    def _require_finite(self, resume: Mapping[str, np.ndarray], step: int) -> None:
        """Raise NotFiniteError for what the optimizer remembers: an infinite second moment stops a weight without a word.

        A gradient filter's ring may have places that are no number yet.
        """
        for name, array in resume.items():
            is_of_optimizer = name.startswith("optimizer/") and not name.startswith("optimizer/filter/")
            if is_of_optimizer and not np.isfinite(array).all():
                what, last = name.removeprefix("optimizer/"), max(self._begin, self._first)
                # Since when is not known: what was taken since the last commit may have been made with it.
                self._steps, self._checkpoints, self._rows = [], [], []
                raise NotFiniteError(f"The optimizer's {what}", step, last, resumable=False)


def disk_use(setup: Setup) -> int:
    """Estimate the bytes that a run's fixed checkpoints and their resume states take on disk."""
    n_bytes = 4 * sum(math.prod(shape) for shape in setup.model.shapes.values())
    n_fixed = len(checkpoint_schedule.parse(setup.config.checkpoints).fixed_steps(setup.config.n_steps))
    per_segment = min(SEGMENT_CHECKPOINTS, max(SEGMENT_BYTES // n_bytes, 1))
    # A resume state holds the parameters and what the optimizer remembers of each.
    n_kept = 1 + n_remembered(setup.config.optimizer)
    return n_bytes * (n_fixed + n_kept * -(-n_fixed // per_segment))


def as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return copies of tensors as NumPy arrays, so that training can go on changing them."""
    return {name: tensor.detach().to("cpu", copy=True).numpy() for name, tensor in tensors.items()}
