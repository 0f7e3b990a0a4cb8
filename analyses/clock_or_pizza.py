"""Does the network add by a clock or by a pizza?

Claim: Zhong et al. 2023 (arXiv 2306.17844): networks with attention tend to add angles (clock), those with uniform
attention take averages of the two embeddings (pizza); gradient symmetricity and distance irrelevance tell them apart,
0.33 and 0.85 for a clock, 0.99 and 0.17 for a pizza. On an untrained network both read near 1.

How to run: python analyses/clock_or_pizza.py checkpoints/RUN, for any task with a circle
Found: analyses/README.md.
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
