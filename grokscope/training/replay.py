"""Witnesses: what a run has saved, to which training it once more must come, bit for bit."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress

import numpy as np

from grokscope import environment
from grokscope.errors import GrokscopeError
from grokscope.store import verify
from grokscope.store.run_store import RunStore
from grokscope.training.checkpointer import as_arrays
from grokscope.training.loop import State


class Witnesses:
    """The parameters that a run has saved, as checkpoints or to resume from; those that are damaged say nothing."""

    def __init__(self, run: RunStore, damaged: Collection[int]):
        self._run = run
        resumable = {one.resume_step for one in run.resume_points() if one.resume_step is not None}
        self.steps: set[int] = resumable | (set(run.steps.tolist()) - set(damaged))

    def confirm(self, state: State) -> bool:
        """Return whether there is a witness of this step that can be read, and agrees to the bit.

        Raise GrokscopeError that names step and tensor, and what drifted, if one does not agree.
        """
        found = False
        for saved in self._saved(state) if state.step in self.steps else ():
            found = True
            for name, array in as_arrays(state.parameters).items():
                if array.tobytes() != saved[name].tobytes():
                    here = environment.present(self._run.record.config.device)
                    drift = environment.drift(self._run.record.environment, here)
                    what = "; ".join(drift) or "nothing that is recorded"
                    raise GrokscopeError(
                        f"Training {self._run.folder} once more gives other bits at step {state.step}, first in "
                        f"{name}; nothing more is added. What drifted: {what}."
                    )
        return found

    def require_later(self, step: int) -> None:
        """Raise GrokscopeError if training that has come to `step` will not come to any other witness."""
        if step >= max(self.steps):
            raise GrokscopeError(
                f"{self._run.folder}: to the last step, {step}, nothing more can be read that would confirm what was "
                f"trained once more; nothing more is added. {' '.join(fault.sentence for fault in verify.faults(self._run))}".strip()
            )

    def _saved(self, state: State) -> Iterator[Mapping[str, np.ndarray]]:
        if state.step in self._run.steps:
            with suppress(GrokscopeError):
                yield {name: one[0] for name, one in self._run.read(state.parameters, [state.step]).items()}
        for segment in self._run.resume_points():
            if segment.resume_step == state.step:
                with suppress(GrokscopeError, KeyError):
                    resumed = segment.resume_state()
                    yield {name: resumed[f"parameters/{name}"] for name in state.parameters}
