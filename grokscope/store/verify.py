"""What is damaged or lost in a run, and what helps. No torch here."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from grokscope.config import checkpoint_schedule
from grokscope.errors import DamagedError, GrokscopeError, UnreadableError
from grokscope.store.remedies import recovery_advice
from grokscope.store.run_store import RunStore
from grokscope.store.segment import CHECKPOINTS, Segment

_DamagedParameters = dict[tuple[Path, int], list[str]]
"""The names of damaged parameters by segment and row."""


@dataclass(frozen=True)
class Fault:
    """Something that is damaged or lost."""

    sentence: str
    remedy: str = ""
    """The sentence that says what helps; empty if nothing does."""
    is_mended: bool = False
    """Whether everything that can be recovered is already stored again."""


def faults(run: RunStore) -> Iterator[Fault]:
    """Read everything and yield each fault, with what helps."""
    damaged: _DamagedParameters = {}
    others = []
    for segment in run.segments:
        for name, row in segment.file.damage():
            if row is None:
                others.append(f"{segment.path.name}: {name} does not match its checksum")
            else:
                damaged.setdefault((segment.path, row), []).append(name.removeprefix(CHECKPOINTS))
    gaps = [_gap_fault(run, *gap) for gap in run.gaps]
    is_complete = all(gap.is_mended for gap in gaps)
    for error in run.faults:
        yield Fault(str(error), _segment_remedy(run, error, is_complete))
    for segment in run.segments:
        yield from _checkpoint_faults(run, segment, damaged)
    yield from map(Fault, others)
    yield from gaps


def advice(run: RunStore, steps: Iterable[int]) -> str:
    """Return the sentence that says how the lost checkpoints of these steps are recovered."""
    resume_steps = [segment.resume_step for segment in run.segments if segment.resume_step is not None]
    return recovery_advice(run.folder, run.record, run.last_step, resume_steps, list(steps))


def explained(error: DamagedError) -> str:
    """Return the message of a DamagedError, followed by the advice where a checkpoint of a run is damaged."""
    if error.path is None or error.step is None:
        return str(error)
    try:
        return f"{error} {advice(RunStore(error.path.parent.parent), [error.step])}"
    except GrokscopeError:
        return str(error)


def _segment_remedy(run: RunStore, error: GrokscopeError, is_complete: bool) -> str:
    """Return what helps if a segment cannot be read; `is_complete` if no scheduled checkpoint is missing."""
    if isinstance(error, UnreadableError):
        return "The file need not be damaged: make it readable, and verify again."
    if run.record.imported or not run.segments or not is_complete:
        return ""
    if run.last_step < run.end_step:
        return f"`grokscope resume {shlex.quote(str(run.folder))}` recomputes what is missing at the end."
    return (
        "All checkpoints that the schedule fixes are stored. A file that is not a segment can be moved out of the "
        "run's folder; grokscope then ignores it."
    )


def _checkpoint_faults(run: RunStore, segment: Segment, damaged: _DamagedParameters) -> Iterator[Fault]:
    """Yield the faults of a segment's checkpoints; a checkpoint with an undamaged copy elsewhere is mended."""
    rows = [row for path, row in damaged if path == segment.path]
    twins = {
        row: [
            other.path.name
            for other in run.segments
            if segment.steps[row] in other.steps
            and (other.path, other.steps.index(segment.steps[row])) not in damaged
        ]
        for row in rows
    }
    lost = [segment.steps[row] for row in rows if not twins[row]]
    for row in rows:
        for name in damaged[segment.path, row]:
            sentence = f"{segment.path.name}: step {segment.steps[row]}, {name} does not match its checksum"
            if twins[row]:
                yield Fault(f"{sentence}; {twins[row][-1]} has an undamaged copy", is_mended=True)
            else:
                yield Fault(sentence, advice(run, lost))


def _gap_fault(run: RunStore, first: int, last: int) -> Fault:
    """Return the fault of a stretch of training that no segment covers.

    It is mended if all checkpoints that the schedule fixes in the stretch are stored: nothing else can be recovered.
    """
    sentence = f"steps {first} to {last}: no readable segment covers them"
    if run.record.imported or not run.segments or first > run.last_step:
        return Fault(sentence, advice(run, [first, last]))
    scheduled = _scheduled(run, first, last)
    missing = sorted(scheduled - set(run.steps.tolist()))
    if missing:
        return Fault(sentence, advice(run, missing))
    stored = f"; all {len(scheduled):,} checkpoints that the schedule fixes there are stored" if scheduled else ""
    adaptive = (
        " and adaptive checkpoints" if checkpoint_schedule.parse(run.record.config.checkpoints).adaptive else ""
    )
    return Fault(f"{sentence}{stored}; their log rows{adaptive} are lost", is_mended=True)


def _scheduled(run: RunStore, first: int, last: int) -> set[int]:
    """Return the scheduled checkpoints of a stretch, under each length that the run has had."""
    config = run.record.config
    schedule = checkpoint_schedule.parse(config.checkpoints)
    lengths = [
        (event["step"], event["from"])
        for event in run.record.history
        if event["event"] == "lengthened" and type(event.get("step")) is int and type(event.get("from")) is int
    ]
    steps, before = {run.record.first_step} & {first}, -1
    for end, n_steps in [*lengths, (last, config.n_steps)]:
        if 0 < n_steps <= config.n_steps and schedule.largest_term(n_steps) <= config.max_checkpoints:
            steps |= {step for step in schedule.fixed_steps(n_steps).tolist() if before < step <= end}
        before = end
    return {step for step in steps if first <= step <= last}
