"""Does softmax collapse stop learning?

Claim: without weight decay the gradient turns to where it only scales the weights up (naive loss minimization), the
margins grow until the softmax collapses in float32, and then learning stops before it generalises (Prieto et al.
2025). What stops is judged by the gradient: where an example has collapsed, the loss computed in float32 loses the
right answer's part of it, and the last layer's norm runs away in slingshots (Thilak et al. 2022).

How to run: python analyses/softmax_collapse.py checkpoints/RUN
Found: analyses/README.md.
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print collapse, gradients and margins at the run's landmarks, and its slingshots; return the curves."""
    trajectory = Trajectory.open(run)
    series, log = measures.saved("numerics", trajectory), trajectory.log
    single, double = (series.words("dtypes").index(name) for name in ("float32", "float64"))
    print(f"trained with {trajectory.config.loss} in {trajectory.config.loss_dtype}")
    for name, row in phases.landmarks(log, series.steps, series["naive_loss_cosine"]):
        print(
            f"{'most naive' if name == 'highest' else name:<13}step {series.steps[row]:>7,}  "
            f"collapsed in float32 {series['collapse_share'][row, single]:6.1%}, "
            f"float64 {series['collapse_share'][row, double]:6.1%}  "
            f"|∇L| {series['gradient_norm'][row, double]:8.2g}, "
            f"float32's cosine with it {series['gradient_cosine'][row, single]:5.2f}  "
            f"−∇L with w {series['naive_loss_cosine'][row]:5.2f}  "
            f"smallest margin {series['train_margins'][row, 0]:6.1f}"
        )
    found = phases.slingshots(log, measures.saved("weight_norm", trajectory))
    print(f"slingshots: {len(found)}")
    for one in found:
        print(
            f"  steps {one.first:,} to {one.last:,}: ‖W_U‖ grew by {one.growth:.1%}, "
            f"train loss {one.height:.2g} at step {one.peak:,}"
        )
    return figures.figure_numerics(log, series)


if __name__ == "__main__":
    analysis(main, "softmax_collapse")
