"""Does the test loss descend twice? (Power et al. 2022, figure 4)

Claim: the test loss falls, rises by orders of magnitude while the network memorizes, and falls again as it
generalises much later.

How to run: the sweep division_grokking.toml or its reduced form, then
python analyses/power2022/double_descent.py RUN
Findings: docs/papers/power2022.md
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures
from grokscope.cli import analysis
from grokscope.sweep import sweep_folder
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print the test loss at its first minimum, its peak and its last minimum; return the losses of each run."""
    plan = sweep_folder.load(run)
    logs = {}
    for cell in sweep_folder.finished_cells(plan, run):
        log = Trajectory.open(run / cell.name).log
        loss, optimizer = log["test_loss"], cell.config.optimizer
        title = (
            f"{optimizer.name}, decay {optimizer.weight_decay:g}, {cell.config.task.train_fraction:.0%}, "
            f"seed {cell.config.init_seed}"
        )
        logs[title] = log
        peak = int(np.argmax(loss))
        first = int(np.argmin(loss[: peak + 1]))
        last = peak + int(np.argmin(loss[peak:]))
        descends_twice = "yes" if 0 < first < peak and loss[last] < loss[first] else "no"
        first_low, high, last_low = (f"{loss[i]:.3g} at step {log.steps[i]:,}" for i in (first, peak, last))
        print(
            f"{title}: {log.loss} test loss {loss[0]:.3g} at the start, first minimum {first_low}, peak {high}, "
            f"last minimum {last_low}; descends twice: {descends_twice}"
        )
    return figures.figure_train_and_test(logs, "loss", title=plan.about)


if __name__ == "__main__":
    analysis(main, "double_descent")
