"""Do the networks that generalise have flatter minima? (Power et al. 2022, section 3.4 and appendix)

Claim: over many runs on S5, Keskar et al.'s sharpness φ of the training loss and the test accuracy have a Spearman
correlation of −0.795. The runs stop when about half of them have generalised.

How to run: grokscope sweep analyses/power2022/flatness.toml (full) or flatness.reduced.toml (reduced), then
python analyses/power2022/flatness.py RUN
Findings: docs/papers/power2022.md
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from grokscope import figures, measures
from grokscope.cli import analysis
from grokscope.sweep import sweep_folder
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print the correlation of φ and test accuracy at the last step; return a point for each run."""
    plan = sweep_folder.load(run, ["task.train_fraction"])
    cells = sweep_folder.finished_cells(plan, run)
    sharpness, accuracy, fraction = [], [], []
    for cell in cells:
        trajectory = Trajectory.open(run / cell.name)
        series = measures.evaluate("keskar_sharpness", trajectory[-1:])
        sharpness.append(float(series["keskar_sharpness"][-1]))
        accuracy.append(100 * float(trajectory.log["test_accuracy"][-1]))
        fraction.append(cell.config.task.train_fraction)
    correlation, p_value = spearmanr(sharpness, accuracy)
    low, high = bootstrap_interval(np.array(sharpness), np.array(accuracy))
    generalised = np.mean(np.array(accuracy) >= 99)
    print(
        f"{len(cells)} of {len(plan.cells)} runs, {generalised:.0%} with a test accuracy of 99%. Spearman "
        f"correlation of φ and test accuracy: {correlation:.3f} (95% bootstrap interval {low:.3f} to {high:.3f}, "
        f"p = {p_value:.1g}); in the paper: -0.795"
    )
    for share in sorted(set(fraction)):
        rows = [i for i, cell_fraction in enumerate(fraction) if cell_fraction == share]
        print(
            f"{share:.0%} of the equations: median φ {np.median([sharpness[i] for i in rows]):.3g}, median test "
            f"accuracy {np.median([accuracy[i] for i in rows]):.1f}% ({len(rows)} runs)"
        )
    figure = figures.new_figure(figures.PAGE_WIDTH, 3)
    ax = figure.subplots()
    figures.plot_scatter(
        sharpness,
        accuracy,
        ax=ax,
        xlabel="sharpness φ of the softmax train loss, ε = 10⁻³",
        ylabel="test accuracy (%)",
        shade=fraction,
        shaded="train fraction",
    )
    ax.set_xscale("log")
    title = f"{plan.about}\nSpearman {correlation:.3f} ({low:.3f} to {high:.3f})"
    figure.suptitle(title, fontsize=8, parse_math=False)
    return figure


def bootstrap_interval(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of Spearman's correlation, from 2,000 resamples of the runs with replacement.

    A resample without variance has no correlation and is left out.
    """
    resamples = np.random.default_rng(0).integers(len(x), size=(2_000, len(x)))
    correlations = [spearmanr(x[i], y[i])[0] for i in resamples if np.ptp(x[i]) and np.ptp(y[i])]
    low, high = np.quantile(correlations or [np.nan], [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    analysis(main, "flatness")
