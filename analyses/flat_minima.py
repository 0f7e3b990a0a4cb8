"""Does flatness precede, accompany or follow generalisation, and does it occur without generalisation?

Claim: optimisation drifts to flat minima, which generalise (Keskar et al. 2016; Power et al. 2022, section 3.4).
Networks that memorize and never generalise should then stay sharp. The sweep trains `quick` with and without weight
decay, on full batches and on minibatches, with five seeds each. Without decay no run generalises, so those runs are
the control. A measure turns at the checkpoint from which it has made half of its change since memorization, on a
logarithmic scale, for good (`phases.half_way`). `phases.timing` compares that with generalisation.

How to run: grokscope sweep analyses/flat_minima.toml, then python analyses/flat_minima.py flat_minima
Findings: docs/results.md
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
N_CHECKPOINTS = {
    "sharpness": 24,
    "sam_sharpness": 24,
    "average_sharpness": 16,
    "keskar_sharpness": 8,
    "weight_norm": 200,
}
"""Measure → the number of checkpoints of each run at which it is evaluated."""
QUANTITIES = {
    "sharpness": ("sharpness", "top eigenvalue"),
    "hessian_trace": ("sharpness", "Hessian trace"),
    "keskar_sharpness": ("keskar_sharpness", "Keskar's φ"),
    "sam_sharpness": ("sam_sharpness", "SAM, ρ = 0.05 (nats)"),
    "adaptive_sam_sharpness": ("sam_sharpness", "adaptive, ρ = 0.5 (nats)"),
    "average_sharpness": ("average_sharpness", "mean rise, σ = 0.01 (nats)"),
    "perturbation_radius": ("average_sharpness", "radius σ"),
    "weight_norm": ("weight_norm", "weight norm"),
}
"""Array → its measure and its axis label."""


def main(run: Path) -> Figure:
    """Print for each kind of run how far each quantity falls, and when; return the curves of all runs."""
    plan = sweep_folder.load(run, ["optimizer.weight_decay", "batch_size"])
    kinds: dict[str, list[dict[str, Series]]] = {}
    for cell in sweep_folder.finished_cells(plan, run):
        trajectory = Trajectory.open(run / cell.name)
        batch = "full batch" if cell.config.batch_size is None else f"batches of {cell.config.batch_size}"
        kind = f"decay {cell.config.optimizer.weight_decay:g}, {batch}"
        measured = {name: measures.saved(name, trajectory, thin=n) for name, n in N_CHECKPOINTS.items()}
        kinds.setdefault(kind, []).append({"log": trajectory.log, **measured})
    for kind, runs in kinds.items():
        accuracies = [100 * series["log"]["test_accuracy"][-1] for series in runs]
        print(f"{kind}: {len(runs)} runs, final test accuracy {min(accuracies):.0f}% to {max(accuracies):.0f}%")
        for name, (measure, _) in QUANTITIES.items():
            turns = [turn(series["log"], series[measure], name) for series in runs]
            steps = [crossing.step for crossing, _ in turns if crossing]
            first = [_at_memorization(series["log"], series[measure], name) for series in runs]
            last = [series[measure][name][-1] for series in runs]
            when = f"turns at step {np.median(steps):,.0f} (median)" if steps else "never turns"
            timings = ", ".join(f"{timing} {n}" for timing, n in Counter(timing for _, timing in turns).most_common())
            print(f"  {name:<24}{np.median(first):9.3g} → {np.median(last):9.3g}   {when}; {timings}")
    panels = {ACCURACY: ("log", "test_accuracy")}
    panels |= {label: (measure, name) for name, (measure, label) in QUANTITIES.items()}
    curves = {
        label: {
            kind: [(series[measure].steps, _drawn_values(series[measure], name)) for series in runs]
            for kind, runs in kinds.items()
        }
        for label, (measure, name) in panels.items()
    }
    loss = " or ".join(sorted({series["log"].loss for runs in kinds.values() for series in runs}))
    return figures.figure_runs(curves, title=f"{plan.about} ({loss} loss)", linear=[ACCURACY, "weight norm"])


def turn(log: Series, series: Series, name: str) -> tuple[phases.Crossing | None, str]:
    """Return when a quantity has made half of its change, and its timing relative to generalisation."""
    memorized, half = phases.memorization_step(log), phases.first_crossing(log, "test_accuracy", 0.5)
    generalised = phases.generalisation_step(log)
    crossing = phases.half_way(series, name, memorized.step) if memorized else None
    if crossing is None:
        return None, "never turns"
    if half is None or generalised is None:
        return crossing, "turns"
    return crossing, phases.timing(crossing, half, generalised)


def _drawn_values(series: Series, name: str) -> np.ndarray:
    return phases.resolved_values(series, name) * (100 if name == "test_accuracy" else 1)


def _at_memorization(log: Series, series: Series, name: str) -> float:
    """Return the value at the first checkpoint from memorization on, or NaN."""
    memorized = phases.memorization_step(log)
    row = int(np.searchsorted(series.steps, memorized.step)) if memorized else len(series)
    return float(phases.resolved_values(series, name)[row]) if row < len(series) else np.nan


if __name__ == "__main__":
    analysis(main, "flat_minima")
