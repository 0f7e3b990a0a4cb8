"""A judge of changed files: reading a run gives the same data, or a GrokscopeError that names the file."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from support.shared import damage_of

from grokscope import Trajectory, measures
from grokscope.config import RunConfig
from grokscope.errors import GrokscopeError
from grokscope.series import Series
from grokscope.store.run_store import Record, RunStore
from grokscope.training.learner import state_from_segment
from grokscope.training.loop import Setup

SLOWEST = 1.0
"""The most processor seconds for reading a run with one changed file."""


@dataclass
class Verdict:
    """The result of reading a run with one changed file."""

    refusals: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    missing: bool = False
    seconds: float = 0.0

    @property
    def word(self) -> str:
        """The verdict: "the same" data, "refused", or an undetected change: "other data" or "lost silently"."""
        if self.differing:
            return "other data"
        if self.missing and not self.refusals:
            return "lost silently"
        return "refused" if self.refusals else "the same"


def read_all(run: Path, refused: Callable[[str], None]) -> dict[Any, Any]:
    """Return everything that a run contains, read in every way; `refused` gets the message of each GrokscopeError."""
    contents: dict[Any, Any] = {}

    def attempt(name: Any, read: Callable[[], Any]) -> Any:
        try:
            contents[name] = read()
            return contents[name]
        except GrokscopeError as error:
            refused(str(error))

    record = attempt("record", lambda: _record(Record.read(run)))
    store = attempt("store", lambda: RunStore(run))
    contents.pop("store", None)
    attempt(("series", "loss"), lambda: _series(Series.load(run / "measures" / "loss.safetensors")))
    if record is None or store is None:
        return contents
    for sentence in damage_of(store):
        refused(f"{store.folder / 'segments'}/{sentence}" if sentence[:1].isdigit() else sentence)
    trajectory = attempt("trajectory", lambda: Trajectory.open(run))
    contents.pop("trajectory", None)
    if trajectory is None:
        return contents
    for sentence in trajectory.damaged:
        refused(sentence)
    try:
        contents |= {("checkpoint", snapshot.step): _bytes(snapshot.parameters) for snapshot in trajectory}
    except GrokscopeError:
        for step in trajectory.steps.tolist():
            attempt(("checkpoint", step), lambda step=step: _bytes(trajectory.at(step).parameters))
    log = attempt("log", lambda: trajectory.log)
    contents.pop("log", None)
    if log is not None:
        for i, step in enumerate(log.steps.tolist()):
            contents["log", step] = tuple(float(array[i]) for array in log.arrays.values())
        for sentence in trajectory.damaged:
            refused(sentence)
    setup = _setup(record)
    for segment in store.resume_points():
        # Read the state as training does: a wrong shape must be refused before any computation.
        step = segment.resume_step
        attempt(("resume", step), lambda segment=segment: _bytes(state_from_segment(setup.learner, segment)[1]))
    saved = attempt(("cached", "loss"), lambda: measures.found("loss", trajectory))
    contents.pop(("cached", "loss"), None)
    if saved is not None:
        # The rows of checkpoints that are now damaged are left out, and named as a gap.
        for i, step in enumerate(saved.steps.tolist()):
            contents["cached", step] = {name: array[i].tobytes() for name, array in saved.arrays.items()}
    return contents


def judge(run: Path, changed: Path, truth: dict[Any, Any]) -> Verdict:
    """Read a run with one changed file, and compare it with the unchanged contents."""
    verdict = Verdict()
    started = time.process_time()
    contents = read_all(run, verdict.refusals.append)
    verdict.seconds = time.process_time() - started
    verdict.differing = [str(key) for key, value in contents.items() if truth.get(key) != value]
    verdict.missing = bool(set(truth) - set(contents))
    # A segment that replaces another is not damaged itself: the missing steps are named instead.
    if verdict.refusals and not any(
        str(changed) in text or "no readable segment" in text for text in verdict.refusals
    ):
        verdict.refusals.append(f"not named: {changed}")
    return verdict


@cache
def _setup(config: RunConfig) -> Setup:
    return Setup(config)


def _record(record: Record) -> RunConfig:
    return record.config


def _bytes(parts: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    arrays = {name: array.numpy() if hasattr(array, "numpy") else array for name, array in parts.items()}
    return {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items()}


def _series(series: Series) -> Any:
    return series.measure, series.digest, series.steps.tobytes(), _bytes({**series.arrays, **series.constants})
