"""Does the test loss descend twice? (Power et al. 2022, figure 4)

Claim: the test loss falls, rises by orders of magnitude while the training set is memorized, and falls again as the
network generalises, long after.

How to run: the runs of division_grokking.toml (or its reduced form), then
python analyses/power2022/double_descent.py RUN
Found: analyses/README.md.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, sweep
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print the test loss at its first low, its peak and its last low; return both losses of each run."""
    plan = sweep.load(run)
    figure = figures.new_figure(figures.PAGE_WIDTH, 2.4)
    axes = figure.subplots(1, len(plan.cells), sharey=True, squeeze=False)[0]
    for cell, ax in zip(plan.cells, axes, strict=True):
        log = Trajectory.open(run / cell.name).log
        loss = log["test_loss"]
        peak = int(np.argmax(loss))
        first = int(np.argmin(loss[: peak + 1]))
        last = peak + int(np.argmin(loss[peak:]))
        places = ", ".join(f"{loss[i]:.3g} at step {log.steps[i]:,}" for i in (first, peak, last))
        task, optimizer = cell.config.task, cell.config.optimizer
        title = f"{optimizer.name}, decay {optimizer.weight_decay:g}, {task.train_fraction:.0%} of mod {task.p}"
        print(f"{title}, seed {cell.config.init_seed}: test loss {places}")
        for line, part in enumerate(("train", "test")):
            figures.plot_curve(log, f"{part}_loss", ax=ax, label=part, line=8 * line, ylabel="cross-entropy (nats)")
        ax.set_yscale("log")
        ax.set_title(title, fontsize=8)
        ax.label_outer()
    figure.suptitle(plan.about, fontsize=8)
    return figure


if __name__ == "__main__":
    analysis(main, "double_descent")
