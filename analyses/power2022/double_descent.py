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

from grokscope import figures
from grokscope.cli import analysis
from grokscope.sweep import sweep_folder
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print the test loss at its first low, its peak and its last low; return both losses of each run."""
    plan = sweep_folder.load(run)
    cells = sweep_folder.finished(plan, run)
    logs = {}
    for cell in cells:
        log = Trajectory.open(run / cell.name).log
        loss, optimizer = log["test_loss"], cell.config.optimizer
        title = f"{optimizer.name}, decay {optimizer.weight_decay:g}, {cell.config.task.train_fraction:.0%}"
        logs[f"{title}, seed {cell.config.init_seed}"] = log
        peak = int(np.argmax(loss))
        first = int(np.argmin(loss[: peak + 1]))
        last = peak + int(np.argmin(loss[peak:]))
        low, high, end = (f"{loss[i]:.3g} at step {log.steps[i]:,}" for i in (first, peak, last))
        fell = "yes" if 0 < first < peak and loss[last] < loss[first] else "no"
        print(
            f"{title}, seed {cell.config.init_seed}: test loss {loss[0]:.3g} at the start, first low {low}, peak "
            f"{high}, lowest after it {end}; twice below the start's: {fell}"
        )
    return figures.figure_train_and_test(logs, "loss", title=plan.about)


if __name__ == "__main__":
    analysis(main, "double_descent")
