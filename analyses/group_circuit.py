"""Which representations does a network use to compose the elements of a group?

Claim: the logits are sums of characters Tr ρ(a)ρ(b)ρ(c⁻¹) of a few irreducible representations ρ. Embedding, neurons
and unembedding lie in the subspaces of these ρ, and which ρ occur differs from run to run (Chughtai et al. 2023,
arXiv 2302.03025). Stander et al. explain such networks by cosets.

How to run: python analyses/group_circuit.py checkpoints/RUN, for a composition in a group, such as analyses/s5.toml
Findings: docs/papers/chughtai2023.md
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory

N_PRINTED = 4


def main(run: Path) -> Figure:
    """Print the representations and cosets of the last checkpoint; return the representations over the steps."""
    trajectory = Trajectory.open(run)
    log, series = trajectory.log, measures.saved("representations", trajectory)
    names, key = series.words("representations"), series["key_representations"]
    print(f"{trajectory.task.formula}, step {int(series.steps[-1]):,}")
    print(f"memorized: step {phases.memorization_step(log)}; generalised: step {phases.generalisation_step(log)}")
    similarity, embedding = series["logit_similarity"][-1], series["embedding_shares"][-1]
    unembedding, neurons = series["unembedding_shares"][-1], series["n_neurons_of_representation"][-1]
    for i in similarity.argsort()[::-1][:N_PRINTED]:
        print(
            f"{names[i]:<20}{'key' if i in key else '   '}  logit similarity {similarity[i]:5.2f}  share of W_E "
            f"{embedding[i]:6.1%}, of W_U {unembedding[i]:6.1%} (chance {series['share_chance'][i]:.1%})  "
            f"{neurons[i]} neurons"
        )
    print(f"logit variance in key characters: {series['logit_variance_explained'][-1]:.1%}")
    for name in ("train_loss", "loss", "restricted_loss", "excluded_loss"):
        print(f"{series.variable(name).label:<32}{series[name][-1]:.2g} (highest {series[name].max():.3g})")
    for matrix, layer in (("W_E", "embedding"), ("W_U", "unembedding")):
        name = f"{layer}_left_silhouette"
        if name not in series:
            continue  # The group has no proper subgroup, or too many elements.
        silhouettes = series[name][-1]
        best = int(np.argmax(silhouettes))
        print(
            f"best left cosets in {matrix}: of {series.words('subgroups')[best]} (order "
            f"{series['subgroup_orders'][best]}), silhouette {silhouettes[best]:.2f} "
            f"(shuffled {series[f'{name}_shuffled'][-1][best]:.2f})"
        )
    return figures.figure_representations(log, series)


if __name__ == "__main__":
    analysis(main, "group_circuit")
