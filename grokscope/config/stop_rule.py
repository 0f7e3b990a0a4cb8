"""The rule that ends a run before its last step, as one string of conditions joined by ``or``.

A condition is ``QUANTITY COMPARISON NUMBER`` or ``QUANTITY COMPARISON NUMBER for N``, such as
``test_accuracy >= 0.99 for 2000``. It is checked at the evaluations, every `evaluate_every` steps. Without ``for`` it
is met at the first evaluation at which it holds; with ``for N`` once it has held at all evaluations of N steps.
"""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

QUANTITIES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
FORMS = (
    "conditions 'QUANTITY COMPARISON NUMBER' or '… for N' joined by 'or', such as 'test_accuracy >= 0.99 for 2000 or "
    "test_loss < 1e-5'. QUANTITY is train_loss, test_loss, train_accuracy or test_accuracy; COMPARISON is >=, >, <= "
    "or <; an accuracy is from 0 to 1"
)
_COMPARISONS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
_SIGNS = {">=": "≥", ">": ">", "<=": "≤", "<": "<"}
_CONDITION = re.compile(
    rf"({'|'.join(QUANTITIES)})\s*(>=|>|<=|<)\s*(\d+(?:\.\d*)?(?:e[-+]?\d{{1,3}})?)(?:\s+for\s+([1-9]\d{{0,9}}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Condition:
    """A condition on one column of the log."""

    quantity: str
    comparison: str
    level: float
    duration: int
    """The number of steps for which it must hold; 0 for a single evaluation."""

    def holds(self, row: Mapping[str, float]) -> bool:
        """Return whether a row of the log fulfils the comparison."""
        return _COMPARISONS[self.comparison](row[self.quantity], self.level)

    def __str__(self) -> str:
        level = f"{self.level:.10g}"
        if self.quantity.endswith("accuracy"):
            level = f"{100 * self.level:.10g}%"
        lasting = f" for {self.duration:,} steps" if self.duration else ""
        return f"{self.quantity.replace('_', ' ')} {_SIGNS[self.comparison]} {level}{lasting}"


@dataclass(frozen=True)
class Stop:
    """The end of a run by its rule."""

    step: int
    """The step at which the rule ended the training."""
    reason: str
    """The condition that was met, such as "test accuracy ≥ 99% for 2,000 steps"."""

    def __str__(self) -> str:
        return f"stopped at {self.step:,}: {self.reason}"

    def sentence(self, last_step: int) -> str:
        """Return where and why the rule ended the run, and whether the run was continued to a later last step."""
        later = f", and the run was continued to step {last_step:,}" if self.step < last_step else ""
        return f"Training {self}{later}."


def is_stop_rule(text: object) -> bool:
    """Return whether a value is a rule that `parse` understands; "" is the rule that never stops."""
    if not isinstance(text, str):
        return False
    matches = [_CONDITION.fullmatch(term.strip()) for term in re.split(r"\bor\b", text)] if text else []
    return all(match and (float(match[3]) <= 1 or match[1].endswith("loss")) for match in matches)


def parse(text: str) -> tuple[Condition, ...]:
    """Return the conditions of a rule that `is_stop_rule` accepts."""
    matches = [_CONDITION.fullmatch(term.strip()) for term in re.split(r"\bor\b", text)] if text else []
    return tuple(Condition(m[1], m[2], float(m[3]), int(m[4] or 0)) for m in matches if m)


def end_step(stop: Stop | None, last_step: int, n_steps: int) -> int:
    """Return the step at which training is complete: `n_steps`, or the last step if the rule ended the run there."""
    return last_step if stop is not None and stop.step == last_step else n_steps


class StopWatch:
    """Follows the rows of a log, and ends a run at the first row that meets a condition.

    Once it has ended a run, it never ends it again, so a continued run trains to its last step.

    Args:
        text: The rule.
        since: For each condition, the evaluation since which it has held without a break, or −1.
        step: The step at which the rule ended the run, or −1.

    Attributes:
        since: As above.
        step: As above.
    """

    def __init__(self, text: str, since: Sequence[int] | None = None, step: int = -1):
        self._conditions = parse(text)
        self.since = [-1] * len(self._conditions) if since is None else list(since)
        self.step = step

    def update(self, step: int, row: Mapping[str, float]) -> None:
        """Take the row of an evaluated step into account."""
        if self.step >= 0:
            return
        for i, condition in enumerate(self._conditions):
            began = self.since[i] if self.since[i] >= 0 else step
            self.since[i] = began if condition.holds(row) else -1
        if any(self._is_met(i, step) for i in range(len(self._conditions))):
            self.step = step

    @property
    def stop(self) -> Stop | None:
        """The end of the run by its rule; None if the rule has not ended it."""
        met = [str(self._conditions[i]) for i in range(len(self._conditions)) if self._is_met(i, self.step)]
        return Stop(self.step, " and ".join(met)) if self.step >= 0 and met else None

    def _is_met(self, i: int, step: int) -> bool:
        return 0 <= self.since[i] <= step - self._conditions[i].duration
