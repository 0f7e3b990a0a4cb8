"""The steps that a figure shows by default. `grokscope.thinning` has the rules that do not need a log."""

import numpy as np
from jaxtyping import Int

from grokscope import phases
from grokscope.figures._style import COLUMN_WIDTH
from grokscope.series import Series
from grokscope.thinning import nearest_row


def representative_steps(log: Series, steps: Int[np.ndarray, " steps"], n: int = 6) -> list[int]:
    """Return the steps of at most `n` checkpoints that show how a run develops.

    They are the first, those nearest to memorization and generalisation, and the last. The others are spread over
    the logarithm of the step between memorization and generalisation. A run that never memorizes spreads them from
    2% of its steps on, and a run that never generalises spreads them up to its end.

    Args:
        log: The run's log, or the measure `loss`, with train and test accuracy.
        steps: The steps of the checkpoints to choose from.
        n: The largest number of steps, at least 2. From 4 on, generalisation is among them. Six panels side by side
            are legible on a page.

    Returns:
        Increasing steps, all of them among `steps`.
    """
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    end = int(steps[-1])
    start = max(memorized.step if memorized else end // 50, 1)
    goal = generalised.step if generalised and generalised.step > start else max(end, 1)
    targets = [0.0, *np.geomspace(start, goal, n - 2), end]
    return sorted({int(steps[nearest_row(steps, target)]) for target in targets})


def n_panels_per_row(width: float) -> int:
    """Return the number of panels side by side that are legible in a figure of this width in inches."""
    return 6 if width > COLUMN_WIDTH else 3
