"""Rules that divide a run into phases: memorization and generalisation, the labels of papers, and slingshots."""

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from grokscope.crossings import (
    LEVEL,
    Crossing,
    departure,
    first_crossing,
    generalisation_step,
    half_way,
    lasting_crossing,
    memorization_step,
    resolved_values,
    timing,
)
from grokscope.errors import UNKNOWN_TRAIN_SET, GrokscopeError
from grokscope.series import Series

# fmt: off
__all__ = [
    "LEVEL", "Crossing", "Slingshot", "departure", "first_crossing", "generalisation_step", "half_way", "landmarks",
    "liu_phase", "memorization_step", "nanda_phases", "nanda_stages", "resolved_values", "slingshots", "stages",
    "timing",
]
# fmt: on

_CLEANUP_MARGIN = 0.05
"""Cleanup begins after this share of the fall of the test loss, and ends before the last such share."""


def __getattr__(name: str) -> Any:
    if name == "known":
        warnings.warn("grokscope.phases.known is now resolved_values", DeprecationWarning, stacklevel=2)
        return resolved_values
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def liu_phase(log: Series, lag: int = 1000, level: float = 0.9) -> str:
    """Return the label of a run in the phase diagram of Liu et al.

    - "comprehension": test accuracy reaches the level fewer than `lag` steps after train accuracy;
    - "grokking": test accuracy reaches it later;
    - "memorization": only train accuracy reaches it;
    - "confusion": neither does.

    The label covers only the trained steps. With more steps, memorization may become grokking.

    Args:
        log: The log of the run.
        lag: The smallest delay of grokking, in steps. The default follows the paper.
        level: The accuracy to reach. The default follows the paper.

    Raises:
        GrokscopeError: The training set is unknown, so the log has no train and no test accuracy.

    References:
        Liu et al. 2022, "Towards understanding grokking", section 4.1.
    """
    if "train_accuracy" not in log:
        raise GrokscopeError(f"Liu et al.'s phases compare train and test accuracy. {UNKNOWN_TRAIN_SET}")
    train, test = (first_crossing(log, name, level) for name in ("train_accuracy", "test_accuracy"))
    if test is not None:
        return "comprehension" if train is None or test.step - train.step < lag else "grokking"
    return "memorization" if train is not None else "confusion"


def stages(series: Series) -> list[tuple[str, int, int]]:
    """Divide a run into the stages that accuracy alone defines.

    Args:
        series: The log of the run, or a series with train and test accuracy.

    Returns:
        The name, first step and last step of "before memorization", "memorized" and "generalised". A stage that the
        run never reached, or passed between two evaluations, is missing. The list is empty if the training set is
        unknown.
    """
    if "train_accuracy" not in series:
        return []
    end = int(series.steps[-1])
    memorized, generalised = memorization_step(series), generalisation_step(series)
    starts = [("before memorization", int(series.steps[0]))]
    if memorized and (generalised is None or memorized.step < generalised.step):
        starts.append(("memorized", memorized.step))
    if generalised:
        starts.append(("generalised", generalised.step))
    ends = [start for _, start in starts[1:]] + [end]
    return [(name, start, last) for (name, start), last in zip(starts, ends, strict=True) if last > start]


def landmarks(log: Series, steps: Int[np.ndarray, " steps"], values: np.ndarray) -> list[tuple[str, int]]:
    """Return the rows of a curve that are worth reading.

    Args:
        log: The log of the run.
        steps: The steps of the curve.
        values: The value of the curve at each step.

    Returns:
        The name and row of each landmark, in order of the rows: "first", "last", "highest", and the rows nearest to
        "memorized" and "generalised" if the log shows these crossings.
    """
    crossings = {"memorized": memorization_step(log), "generalised": generalisation_step(log)}
    rows = {"first": 0, "highest": int(np.argmax(values)), "last": len(steps) - 1}
    for name, crossing in crossings.items():
        if crossing and crossing.is_seen:
            rows[name] = int(np.abs(steps - crossing.step).argmin())
    return sorted(rows.items(), key=lambda item: item[1])


def nanda_phases(progress: Series) -> list[tuple[str, Crossing]]:
    """Return the ends of the phases of Nanda et al., found by rule.

    - "memorization" ends at the minimum of the excluded loss, which must at least double afterwards. Before the
      minimum the network improves on the train pairs without its key frequencies; after it, it relies on them.
    - "circuit formation" ends once the test loss has fallen by 5% of its total fall.
    - "cleanup" ends once the test loss has fallen by 95% of its total fall, to the end of the run.

    The fall goes from the highest to the final test loss on a logarithmic scale, at least by a factor of e. The final
    test loss is the median over the last tenth of the checkpoints. A run that stops during its cleanup looks
    finished, so its end of cleanup is too early.

    Args:
        progress: The series of the measure `progress`.

    Returns:
        The name and end of each completed phase, in order. The interval of an end depends on the spacing of the
        checkpoints. The list is empty if the training set is unknown.

    References:
        Nanda et al. 2023, section 5.2.
    """
    if "excluded_loss" not in progress:
        return []
    steps, excluded, test = progress.steps, progress["excluded_loss"], progress["test_loss"]
    lowest = int(excluded.argmin())
    if not 0 < lowest < len(steps) - 1 or excluded[lowest:].max() < 2 * excluded[lowest]:
        return []
    # The true minimum can lie on either side of the smallest value, so the interval spans both neighbours.
    ends = [("memorization", Crossing(int(steps[lowest + 1]), int(steps[lowest - 1])))]
    logs = np.log(np.maximum(test, np.finfo(float).tiny))
    highest, final = int(logs.argmax()), float(np.median(logs[-max(len(logs) // 10, 1) :]))
    if logs[highest] - final < 1:
        return ends
    fallen = (logs[highest] - logs) / (logs[highest] - final)
    is_past_highest = np.arange(len(fallen)) > highest
    formation = lasting_crossing(steps, (fallen > _CLEANUP_MARGIN) & is_past_highest)
    cleanup = lasting_crossing(steps, fallen >= 1 - _CLEANUP_MARGIN)
    return ends + [(name, end) for name, end in (("circuit formation", formation), ("cleanup", cleanup)) if end]


def nanda_stages(progress: Series) -> list[tuple[str, int, int]]:
    """Divide a run into the phases of Nanda et al. and the time after cleanup.

    Args:
        progress: The series of the measure `progress`.

    Returns:
        The name, first step and last step of each phase. A boundary is the upper end of its interval. The list is
        empty if memorization has not ended.
    """
    ends = nanda_phases(progress)
    if not ends:
        return []
    names = ["memorization", "circuit formation", "cleanup", "after cleanup"][: len(ends) + 1]
    bounds = [0, *(crossing.step for _, crossing in ends), int(progress.steps[-1])]
    return [(name, first, last) for name, first, last in zip(names, bounds, bounds[1:], strict=False) if last > first]


@dataclass(frozen=True)
class Slingshot:
    """A cycle of fast growth of the last layer's norm, with a spike of the train loss. `slingshots` finds them."""

    first: int
    """The checkpoint at which the fast growth begins."""
    peak: int
    """The evaluated step with the highest train loss."""
    last: int
    """The checkpoint at which the fast growth has ended. A plateau of the norm follows."""
    height: float
    """The train loss at the peak."""
    growth: float
    """The relative growth of the norm from `first` to `last`."""


def slingshots(log: Series, norms: Series, *, height: float = 100, speed: float = 5) -> list[Slingshot]:
    """Return the slingshots of a run, in order.

    A slingshot is "a period of rapid growth of the last layer weights, an ensuing training loss spike, and a norm
    plateau", under Adam without weight decay. The rule has two parts:

    - A spike begins when the train loss after memorization exceeds `height` times its lowest value since memorization
      or since the previous spike. It ends when the loss has fallen by the factor `height` from its peak. A spike that
      does not end does not count. Losses below 2⁻²⁴, the resolution of float32, count as 2⁻²⁴.
    - The norm grows fast between two checkpoints if its speed exceeds `speed` times the median absolute speed since
      memorization. A spike is a slingshot if the norm grows fast in an interval that it touches or in a neighbouring
      one. Steady growth without a change of speed is therefore not a slingshot.

    Several spikes within one period of fast growth are one slingshot. The growth may end just before the peak.
    The checkpoints must be closer together than the cycles.

    Args:
        log: The log of the run.
        norms: The series of the measure `weight_norm`.
        height: The factor by which the train loss rises and falls in a spike.
        speed: The factor by which fast growth exceeds the usual speed.

    References:
        Thilak et al. 2022, figure 1.
    """
    memorized = memorization_step(log)
    # A network of the user's own may have no parameter of this name.
    if memorized is None or "weight_norm.unembed.W_U" not in norms.arrays:
        return []
    is_after = norms.steps >= memorized.step
    if is_after.sum() < 3:
        return []
    steps, norm = norms.steps[is_after], norms["weight_norm.unembed.W_U"][is_after]
    speeds = np.diff(norm) / np.diff(steps)
    is_fast = speeds > max(speed * float(np.median(np.abs(speeds))), np.finfo(float).tiny)
    slow = np.flatnonzero(~is_fast)
    slings: list[Slingshot] = []
    for spike in _spikes(log, memorized.step, height):
        start = max(int(np.searchsorted(steps, spike.onset)) - 2, 0)
        stop = int(np.searchsorted(steps, spike.end, "right")) + 1
        fast = np.flatnonzero(is_fast[start:stop]) + start
        if not len(fast):
            continue
        first = int(slow[slow < fast[0]].max(initial=-1)) + 1
        last = int(slow[slow > fast[-1]].min(initial=len(is_fast)))
        growth = float(norm[last] / norm[first] - 1)
        sling = Slingshot(int(steps[first]), spike.peak, int(steps[last]), spike.height, growth)
        if slings and sling.first <= slings[-1].last:
            sling = max(slings.pop(), sling, key=lambda candidate: candidate.height)
        slings.append(sling)
    return slings


class _Spike(NamedTuple):
    """A spike of the train loss: the steps of its onset, peak and end, and the loss at the peak."""

    onset: int
    peak: int
    end: int
    height: float


def _spikes(log: Series, start: int, height: float) -> list[_Spike]:
    """Return the completed spikes of the train loss from step `start`; see `slingshots` for the rule."""
    is_late = log.steps >= start
    losses = np.maximum(log["train_loss"][is_late], 2.0**-24)
    spikes: list[_Spike] = []
    spike: _Spike | None = None
    lowest, previous = np.inf, start
    for step, loss in zip(log.steps[is_late].tolist(), losses.tolist(), strict=True):
        if spike is None:
            if loss > height * lowest:
                spike = _Spike(previous, step, step, loss)
            lowest, previous = min(lowest, loss), step
        elif loss > spike.height:
            spike = spike._replace(peak=step, height=loss)
        elif loss * height < spike.height:
            spikes.append(spike._replace(end=step))
            lowest, previous, spike = loss, step, None
    return spikes
