"""`densify`: more checkpoints after the fact, by training a stretch of a run again."""

import math
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from grokscope.disk import atomic
from grokscope.errors import GrokscopeError
from grokscope.store.run_store import RunStore, segments_folder
from grokscope.training.background_writer import Writer
from grokscope.training.checkpointer import SEGMENT_BYTES, SEGMENT_CHECKPOINTS, as_arrays
from grokscope.training.loop import Setup, State, optimize
from grokscope.training.replay import Witnesses
from grokscope.training.run import Observer, latest, require_trained, writing
from grokscope.training.signals import InterruptedRunError, deferred_signals
from grokscope.trajectory import Trajectory


def densify(path: Path | str, start: int, stop: int, every: int = 1, observer: Observer | None = None) -> Trajectory:
    """Train steps `start` … `stop` of a run once more and add the checkpoints start, start + every, … to it.

    It begins at the latest resume state at or before `start`, or at initialization where none is left, and adds only
    steps that the run lacks, or whose checkpoints are damaged. Whatever it
    passes that was saved before and can be read, a checkpoint or a resume state, must agree to the bit, and a new
    checkpoint is added only once training has reached the next of these: at the first difference it raises
    GrokscopeError that names step, tensor and what drifted, and adds nothing more. What waits to be confirmed waits
    on the disk, under a hidden name, but for about a segment.
    """
    folder = Path(path)
    require_trained(RunStore(folder))
    with deferred_signals() as interrupted, writing(folder) as run, Writer() as writer:
        first = run.record.first_step
        if not (first <= start <= stop <= run.last_step and every >= 1):
            raise GrokscopeError(
                f"densify: start {start}, stop {stop}, every {every}; allowed: {first} <= start <= stop <= "
                f"{run.last_step}, the last step of {folder}, and every from 1."
            )
        setup = Setup(run.record.config)
        state = _before(setup, run, start)
        requested = set(range(start, stop + 1, every))
        damaged = run.damage(requested & set(run.steps.tolist())).keys()
        wanted = requested - set(run.steps.tolist()) | damaged
        witnesses, n_bytes = (
            Witnesses(run, damaged),
            4 * sum(math.prod(shape) for shape in setup.model.shapes.values()),
        )
        limit, confirmed = min(SEGMENT_CHECKPOINTS, max(SEGMENT_BYTES // n_bytes, 1)), -1
        taken: dict[int, Mapping[str, np.ndarray]] = {}
        hidden: list[list[int]] = []
        try:
            for _ in chain([state], optimize(setup, state)) if wanted else ():
                if state.step in wanted:
                    taken[state.step] = as_arrays(state.parameters)
                if witnesses.confirm(state):
                    confirmed = state.step
                    while hidden:
                        writer.begin(partial(run.reveal, hidden.pop(0)))
                stopped, is_done = interrupted(), confirmed >= max(wanted)
                if stopped or is_done:
                    taken = {step: one for step, one in taken.items() if step <= confirmed}
                if len(taken) >= limit or (taken and (stopped or is_done)):
                    for is_hidden in (False, True):
                        steps = [step for step in taken if (step > confirmed) == is_hidden]
                        if steps:
                            some = [taken.pop(step) for step in steps]
                            writer.begin(partial(run.commit, steps, some, coverage=None, hidden=is_hidden))
                            hidden += [steps] * is_hidden
                writer.check()
                if observer:
                    observer(state.step, {})
                if stopped:
                    raise InterruptedRunError(folder, stopped)
                if is_done:
                    break
                witnesses.require_later(state.step)
        finally:
            with suppress(GrokscopeError):  # It is raised at the end of the writer's block.
                writer.wait()
            atomic.remove_temporary(segments_folder(folder))
    return Trajectory.open(folder)


def _before(setup: Setup, run: RunStore, step: int) -> State:
    """Return the latest state at or before `step`, where none can be read the initialization; a fork has no other."""
    try:
        return latest(setup, run, step)[0]
    except GrokscopeError:
        if run.record.origin:
            raise
        return setup.state()
