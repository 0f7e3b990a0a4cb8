"""Do train and test curves track each other at large train fractions? (Power et al. 2022, section 3.2)

Claim: where the train fraction is large, training and test accuracy rise together; memorization long before
generalisation needs little data.

How to run: the runs of operations.toml (or its reduced form), then python analyses/power2022/tracking.py RUN
Found: analyses/README.md.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, tasks
from grokscope.cli import analysis
from grokscope.series import Series
from grokscope.sweep import sweep_folder
from grokscope.trajectory import Trajectory

SHOWN = ("addition", "a2_b2", "a3_ab2_b")


def main(run: Path) -> Figure:
    """Print for each operation the widest gap at the smallest and the largest fraction, medians; return curves."""
    plan = sweep_folder.load(run, ["task.train_fraction", "task.name"])
    cells = sweep_folder.finished(plan, run)
    fractions = sorted({cell.config.task.train_fraction for cell in cells})
    ends = (fractions[0], fractions[-1])
    figure = figures.new_figure(figures.PAGE_WIDTH, 4.2)
    axes = figure.subplots(2, len(SHOWN), sharex=True, sharey=True)
    logs: dict[tuple[str, float], list[Series]] = {}
    for cell in cells:
        task = cell.config.task
        logs.setdefault((task.name, task.train_fraction), []).append(Trajectory.open(run / cell.name).log)
        if task.train_fraction in ends and task.name in SHOWN:
            ax = axes[ends.index(task.train_fraction), SHOWN.index(task.name)]
            ax.set_title(f"{tasks.build(task).formula}, {task.train_fraction:.0%}", fontsize=8)
    for (name, fraction), found in logs.items():
        if fraction not in ends:
            continue
        gap = np.median([np.max(log["train_accuracy"] - log["test_accuracy"]) for log in found])
        best = np.median([log["test_accuracy"].max() for log in found])
        print(f"{name:<26}{fraction:.0%}: widest gap of train and test {gap:.1%}, best test accuracy {best:.1%}")
        if name in SHOWN:
            ax = axes[ends.index(fraction), SHOWN.index(name)]
            figures.plot_train_and_test(found[0], "accuracy", ax=ax)
            ax.label_outer()
    figure.suptitle(plan.about, fontsize=8, parse_math=False)
    return figure


if __name__ == "__main__":
    analysis(main, "tracking")
