"""What does the loss look like around the run, in the plane of its path, and at other norms of the weights?

- **Slices** along filter-normalised random directions (Li et al. 2018) show how far a random step stays in the
  valley. They miss the few steep directions.
- **The plane** of the path's first two principal components contains much of any path, even of a random walk
  (Antognini and Sohl-Dickstein 2018). Both shares are printed.
- **On spheres** the lowest train loss falls with the norm (an L). The test loss there is lowest at an intermediate
  norm (a U). The claim is that weight decay brings generalisation because it leads to that norm (Liu et
  al. 2022, "Omnigrok"). The search is short, so its result depends on its start.

How to run: python analyses/loss_landscape.py checkpoints/RUN
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
    """Print the width of slices, the shares of the plane, and the losses on spheres; return all three."""
    trajectory = Trajectory.open(run)
    thin = trajectory.thin(100)
    norms, losses = measures.evaluate("weight_norm", thin), measures.evaluate("loss", thin)
    rows = dict(phases.landmarks(trajectory.log, trajectory.steps, trajectory.steps))
    landmarks = {
        name: int(trajectory.steps[rows[name]]) for name in ("memorized", "generalised", "last") if name in rows
    }
    steps = sorted(set(landmarks.values()))

    slices = landscape.slices(trajectory, steps)
    for name, step in landmarks.items():
        accuracies = slices["train_accuracy"][list(slices["step"]).index(step)]
        widths = [half_width(slices["alpha"], accuracy) for accuracy in accuracies]
        print(
            f"{name:<12} step {step:>7,}: train accuracy is at least {ACCURACY:.0%} up to {min(widths):.2f} to "
            f"{max(widths):.2f} lengths of the weights, in {len(widths)} random directions"
        )

    plane = landscape.path_plane(trajectory)
    share, walk = (plane.components[f"explained_variance_ratio{of}"][:2].sum() for of in ("", "_random_walk"))
    print(
        f"plane of the path: {share:.0%} of its variance (random walk with the same steps: {walk:.0%}); checkpoints "
        f"are up to {plane.path['distance'].max():.3g} from the plane"
    )

    starts = sorted({int(trajectory.steps[0]), int(trajectory.steps[-1])})
    shells = landscape.shells(trajectory, starts, n_points=N_NORMS, n_steps=N_STEPS)
    for i, start in enumerate(starts):
        best = int(shells["test_loss"][i].argmin())
        print(
            f"lowest losses on spheres, {N_STEPS} steps from step {start:,}: {shells.loss} train loss "
            f"{shells['train_loss'][i, 0]:.2g} at norm {shells['weight_norm'][0]:.3g} to "
            f"{shells['train_loss'][i, -1]:.2g} at norm {shells['weight_norm'][-1]:.3g}; "
            f"lowest {shells.loss} test loss {shells['test_loss'][i, best]:.2g} "
            f"(accuracy {shells['test_accuracy'][i, best]:.0%}) at norm "
            f"{shells['weight_norm'][best]:.3g}"
        )
    print(f"norm of the run: {norms['weight_norm'][-1]:.3g} at the end, at most {norms['weight_norm'].max():.3g}")
    rays = landscape.rays(trajectory, steps)
    planes = plane.grid, plane.path, plane.components
    return figures.figure_landscape(slices, planes, rays, shells, (norms, losses), trajectory.log)


def half_width(alpha: np.ndarray, accuracy: np.ndarray) -> float:
    """Return the largest |α| within which a slice has at least ACCURACY on both sides; 0 if there is none."""
    below = np.abs(alpha[accuracy < ACCURACY])
    inside = np.abs(alpha)[np.abs(alpha) < (below.min() if len(below) else np.inf)]
    return float(inside.max()) if len(inside) else 0.0


if __name__ == "__main__":
    analysis(main, "loss_landscape")
