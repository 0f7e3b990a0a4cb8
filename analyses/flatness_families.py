"""Does flatness come before generalisation, with it, or after it, and do the families of flatness agree?

Claim: flat minima generalise (Keskar et al. 2016; Foret et al. 2021), and Power et al. 2022 (section 3.4) suppose
that grokking drifts to them; but what a rescaling of layers can change (Dinh et al. 2017) need not mean anything, and
after memorization curvature shrinks with the loss in any case. So here stand beside each other families that notice
rescaling and families that do not. A measure has turned when it has made half of its change, on a logarithmic scale,
from memorization to the end, for good (`grokscope.phases.half_way`). It precedes generalisation if it had turned
before the test accuracy reached 50%, follows if it had not when that reached 99%, and accompanies it between
(`grokscope.phases.timing`). Each step is an interval between two checkpoints, which may leave it undecided and which
`grokscope measure RUN NAME --thin N` narrows; the control is a run that memorizes and never generalises.

How to run: python analyses/flatness_families.py checkpoints/RUN
Found: analyses/README.md.
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
"""What is read of each measure."""


def value(series: Series, name: str, step: int | None) -> str:
    """Return what a measure was at the first checkpoint from a step on, with its standard error if it has one."""
    row = len(series) if step is None else int(np.searchsorted(series.steps, step))
    if row == len(series) or np.isnan(phases.known(series, name)[row]):
        return "–"
    error = f" ± {series[f'{name}_stderr'][row]:.1g}" if f"{name}_stderr" in series else ""
    return f"{series[name][row]:.3g}{error}"


def main(run: Path) -> Figure:
    """Print each measure at memorization, at generalisation and at the end, and when it turned; return a figure."""
    trajectory = Trajectory.open(run)
    log = trajectory.log
    found = {name: measures.saved(name, trajectory) for name in FAMILIES}
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    half = phases.first_crossing(log, "test_accuracy", 0.5)
    print(f"memorized: step {memorized}; test accuracy 50%: step {half}; generalised: step {generalised}")
    print(f"{'':<31}{'memorized':>19}{'generalised':>19}{'last':>19}  half way")
    steps = [None if one is None else one.step for one in (memorized, generalised)]
    for measure, names in FAMILIES.items():
        for name in names:
            series = found[measure]
            values = [value(series, name, step) for step in (*steps, int(series.steps[-1]))]
            turned = phases.half_way(series, name, memorized.step) if memorized else None
            said = "never" if turned is None else f"step {turned}"
            if turned and half and generalised:
                said += f": {phases.timing(turned, half, generalised)}"
            print(f"{name:<31}{''.join(f'{one:>19}' for one in values)}  {said}")
    return figures.figure_flatness(log, *(found[name] for name in FAMILIES if name != "keskar_sharpness"))


if __name__ == "__main__":
    analysis(main, "flatness_families")
