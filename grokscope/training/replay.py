"""Replay: check that retraining reproduces every saved state bit for bit."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

import numpy as np

from grokscope import environment
from grokscope.errors import GrokscopeError
from grokscope.store import verify
from grokscope.store.run_store import RunStore
from grokscope.training.checkpointer import as_arrays
from grokscope.training.state import State


class ReplayCheck:
    """Compares retrained states with the parameters that a run has saved, in checkpoints and in resume states.

    Args:
        run: The store of the run that is retrained.
        n_threads: The number of threads that retraining uses.

    Attributes:
        steps: The steps with saved parameters, whether or not they turn out to be damaged.
    """

    def __init__(self, run: RunStore, n_threads: int):
        self._run, self._n_threads = run, n_threads
        resumable = {segment.resume_step for segment in run.resume_points() if segment.resume_step is not None}
        self.steps: set[int] = resumable | set(run.steps.tolist())

    def confirm(self, state: State) -> bool:
        """Compare a state with all readable parameters saved at its step, bit for bit.

        Args:
            state: A retrained state.

        Returns:
            Whether any readable parameters are saved at this step.

        Raises:
            GrokscopeError: The bits differ. The error names the step, the first tensor, and how the environment
                differs.
        """
        is_confirmed = False
        for saved in self._saved(state) if state.step in self.steps else ():
            is_confirmed = True
            for name, array in as_arrays(state.parameters).items():
                if array.tobytes() != saved[name].tobytes():
                    recorded = self._run.record.environment
                    present = environment.describe(self._run.record.config.device, self._n_threads)
                    drift = environment.drift(recorded, present)
                    raise GrokscopeError(
                        f"Retraining {self._run.folder} gives other bits at step {state.step}, first in {name}. No "
                        f"further checkpoint is added. Differences in the environment: "
                        f"{'; '.join(drift) or 'none that is recorded'}."
                    )
        return is_confirmed

    def next_saved(self, step: int) -> int:
        """Return the first step from `step` on with saved parameters, where retraining ends if they are readable."""
        return min((saved for saved in self.steps if saved >= step), default=step)

    def require_later(self, step: int) -> None:
        """Raise GrokscopeError if no saved parameters follow `step`, so that nothing can confirm it any more."""
        if step >= max(self.steps):
            faults = " ".join(fault.sentence for fault in verify.faults(self._run))
            raise GrokscopeError(
                f"{self._run.folder}: no readable checkpoint or resume state, up to the last step {step}, confirms "
                f"the retrained steps. No further checkpoint is added. {faults}".strip()
            )

    def _saved(self, state: State) -> Iterator[Mapping[str, np.ndarray]]:
        """Yield the readable parameters saved at the step of a state."""
        if state.step in self._run.steps:
            with suppress(GrokscopeError):
                checkpoint = self._run.read(state.parameters, [state.step])
                yield {name: stacked[0] for name, stacked in checkpoint.items()}
        for segment in self._run.resume_points():
            if segment.resume_step == state.step:
                with suppress(GrokscopeError, KeyError):
                    resume_state = segment.resume_state()
                    yield {name: resume_state[f"parameters/{name}"] for name in state.parameters}
