"""Does flatness precede, accompany or follow generalisation, and does it come without generalisation too?

Claim: optimisation drifts to flat minima, which generalise (Keskar et al. 2016; Power et al. 2022, section 3.4).
If so, networks that memorize and stay there should stay sharp. The sweep trains `quick` with and without weight
decay, on full batches and on minibatches, five seeds each: without decay none generalises, which makes those runs
the control. A measure has turned when it has made half of its change, on a logarithmic scale, from memorization to
the end, for good (`phases.half_way`); `phases.timing` says how that lies to generalisation.

How to run: grokscope sweep analyses/flat_minima.toml, then python analyses/flat_minima.py flat_minima
Found: analyses/README.md.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.series import Series
from grokscope.sweep import sweep_folder
from grokscope.trajectory import Trajectory

ACCURACY = "test accuracy (%)"
THIN = {"sharpness": 24, "sam_sharpness": 24, "average_sharpness": 16, "keskar_sharpness": 8, "weight_norm": 200}
"""At how many checkpoints of each run a measure is taken."""
READ = {
    "sharpness": ("sharpness", "top eigenvalue"),
    "hessian_trace": ("sharpness", "Hessian trace"),
    "keskar_sharpness": ("keskar_sharpness", "Keskar's φ"),
    "sam_sharpness": ("sam_sharpness", "SAM, ρ = 0.05 (nats)"),
    "adaptive_sam_sharpness": ("sam_sharpness", "adaptive, ρ = 0.5 (nats)"),
    "average_sharpness": ("average_sharpness", "mean rise, σ = 0.01 (nats)"),
    "perturbation_radius": ("average_sharpness", "radius σ"),
    "weight_norm": ("weight_norm", "weight norm"),
}
"""Each array that is read: the measure that has it, and what its axis is called."""


def half_steps(log: Series, series: Series, name: str) -> tuple[phases.Crossing | None, str]:
    """Return when a measure has made half of its change, and how that lies to generalisation."""
    memorized, half = phases.memorization_step(log), phases.first_crossing(log, "test_accuracy", 0.5)
    generalised = phases.generalisation_step(log)
    turned = phases.half_way(series, name, memorized.step) if memorized else None
    if turned is None or half is None or generalised is None:
        return turned, "never turns" if turned is None else "turns"
    return turned, phases.timing(turned, half, generalised)


def main(run: Path) -> Figure:
    """Print for each kind of run and each measure how far it falls and when; return the curves of all runs."""
    plan = sweep_folder.load(run, ["optimizer.weight_decay", "batch_size"])
    kinds: dict[str, list[dict[str, Series]]] = {}
    for cell in sweep_folder.finished(plan, run):
        trajectory = Trajectory.open(run / cell.name)
        batch = "full batch" if cell.config.batch_size is None else f"batches of {cell.config.batch_size}"
        kind = f"decay {cell.config.optimizer.weight_decay:g}, {batch}"
        measured = {name: measures.saved(name, trajectory, thin=n) for name, n in THIN.items()}
        kinds.setdefault(kind, []).append({"log": trajectory.log, **measured})
    for kind, runs in kinds.items():
        accuracies = [100 * one["log"]["test_accuracy"][-1] for one in runs]
        print(f"{kind}: {len(runs)} runs, test accuracy {min(accuracies):.0f}% to {max(accuracies):.0f}% at the end")
        for name, (measure, _) in READ.items():
            timed = [half_steps(one["log"], one[measure], name) for one in runs]
            steps = [at.step for at, _ in timed if at]
            ends = [one[measure][name][-1] for one in runs]
            first = [_after_memorization(one["log"], one[measure], name) for one in runs]
            when = f"half way at step {np.median(steps):,.0f} (median)" if steps else "no half way"
            said = ", ".join(f"{what} {n}" for what, n in Counter(what for _, what in timed).most_common())
            print(f"  {name:<24}{np.median(first):9.3g} → {np.median(ends):9.3g}   {when}; {said}")
    panels = {ACCURACY: ("log", "test_accuracy")} | {label: (m, name) for name, (m, label) in READ.items()}
    curves = {
        label: {kind: [(one[m].steps, _drawn(one[m], name)) for one in runs] for kind, runs in kinds.items()}
        for label, (m, name) in panels.items()
    }
    return figures.figure_runs(curves, title=plan.about, linear=[ACCURACY, "weight norm"])


def _drawn(series: Series, name: str) -> np.ndarray:
    return phases.known(series, name) * (100 if name == "test_accuracy" else 1)


def _after_memorization(log: Series, series: Series, name: str) -> float:
    """Return what it was at the first checkpoint after memorization."""
    memorized = phases.memorization_step(log)
    row = int(np.searchsorted(series.steps, memorized.step)) if memorized else len(series)
    return float(phases.known(series, name)[row]) if row < len(series) else np.nan


if __name__ == "__main__":
    analysis(main, "flat_minima")
