"""Does the network add with a clock or with a pizza?

Claim: networks with attention tend to add angles (clock), and networks with uniform attention average the two
embeddings (pizza). Gradient symmetricity and distance irrelevance tell them apart: 0.33 and 0.85 for a clock, 0.99
and 0.17 for a pizza. Both are near 1 for an untrained network. (Zhong et al. 2023, arXiv 2306.17844.)

How to run: python analyses/clock_or_pizza.py checkpoints/RUN, for any task with a circle
Findings: docs/papers/zhong2023.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures
from grokscope.circuits.clock_and_pizza import verdict
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print the verdict on the last checkpoint with its evidence; return the evidence over the steps."""
    trajectory = Trajectory.open(run)
    series = measures.saved("algorithm", trajectory)
    print(f"{trajectory.task.formula}, step {int(series.steps[-1]):,}")
    print(verdict(series).sentence)
    return figures.figure_algorithm(trajectory.log, series)


if __name__ == "__main__":
    analysis(main, "clock_or_pizza")
