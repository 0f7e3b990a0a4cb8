"""A judge of how a run's files are met: the same data, or one GrokscopeError that names the file."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from grokscope import Trajectory, measures
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.store.run_store import Record, RunStore
from grokscope.training.loop import Setup
from grokscope.training.run import resumed_at

SLOWEST = 1.0
"""Seconds of the processor that a file may take."""


@dataclass
class Verdict:
    """What was said of a file, and how long it took."""

    refusals: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    missing: bool = False
    seconds: float = 0.0

    @property
    def word(self) -> str:
        """Whether it was the same data, refused, other data without a word, or data lost without a word."""
        if self.differing:
            return "other data"
        if self.missing and not self.refusals:
            return "lost without a word"
        return "refused" if self.refusals else "the same"


def everything(run: Path, refused: Callable[[str], None]) -> dict[Any, Any]:
    """Read all that a run says of itself, by all ways there are; only GrokscopeError is caught, and told."""
    found: dict[Any, Any] = {}

    def attempt(name: Any, read: Callable[[], Any]) -> Any:
        try:
            found[name] = read()
            return found[name]
        except GrokscopeError as error:
            refused(str(error))

    record = attempt("record", lambda: _record(Record.read(run)))
    store = attempt("store", lambda: RunStore(run))
    found.pop("store", None)
    attempt(("series", "loss"), lambda: _series(Series.load(run / "measures" / "loss.safetensors")))
    if record is None or store is None:
        return found
    for sentence in store.damage():
        refused(f"{store.folder / 'segments'}/{sentence}" if sentence[:1].isdigit() else sentence)
    trajectory = attempt("trajectory", lambda: Trajectory.of_store(store))
    found.pop("trajectory", None)
    if trajectory is None:
        return found
    for sentence in trajectory.damaged:
        refused(sentence)
    try:
        found |= {("checkpoint", one.step): _bytes(one.parameters) for one in trajectory}
    except GrokscopeError:
        for step in trajectory.steps.tolist():
            attempt(("checkpoint", step), lambda step=step: _bytes(trajectory.at(step).parameters))
    log = attempt("log", lambda: trajectory.log)
    found.pop("log", None)
    if log is not None:
        for i, step in enumerate(log.steps.tolist()):
            found["log", step] = tuple(float(array[i]) for array in log.arrays.values())
        for sentence in trajectory.damaged:
            refused(sentence)
    setup = _setup(record)
    for segment in store.resume_points():
        # The state as training would take it: a wrong shape must end here, not in a kernel.
        step = segment.resume_step
        attempt(("resume", step), lambda segment=segment: _bytes(resumed_at(setup, segment)[1]))
    saved = attempt(("cached", "loss"), lambda: measures.found("loss", trajectory))
    found.pop(("cached", "loss"), None)
    if saved is not None:
        # What was measured of a checkpoint that is damaged now is left out, and named as a gap.
        for i, step in enumerate(saved.steps.tolist()):
            found["cached", step] = {name: array[i].tobytes() for name, array in saved.arrays.items()}
    return found


def judge(run: Path, changed: Path, truth: dict[Any, Any]) -> Verdict:
    """Read a run one file of which was changed, and compare with what it was."""
    verdict = Verdict()
    started = time.process_time()
    found = everything(run, verdict.refusals.append)
    verdict.seconds = time.process_time() - started
    verdict.differing = [str(key) for key, value in found.items() if truth.get(key) != value]
    verdict.missing = bool(set(truth) - set(found))
    # A segment in the place of another leaves nothing damaged: the steps that are gone are named instead.
    if verdict.refusals and not any(str(changed) in one or "no readable segment" in one for one in verdict.refusals):
        verdict.refusals.append(f"not named: {changed}")
    return verdict


@cache
def _setup(config: RunConfig) -> Setup:
    return Setup(config)


def _record(record: Record) -> RunConfig:
    return record.config


def _bytes(parts: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    arrays = {name: one.numpy() if hasattr(one, "numpy") else one for name, one in parts.items()}
    return {name: (str(one.dtype), one.shape, one.tobytes()) for name, one in arrays.items()}


def _series(series: Series) -> Any:
    return series.measure, series.digest, series.steps.tobytes(), _bytes({**series.arrays, **series.constants})
