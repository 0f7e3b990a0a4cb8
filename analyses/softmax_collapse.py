"""Does softmax collapse stop learning?

Claim: without weight decay the gradient turns until it only scales the weights up (naive loss minimization). The
margins grow until the softmax collapses in float32, and learning stops before the network generalises (Prieto et al.
2025). The gradient shows what stops: for a collapsed example, a float32 loss loses the right answer's part of it.
The norm of the last layer may also grow in slingshots (Thilak et al. 2022).

How to run: python analyses/softmax_collapse.py checkpoints/RUN
Findings: docs/papers/prieto2025.md
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
    for landmark, row in phases.landmarks(log, series.steps, series["naive_loss_cosine"]):
        print(
            f"{'most naive' if landmark == 'highest' else landmark:<13}step {series.steps[row]:>7,}  "
            f"collapsed {series['collapse_share'][row, single]:6.1%} in float32, "
            f"{series['collapse_share'][row, double]:6.1%} in float64  "
            f"‖∇L‖ {series['gradient_norm'][row, double]:8.2g}, "
            f"cosine with float32's ∇L {series['gradient_cosine'][row, single]:5.2f}  "
            f"cosine of −∇L and w {series['naive_loss_cosine'][row]:5.2f}  "
            f"smallest margin {series['train_margins'][row, 0]:6.1f}"
        )
    slingshots = phases.slingshots(log, measures.saved("weight_norm", trajectory))
    print(f"slingshots: {len(slingshots)}")
    for slingshot in slingshots:
        print(
            f"  steps {slingshot.first:,} to {slingshot.last:,}: ‖W_U‖ grows by {slingshot.growth:.1%}, "
            f"{log.loss} train loss {slingshot.height:.2g} at step {slingshot.peak:,}"
        )
    return figures.figure_numerics(log, series)


if __name__ == "__main__":
    analysis(main, "softmax_collapse")
