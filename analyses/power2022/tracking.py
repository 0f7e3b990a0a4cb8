"""Do train and test curves track each other at large train fractions? (Power et al. 2022, section 3.2)

Claim: where the train fraction is large, training and test accuracy rise together; memorization long before
generalisation needs little data.

How to run: the runs of operations.toml (or its reduced form), then python analyses/power2022/tracking.py RUN
Found: analyses/README.md.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, phases, sweep, tasks
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory

SHOWN = ("addition", "a2_b2", "a3_ab2_b")


def main(run: Path) -> Figure:
    """Print for each operation the lag and the widest gap at the smallest and the largest fraction; return curves."""
    plan = sweep.load(run)
    fractions = sorted({cell.config.task.train_fraction for cell in plan.cells})
    ends = (fractions[0], fractions[-1])
    figure = figures.new_figure(figures.PAGE_WIDTH, 4.2)
    axes = figure.subplots(2, len(SHOWN), sharex=True, sharey=True)
    for cell in plan.cells:
        task, fraction = cell.config.task, cell.config.task.train_fraction
        if fraction not in ends or cell.config.init_seed != 0:
            continue
        log = Trajectory.open(run / cell.name).log
        train, test = phases.memorization_step(log), phases.generalisation_step(log)
        gap = float(np.max(log["train_accuracy"] - log["test_accuracy"]))
        lag = f"{test.step - train.step:,} steps" if train and test else "—"
        print(f"{task.name:<26}{fraction:.0%}: test 99% after train 99% by {lag}; widest gap {gap:.1%}")
        if task.name in SHOWN:
            ax = axes[ends.index(fraction), SHOWN.index(task.name)]
            figures.plot_train_and_test(log, "accuracy", ax=ax)
            ax.set_title(f"{tasks.build(task).formula}, {fraction:.0%}", fontsize=8)
            ax.label_outer()
    figure.suptitle(plan.about, fontsize=8)
    return figure


if __name__ == "__main__":
    analysis(main, "tracking")
