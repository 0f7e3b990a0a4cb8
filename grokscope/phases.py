"""Rules over Series: when a run memorized, when it generalised, and how sure one can be of the step."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from grokscope.series import Series

LEVEL = 0.99
"""The accuracy that counts as memorized (on train) or generalised (on test)."""
_WAY = 0.05
"""The share of its way that the test loss has gone when cleanup begins, and has still to go when it ends."""


@dataclass(frozen=True)
class Crossing:
    """The first evaluated step at which something was so, and the evaluated step before, when it was not yet.

    What happened lies in the half-open interval (`after`, `step`]; `after` is -1 if it was so from the start, which
    for a fork, or a run whose first segment is lost, is not step 0: then it may have happened earlier.
    """

    step: int
    after: int

    @property
    def is_seen(self) -> bool:
        """Whether it happened where the log tells, and not perhaps before the log's first row."""
        return self.after >= 0 or self.step == 0

    def __str__(self) -> str:
        if self.after < 0:
            return "0" if self.is_seen else f"{self.step:,} (or before)"
        return f"{self.step:,} (after {self.after:,})"


def first_crossing(series: Series, name: str, level: float = LEVEL) -> Crossing | None:
    """Return where `series[name]` first reaches `level`, or None if it never does (it is censored)."""
    reached = np.flatnonzero(series[name] >= level)
    if not len(reached):
        return None
    first = int(reached[0])
    return Crossing(int(series.steps[first]), int(series.steps[first - 1]) if first else -1)


def memorization_step(series: Series) -> Crossing | None:
    """Return the first evaluated step with train accuracy of at least 99%, with its interval."""
    return first_crossing(series, "train_accuracy")


def generalisation_step(series: Series) -> Crossing | None:
    """Return the first evaluated step with test accuracy of at least 99%, with its interval."""
    return first_crossing(series, "test_accuracy")


def liu_phase(log: Series, lag: int = 1000, level: float = 0.9) -> str:
    """Return Liu et al.'s label (2022, section 4.1) of a run, from when train and test accuracy reach 90%.

    "comprehension": test fewer than `lag` steps after train; "grokking": later; "memorization": train alone;
    "confusion": neither. The label is about the steps that were trained: memorization may become grokking.
    """
    train, test = (first_crossing(log, name, level) for name in ("train_accuracy", "test_accuracy"))
    if test is not None:
        return "comprehension" if train is None or test.step - train.step < lag else "grokking"
    return "memorization" if train is not None else "confusion"


def stages(series: Series) -> list[tuple[str, int, int]]:
    """Divide a run's steps into (name, first, last): before memorization, memorized, generalised.

    A stage that the run never reached, or passed within one evaluation, is left out. These are the stages that
    accuracy alone tells; Nanda et al.'s phases (memorization, circuit formation, cleanup) need more measures.
    """
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
    """Return (name, row) of the steps at which a curve is worth reading, in the order of their steps.

    They are the first and the last step, that of the largest of `values`, and the ones nearest to memorization
    and generalisation, where the run reached them within its log.
    """
    crossings = {"memorized": memorization_step(log), "generalised": generalisation_step(log)}
    rows = {"first": 0, "highest": int(np.argmax(values)), "last": len(steps) - 1}
    rows |= {name: int(np.abs(steps - at.step).argmin()) for name, at in crossings.items() if at and at.is_seen}
    return sorted(rows.items(), key=lambda item: item[1])


def nanda_phases(progress: Series) -> list[tuple[str, Crossing]]:
    """Return when Nanda et al.'s phases ended (2023, section 5.2), from the measure `progress`, by rule, not by eye.

    - "memorization" ends where the excluded loss is smallest: until there the network gets better on the train pairs
      without its key frequencies, from there on it leans on them. It must at least double afterwards.
    - "circuit formation" ends, and cleanup begins, when the test loss has gone 5% of its way from its highest value
      to its final one, on a logarithmic scale; "cleanup" ends when it has gone 95% of it and stays there. The final
      value is the median of the last tenth of the checkpoints, and must lie below the highest by a factor e.

    Each boundary lies in an interval that the spacing of the checkpoints gives. A boundary that the run has not
    reached is left out, and so are those after it. What has not settled by the last checkpoint looks as if it had:
    that of a run stopped amid its cleanup comes too early.
    """
    steps, excluded, test = progress.steps, progress["excluded_loss"], progress["test_loss"]
    found: list[tuple[str, Crossing]] = []
    lowest = int(excluded.argmin())
    if not 0 < lowest < len(steps) - 1 or excluded[lowest:].max() < 2 * excluded[lowest]:
        return found
    # A minimum between two checkpoints shows as either: it lies between the neighbours of the smallest.
    found.append(("memorization", Crossing(int(steps[lowest + 1]), int(steps[lowest - 1]))))
    logs = np.log(np.maximum(test, np.finfo(float).tiny))
    highest, final = int(logs.argmax()), float(np.median(logs[-max(len(logs) // 10, 1) :]))
    if logs[highest] - final < 1:
        return found
    way = (logs[highest] - logs) / (logs[highest] - final)
    is_out = (way > _WAY) & (np.arange(len(way)) > highest)
    begun = _lasting(steps, is_out)
    ended = _lasting(steps, way >= 1 - _WAY)
    found += [(name, at) for name, at in (("circuit formation", begun), ("cleanup", ended)) if at is not None]
    return found


def nanda_stages(progress: Series) -> list[tuple[str, int, int]]:
    """Divide a run's steps into Nanda et al.'s phases and what follows, (name, first, last); none if none ended.

    Each boundary is drawn at its interval's end.
    """
    ends = nanda_phases(progress)
    if not ends:
        return []
    names = ["memorization", "circuit formation", "cleanup", "after cleanup"][: len(ends) + 1]
    bounds = [0, *(at.step for _, at in ends), int(progress.steps[-1])]
    return [(name, first, last) for name, first, last in zip(names, bounds, bounds[1:], strict=False) if last > first]


def departure(series: Series, name: str, n_deviations: float = 4) -> Crossing | None:
    """Return since when a measure lies outside its control band, to the end; None if it is inside at the end.

    The band is the mean of `name`_shuffled over random orders of the tokens plus and minus `n_deviations` standard
    deviations between them, at each step; raise GrokscopeError for a measure without such a control.
    """
    mean, stderr = series[f"{name}_shuffled"], series[f"{name}_shuffled_stderr"]
    deviation = stderr * np.sqrt(series.options["n_shuffles"])
    return _lasting(series.steps, np.abs(series[name] - mean) > n_deviations * deviation)


def known(series: Series, name: str) -> Float[np.ndarray, " steps"]:
    """Return `series[name]` without what was looked for in vain: where `name`_interval has no width, not a number."""
    values = np.asarray(series[name], float)
    if f"{name}_interval" not in series:
        return values
    low, high = series[f"{name}_interval"].T
    return np.where(low < high, values, np.nan)


def half_way(series: Series, name: str, since: int, least: float = 2.0) -> Crossing | None:
    """Return since when `series[name]` has made half of its change between step `since` and the end, for good.

    It begins at the first checkpoint from `since` (such as memorization) on, and ends at the median of the last tenth
    of the checkpoints; what is not a number is left out. Where it is positive all the while, half is of the change of
    its logarithm, as of what falls by orders of magnitude, else of itself. None if it changes by less than a factor
    `least`, or on the plain scale by less than the 1 − 1 / `least` of the larger end; and if it has not stayed beyond
    the half at the end. Between checkpoints nothing is known: it lies in the crossing's interval.
    """
    values = known(series, name)
    is_there = (series.steps >= since) & np.isfinite(values)
    steps, values = series.steps[is_there], values[is_there]
    if not len(values):
        return None
    is_positive = bool((values > 0).all())
    heights = np.log(values) if is_positive else values
    start, end = heights[0], float(np.median(heights[-max(len(series) // 10, 1) :]))
    enough = np.log(least) if is_positive else (1 - 1 / least) * max(abs(start), abs(end))
    if not abs(end - start) >= enough or start == end:
        return None
    return _lasting(steps, (heights - start) / (end - start) >= 0.5)


def timing(at: Crossing, begun: Crossing, done: Crossing) -> str:
    """Say whether something "precedes", "accompanies" or "follows" what lasts from `begun` to `done`.

    It precedes what had not begun when it was over already, follows where it was not yet there when that was done,
    and accompanies where it lies between. What the intervals leave open is "undecided".
    """
    if at.step <= begun.after:
        return "precedes"
    if at.after >= done.step:
        return "follows"
    return "accompanies" if begun.step <= at.after and at.step <= done.after else "undecided"


def _lasting(steps: Int[np.ndarray, " steps"], is_so: Bool[np.ndarray, " steps"]) -> Crossing | None:
    """Return since when something is so without a break to the last step, or None if it is not so there."""
    not_so = np.flatnonzero(~is_so)
    first = int(not_so[-1]) + 1 if len(not_so) else 0
    return None if first == len(steps) else Crossing(int(steps[first]), int(steps[first - 1]) if first else -1)


@dataclass(frozen=True)
class Slingshot:
    """A cycle of the last layer's norm: it grows fast from step `first` to `last`, and the train loss has a spike."""

    first: int
    """The checkpoint at which the fast growth begins."""
    peak: int
    """The evaluated step at which the train loss is highest."""
    last: int
    """The checkpoint at which the fast growth has ended; the norm's plateau follows."""
    height: float
    """The train loss at the peak."""
    growth: float
    """By what share the norm grew from `first` to `last`."""


def slingshots(log: Series, norms: Series, *, height: float = 100, speed: float = 5) -> list[Slingshot]:
    """Return the slingshots of a run (Thilak et al. 2022), from its log and the measure `weight_norm`, in order.

    They describe "a period of rapid growth of the last layer weights, an ensuing training loss spike, and a norm
    plateau" (figure 1), under Adam without weight decay. The rule here:

    - a spike is a stretch of evaluated steps after memorization that begins where the train loss is more than
      `height` times the lowest since memorization or the last spike, and ends where it has fallen below its peak by
      as much. Losses below 2⁻²⁴, float32's resolution, count as that. What has not fallen by the end is none;
    - the norm's speed is that of `weight_norm.unembed.W_U` from checkpoint to checkpoint, its usual one the median
      size of all since memorization. A spike is a slingshot where some piece between checkpoints that it touches, or
      the piece before or behind, is faster than `speed` times that; the growth lasts as long as its neighbours are as
      fast, and may end just before the peak. Growth
      that is steady is therefore none, however far it goes, nor is a spike while the norm stands still.

    Checkpoints must be closer than the cycles. Spikes within one stretch of growth are one slingshot.
    """
    memorized = memorization_step(log)
    after = norms.steps >= (memorized.step if memorized else np.inf)
    if after.sum() < 3:
        return []
    steps, norm = norms.steps[after], norms["weight_norm.unembed.W_U"][after]
    speeds = np.diff(norm) / np.diff(steps)
    is_fast = speeds > max(speed * float(np.median(np.abs(speeds))), np.finfo(float).tiny)
    found: list[Slingshot] = []
    for onset, peak, end, loss in _spikes(log, memorized.step if memorized else 0, height):
        near = slice(max(int(np.searchsorted(steps, onset)) - 2, 0), int(np.searchsorted(steps, end, "right")) + 1)
        touched = np.arange(len(is_fast))[near][is_fast[near]]
        if not len(touched):
            continue
        slow = np.flatnonzero(~is_fast)
        first = int(slow[slow < touched[0]].max(initial=-1)) + 1
        last = int(slow[slow > touched[-1]].min(initial=len(is_fast)))
        one = Slingshot(int(steps[first]), peak, int(steps[last]), loss, float(norm[last] / norm[first] - 1))
        if found and one.first <= found[-1].last:
            one = max(found.pop(), one, key=lambda each: each.height)
        found.append(one)
    return found


def _spikes(log: Series, start: int, height: float) -> list[tuple[int, int, int, float]]:
    """Return the spikes of the train loss from a step on (`slingshots`), as onset, peak, end and loss at the peak."""
    is_late = log.steps >= start
    lowest, inside, found = np.inf, None, []
    before = start
    for step, loss in zip(log.steps[is_late].tolist(), np.maximum(log["train_loss"][is_late], 2.0**-24), strict=True):
        if inside is None:
            if loss > height * lowest:
                inside = (before, step, loss)
            lowest, before = min(lowest, loss), step
        elif loss > inside[2]:
            inside = (inside[0], step, loss)
        elif loss * height < inside[2]:
            found.append((*inside[:2], step, inside[2]))
            lowest, before, inside = loss, step, None
    return found
