"""Damage: what `grokscope verify` finds in a run, and for each find what truly helps. No torch here."""

import math
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from grokscope import schedule
from grokscope.segment import CHECKPOINTS, Segment

if TYPE_CHECKING:
    import grokscope.store

_Bad = dict[tuple[Path, int], list[str]]
"""The names of damaged parameters by segment and row."""


@dataclass(frozen=True)
class Fault:
    """Something that is damaged or lost."""

    sentence: str
    remedy: str = ""
    """What helps against it, if anything does."""
    is_mended: bool = False
    """Whether all that can be had again is there again."""


def faults(run: "grokscope.store.Store") -> Iterator[Fault]:
    """Read everything and yield all that is damaged or lost, with what helps against it."""
    bad: _Bad = {}
    others = []
    for segment in run.segments:
        for name, row in segment.file.damage():
            if row is None:
                others.append(f"{segment.path.name}: {name} does not match its checksum")
            else:
                bad.setdefault((segment.path, row), []).append(name.removeprefix(CHECKPOINTS))
    gaps = [_of_gap(run, *gap) for gap in run.gaps]
    is_whole = all(gap.is_mended for gap in gaps)
    for sentence in run.damaged:
        yield Fault(sentence, _of_segment(run, sentence, is_whole))
    for segment in run.segments:
        yield from _of_checkpoints(run, segment, bad)
    yield from map(Fault, others)
    yield from gaps


def again(run: "grokscope.store.Store", steps: Iterable[int]) -> str:
    """Say how the checkpoints of these steps, which are lost, are had again."""
    steps = sorted(steps)
    named = f"step{'s' * (len(steps) > 1)} {steps[0]:,}" + f" to {steps[-1]:,}" * (len(steps) > 1)
    if run.record.imported:
        return f"The run was imported, so nothing trains {named} once more; its files can be imported anew."
    if not run.segments:
        return "Nothing is left that training could go on from."
    if steps[0] > run.last_step:
        return f"`grokscope resume {shlex.quote(str(run.folder))}` trains {named} once more."
    starts = [one.resume_step for one in run.segments if one.resume_step is not None]
    origin = run.record.origin
    if origin and not any(start <= steps[0] for start in starts):
        return (
            f"Nothing is left that leads to {named}; a new fork of {origin['run']} at step {origin['step']:,}, with "
            f"the same settings, trains all of it once more."
        )
    every = math.gcd(*np.diff(steps).tolist())
    spacing = f" --every {every}" if every > 1 else ""
    command = f"grokscope densify {shlex.quote(str(run.folder))} --start {steps[0]} --stop {steps[-1]}{spacing}"
    return f"`{command}` trains {named} once more and adds the checkpoint{'s' * (len(steps) > 1)}."


def _of_segment(run: "grokscope.store.Store", sentence: str, is_whole: bool) -> str:
    """Say what helps against a segment that cannot be read; `is_whole` if nothing that it may have had is missing."""
    if sentence in run.refused:
        return "What cannot be opened need not be damaged: let it be read, and verify again."
    if run.record.imported or not run.segments or not is_whole:
        return ""
    if run.last_step < run.record.config.n_steps:
        return f"`grokscope resume {shlex.quote(str(run.folder))}` trains what is missing at the end once more."
    return (
        "All checkpoints that the schedule fixes are there. A file that is no segment, or none any more, can be kept "
        "elsewhere: moved out of the run's folder it is not looked at again."
    )


def _of_checkpoints(run: "grokscope.store.Store", segment: Segment, bad: _Bad) -> Iterator[Fault]:
    """Yield what is damaged of a segment's checkpoints; one that another segment has whole is mended."""
    rows = [row for path, row in bad if path == segment.path]
    twins = {
        row: [
            other.path.name
            for other in run.segments
            if segment.steps[row] in other.steps and (other.path, other.steps.index(segment.steps[row])) not in bad
        ]
        for row in rows
    }
    lost = [segment.steps[row] for row in rows if not twins[row]]
    for row in rows:
        for name in bad[segment.path, row]:
            sentence = f"{segment.path.name}: step {segment.steps[row]}, {name} does not match its checksum"
            if twins[row]:
                yield Fault(f"{sentence}; {twins[row][-1]} has this checkpoint whole", is_mended=True)
            else:
                yield Fault(sentence, again(run, lost))


def _of_gap(run: "grokscope.store.Store", first: int, last: int) -> Fault:
    """Return what is to be said of a stretch of training that no segment covers.

    It is mended if all checkpoints are there that the schedule fixes there: what then is lost is lost for good.
    """
    sentence = f"steps {first} to {last}: no readable segment covers them"
    if run.record.imported or not run.segments or first > run.last_step:
        return Fault(sentence, again(run, [first, last]))
    taken = _scheduled(run, first, last)
    lacking = sorted(taken - set(run.steps.tolist()))
    if lacking:
        return Fault(sentence, again(run, lacking))
    there = f"; all {len(taken):,} checkpoints that the schedule fixes there are here again" if taken else ""
    adaptive = " and adaptive checkpoints" if schedule.parse(run.record.config.checkpoints).adaptive else ""
    return Fault(f"{sentence}{there}; rows of the log{adaptive} that were there are lost", is_mended=True)


def _scheduled(run: "grokscope.store.Store", first: int, last: int) -> set[int]:
    """Return the checkpoints that the schedule has in a stretch, under each length that the run has had."""
    config = run.record.config
    plan = schedule.parse(config.checkpoints)
    lengths = [
        (event["step"], event["from"])
        for event in run.record.history
        if event["event"] == "lengthened" and type(event.get("step")) is int and type(event.get("from")) is int
    ]
    found, before = {run.record.first_step} & {first}, -1
    for end, n_steps in [*lengths, (last, config.n_steps)]:
        if 0 < n_steps <= config.n_steps and plan.largest_term(n_steps) <= config.max_checkpoints:
            found |= {step for step in plan.fixed_steps(n_steps).tolist() if before < step <= end}
        before = end
    return {step for step in found if first <= step <= last}
