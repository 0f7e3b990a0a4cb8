"""Does the embedding become a circle, and when?

Claim: on modular arithmetic the token embeddings form circles, one for each of a few key frequencies, as the network
generalises (Power et al. 2022, figure 3; Nanda et al. 2023, section 4; Liu et al. 2022). For multiplication and
division the circle is that of the discrete logarithm.

How to run: python analyses/modular_circle.py checkpoints/RUN, for any task with a circle
Findings: docs/results.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures
from grokscope.cli import analysis
from grokscope.errors import GrokscopeError
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print each key frequency's share of the embedding's variance, with its controls; return the circles."""
    trajectory = Trajectory.open(run)
    if trajectory.task.circle is None:
        raise GrokscopeError(f"{trajectory.task.formula} has no circle. Allowed: a task of modular arithmetic.")
    embedding = measures.saved("embedding", trajectory)
    n = len(embedding["tokens"])
    print(f"{trajectory.task.formula}: {n} tokens on the circle, step {embedding.steps[-1]:,}")
    if embedding["n_examples_off_circle"]:
        print(f"left out: {embedding['n_examples_off_circle']} equations with a zero, which is not on the circle")
    for frequency in embedding["key_frequencies"]:
        shares = embedding["frequency_shares"][:, frequency - 1]
        print(f"frequency {frequency:>3}: {shares[-1]:6.1%} of the variance (first checkpoint {shares[0]:.1%})")
    print(
        f"all key frequencies: {embedding['key_frequency_share'][-1]:.1%} "
        f"({embedding['key_frequency_share_shuffled'][-1]:.1%} in as many frequencies of shuffled tokens)\n"
        f"circularity of PCs 1-4: {embedding['circularity'][-1]:.3f} "
        f"(untrained {embedding['circularity_initialization']:.3f}, shuffled "
        f"{embedding['circularity_shuffled'][-1]:.3f} ± {2 * embedding['circularity_shuffled_stderr'][-1]:.3f})"
    )
    return figures.figure_embedding(embedding, figures.representative_steps(trajectory.log, trajectory.steps))


if __name__ == "__main__":
    analysis(main, "modular_circle")
