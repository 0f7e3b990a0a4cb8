"""When does the circuit form, and what does it consist of?

Claim: a network that adds mod p composes rotations of a few key frequencies. It memorizes (to step 1,400), forms the
circuit while the test loss does not change (to 9,400), and cleans up (to 14,000). In the mainline run of the paper:

- 5 key frequencies;
- 433 of 512 neurons in one frequency (share at least 0.85);
- a neuron-logit map W_L of rank about 10;
- 95% of the logits' variance in cos w(a + b − c);
- Gini coefficients of 0.55–0.80 (W_E) and 0.68–0.91 (W_L) over seeds.

(Nanda et al. 2023, arXiv 2301.05217.) The paper finds the phases by eye. `grokscope.phases.nanda_phases` finds them
by rule.

How to run: python analyses/circuit_formation.py checkpoints/RUN, for any task with a circle
Findings: docs/papers/nanda2023.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory

RULES = {"embedding": "W_E", "neuron_logits": "W_L", "neurons": "neurons", "removal": "removal"}
"""The rules that name key frequencies, and their labels."""


def main(run: Path) -> Figure:
    """Print the parts of the circuit at the last checkpoint, and its phases; return them over the steps."""
    trajectory = Trajectory.open(run)
    log = trajectory.log
    fourier, progress, neurons = (measures.saved(name, trajectory) for name in ("fourier", "progress", "neurons"))
    key = progress["key_frequencies"]
    by_rule = ", ".join(f"{len(progress[f'key_frequencies_{rule}'])} by {label}" for rule, label in RULES.items())
    n_neurons = neurons["neuron_share"].shape[-1]
    n_clustered = round(neurons["clustered_share"][-1, -1] * n_neurons)
    print(f"{trajectory.task.formula}, step {int(progress.steps[-1]):,}")
    print(f"key frequencies          {len(key)}: {', '.join(map(str, key))} ({by_rule})")
    print(f"neurons in one frequency {n_clustered} of {n_neurons}")
    print(f"rank of W_L (1% left)    {fourier['W_L_rank'][-1]}")
    explained, control = progress["logit_variance_share"][-1], progress["logit_variance_share_shuffled"][-1]
    print(f"logit variance explained {explained:.1%} (shuffled {control:.1%})")
    for matrix in ("W_E", "W_L"):
        values, shuffled = fourier[f"{matrix}_gini"], fourier[f"{matrix}_gini_shuffled"]
        print(f"Gini coefficient of {matrix}  {values[0]:.2f} to {values[-1]:.2f} (shuffled {shuffled[-1]:.2f})")
    for name in ("train_loss", "test_loss", "restricted_loss", "excluded_loss"):
        print(f"{progress.variable(name).label:<25}{progress[name][-1]:.2g} (highest {progress[name].max():.3g})")
    print(f"memorized                step {phases.memorization_step(log)}")
    print(f"generalised              step {phases.generalisation_step(log)}")
    for phase, end in phases.nanda_phases(progress):
        print(f"{phase + ' ends':<25}step {end}")
    return figures.figure_progress(log, progress, fourier)


if __name__ == "__main__":
    analysis(main, "circuit_formation")
