"""Do the weights shrink as the network generalises?

Claim: the norm rises while the training set is memorized and falls, under weight decay, in the cleanup that
ends in generalisation (Nanda et al. 2023, section 5.2; Liu et al. 2023, Omnigrok).

How to run: python analyses/weight_norms.py checkpoints/RUN
Found: README.md, "What we measured".
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print the norm at the start, at its highest, at memorization, generalisation and the end; return the curves."""
    trajectory = Trajectory.open(run)
    series = measures.saved("weight_norm", trajectory)
    norm, distance = series["weight_norm"], series["distance_from_initialization"]
    for name, row in phases.landmarks(trajectory.log, series.steps, norm):
        print(f"{name:<15}step {series.steps[row]:>7,}  ‖w‖ {norm[row]:7.2f}  ‖w − w₀‖ {distance[row]:7.2f}")
    return figures.figure_weight_norms(trajectory.log, series)


if __name__ == "__main__":
    analysis(main, "weight_norms")
