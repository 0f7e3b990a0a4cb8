"""What does the loss look like around the run, between its steps, and at other norms of the weights?

Three pictures with their limits. Slices along filter-normalised random directions (Li et al. 2018) say how wide the
valley is for a random step, which misses the few steep directions. The plane of the path's first two principal
components holds much of any path, also of a random walk (Antognini and Sohl-Dickstein 2018), whose share stands
beside it. On spheres (Liu et al. 2022, "Omnigrok") the lowest train loss falls with the norm, an L, and the test loss
there is least at some norm between, a U: the claim is that weight decay brings generalisation by leading to that
norm. What is lowest is what N_STEPS steps of a search find, and from where it starts decides much.

How to run: python analyses/loss_landscape.py checkpoints/RUN
Found: analyses/README.md.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, landscape, measures, phases
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory

N_STEPS, N_NORMS = 100, 6
ACCURACY = 0.9


def main(run: Path) -> Figure:
    """Print width, plane and norms in plain numbers; return slices, the path's plane and the losses on spheres."""
    trajectory = Trajectory.open(run)
    thin = trajectory.thin(100)
    norms, losses = measures.evaluate("weight_norm", thin), measures.evaluate("loss", thin)
    found = dict(phases.landmarks(trajectory.log, trajectory.steps, trajectory.steps))
    named = {
        name: int(trajectory.steps[found[name]]) for name in ("memorized", "generalised", "last") if name in found
    }
    steps = sorted(set(named.values()))

    slices = landscape.slices(trajectory, steps)
    for name, step in named.items():
        widths = [reach(slices["alpha"], one) for one in slices["train_accuracy"][list(slices["step"]).index(step)]]
        print(
            f"{name:<12} step {step:>7,}: random steps keep a train accuracy of at least {ACCURACY:.0%} up to "
            f"{min(widths):.2f} to {max(widths):.2f} lengths of the weights, over {len(widths)} directions"
        )

    plane = landscape.path_plane(trajectory)
    shares, walk = (plane.components[f"explained_variance_ratio{of}"][:2].sum() for of in ("", "_random_walk"))
    print(
        f"the plane of the path holds {shares:.0%} of its variance, that of a random walk of its steps {walk:.0%}; "
        f"checkpoints lie up to {plane.path['distance'].max():.3g} from it"
    )

    starts = sorted({int(trajectory.steps[0]), int(trajectory.steps[-1])})
    shells = landscape.shells(trajectory, starts, n_points=N_NORMS, n_steps=N_STEPS)
    for i, start in enumerate(starts):
        at = int(shells["test_loss"][i].argmin())
        print(
            f"lowest on spheres, {N_STEPS} steps from step {start:,} scaled: train loss "
            f"{shells['train_loss'][i, 0]:.2g} to {shells['train_loss'][i, -1]:.2g} from norm "
            f"{shells['weight_norm'][0]:.3g} to {shells['weight_norm'][-1]:.3g}; test loss least at norm "
            f"{shells['weight_norm'][at]:.3g}: {shells['test_loss'][i, at]:.2g} "
            f"(accuracy {shells['test_accuracy'][i, at]:.0%})"
        )
    print(f"the run ends at norm {norms['weight_norm'][-1]:.3g}, its highest was {norms['weight_norm'].max():.3g}")
    rays = landscape.rays(trajectory, steps)
    planes = plane.grid, plane.path, plane.components
    return figures.figure_landscape(slices, planes, rays, shells, (norms, losses), trajectory.log)


def reach(alpha: np.ndarray, accuracy: np.ndarray) -> float:
    """Return how far from the centre, on the nearer side, the slice has at least ACCURACY; 0 if nowhere."""
    below = np.abs(alpha[accuracy < ACCURACY])
    inside = np.abs(alpha)[np.abs(alpha) < (below.min() if len(below) else np.inf)]
    return float(inside.max()) if len(inside) else 0.0


if __name__ == "__main__":
    analysis(main, "loss_landscape")
