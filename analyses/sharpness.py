"""Is the minimum that generalises flatter?

Claim: Power et al. 2022 (section 3.4) suppose that training drifts to flatter minima, which generalise. Sharpness
here is the top eigenvalue of the Hessian of the softmax train loss. After memorization the loss is nearly zero, and
the Hessian of a cross-entropy shrinks with the loss. A small eigenvalue late in a run therefore proves little.

How to run: python analyses/sharpness.py checkpoints/RUN
Findings: docs/results.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print sharpness and trace at the run's landmarks; return them below the losses."""
    trajectory = Trajectory.open(run)
    series = measures.saved("sharpness", trajectory)
    top, trace, error = (series[name] for name in ("sharpness", "hessian_trace", "hessian_trace_stderr"))
    # The sharpness is measured at few checkpoints, so the nearest one may be far from the event.
    crossings = {
        "memorized": phases.memorization_step(trajectory.log),
        "generalised": phases.generalisation_step(trajectory.log),
    }
    print(f"Hessian of the {series.loss} train loss, in nats per squared weight")
    for landmark, row in phases.landmarks(trajectory.log, series.steps, top):
        crossing = crossings.get(landmark)
        event = f"{landmark} at step {crossing.step:,}" if crossing else landmark
        print(
            f"{event:<27}measured at step {series.steps[row]:>7,}  top eigenvalue {top[row]:9.3g}  "
            f"trace {trace[row]:9.3g} ± {2 * error[row]:.1g}"
        )
    return figures.figure_sharpness(trajectory.log, series)


if __name__ == "__main__":
    analysis(main, "sharpness")
