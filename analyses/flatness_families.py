"""Does flatness precede, accompany or follow generalisation, and do the families of flatness agree?

Claim: flat minima generalise (Keskar et al. 2016; Foret et al. 2021), and grokking drifts to them (Power et al. 2022,
section 3.4). But a rescaling of layers changes some measures and not the function (Dinh et al. 2017), and after
memorization curvature shrinks with the loss anyway. So this script compares families that depend on the scale with
families that do not.

A measure turns at the checkpoint from which it has made half of its change since memorization, on a logarithmic
scale, for good (`grokscope.phases.half_way`). It precedes generalisation if it turns before the test accuracy reaches
50%, follows if it turns after 99%, and accompanies in between (`grokscope.phases.timing`). Each step is an interval
between two checkpoints. `grokscope measure RUN NAME --thin N` narrows it if the timing is undecided. The control is a
run that memorizes and never generalises.

How to run: python analyses/flatness_families.py checkpoints/RUN
Findings: docs/results.md
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.series import Series
from grokscope.trajectory import Trajectory

FAMILIES = {
    "keskar_sharpness": ("keskar_sharpness",),
    "sam_sharpness": ("sam_sharpness", "sam_sharpness_step", "adaptive_sam_sharpness"),
    "average_sharpness": (
        "average_sharpness",
        "adaptive_average_sharpness",
        "perturbation_radius",
        "adaptive_perturbation_radius",
    ),
    "fisher_rao_norm": ("fisher_rao_norm", "empirical_fisher_rao_norm"),
    "relative_flatness": ("relative_flatness",),
}
"""Measure → the arrays to print."""
CONFIDENCE_INTERVALS = ("average_sharpness", "adaptive_average_sharpness")
"""The arrays with a confidence interval. A few draws carry their means, so a standard error is too small."""
_WIDTH = 30
"""The width of a column of values."""


def main(run: Path) -> Figure:
    """Print each array at memorization, generalisation and the end, and when it turned; return the curves."""
    trajectory = Trajectory.open(run)
    log = trajectory.log
    families = {measure: measures.saved(measure, trajectory) for measure in FAMILIES}
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    half = phases.first_crossing(log, "test_accuracy", 0.5)
    print(f"memorized: step {memorized}; test accuracy 50%: step {half}; generalised: step {generalised}")
    print(f"[from, to]: 95% confidence interval; ±: one standard error; {log.loss} train loss")
    print(f"{'':<31}{''.join(f'{title:>{_WIDTH}}' for title in ('memorized', 'generalised', 'last'))}  turns")
    steps = [None if crossing is None else crossing.step for crossing in (memorized, generalised)]
    for measure, names in FAMILIES.items():
        series = families[measure]
        for name in names:
            values = [value(series, name, step) for step in (*steps, int(series.steps[-1]))]
            crossing = phases.half_way(series, name, memorized.step) if memorized else None
            turn = "never" if crossing is None else f"step {crossing}"
            if crossing and half and generalised:
                turn += f": {phases.timing(crossing, half, generalised)}"
            print(f"{name:<31}{''.join(f'{text:>{_WIDTH}}' for text in values)}  {turn}")
    return figures.figure_flatness(log, *(families[name] for name in FAMILIES if name != "keskar_sharpness"))


def value(series: Series, name: str, step: int | None) -> str:
    """Return the value at the first checkpoint from a step on, with its confidence interval or standard error."""
    row = len(series) if step is None else int(np.searchsorted(series.steps, step))
    if row == len(series) or np.isnan(phases.resolved_values(series, name)[row]):
        return "–"
    if name in CONFIDENCE_INTERVALS:
        low, high = series[f"{name}_interval"][row]
        return f"{series[name][row]:.3g} [{low:.2g}, {high:.2g}]"
    error = f" ± {series[f'{name}_stderr'][row]:.1g}" if f"{name}_stderr" in series else ""
    return f"{series[name][row]:.3g}{error}"


if __name__ == "__main__":
    analysis(main, "flatness_families")
