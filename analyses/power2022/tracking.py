"""Do train and test curves track each other at large train fractions? (Power et al. 2022, section 3.2)

Claim: at large train fractions, train and test accuracy rise together. Memorization long before generalisation
occurs only with little data.

How to run: the sweep operations.toml or its reduced form, then python analyses/power2022/tracking.py RUN
Findings: docs/papers/power2022.md
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, tasks
from grokscope.cli import analysis
from grokscope.series import Series
from grokscope.sweep import sweep_folder
from grokscope.trajectory import Trajectory

DRAWN = ("addition", "a2_b2", "a3_ab2_b")


def main(run: Path) -> Figure:
    """Print each operation's widest gap of accuracies at the smallest and the largest fraction; return curves."""
    plan = sweep_folder.load(run, ["task.train_fraction", "task.name"])
    cells = sweep_folder.finished_cells(plan, run)
    fractions = sorted({cell.config.task.train_fraction for cell in cells})
    extremes = (fractions[0], fractions[-1])
    figure = figures.new_figure(figures.PAGE_WIDTH, 4.2)
    axes = figure.subplots(2, len(DRAWN), sharex=True, sharey=True)
    logs: dict[tuple[str, float], list[Series]] = {}
    for cell in cells:
        task = cell.config.task
        logs.setdefault((task.name, task.train_fraction), []).append(Trajectory.open(run / cell.name).log)
        if task.train_fraction in extremes and task.name in DRAWN:
            ax = axes[extremes.index(task.train_fraction), DRAWN.index(task.name)]
            ax.set_title(f"{tasks.build(task).formula}, {task.train_fraction:.0%}", fontsize=8)
    for (name, fraction), seeds in logs.items():
        if fraction not in extremes:
            continue
        gap = np.median([np.max(log["train_accuracy"] - log["test_accuracy"]) for log in seeds])
        best = np.median([log["test_accuracy"].max() for log in seeds])
        print(f"{name:<26}{fraction:.0%}: widest gap of train and test {gap:.1%}, best test accuracy {best:.1%}")
        if name in DRAWN:
            ax = axes[extremes.index(fraction), DRAWN.index(name)]
            figures.plot_train_and_test(seeds[0], "accuracy", ax=ax)
            ax.label_outer()
    figure.suptitle(plan.about, fontsize=8, parse_math=False)
    return figure


if __name__ == "__main__":
    analysis(main, "tracking")
