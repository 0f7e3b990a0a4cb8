"""How many wrong answers in the training set does generalisation tolerate? (Power et al. 2022, section 3.3)

Claim: k of the 7,200 training answers in S5, from 10 to 3,000, are replaced by those of other training equations. Up
to about 1,000 have little effect on test accuracy. Train accuracy, wrong answers included, still reaches 100%.

How to run: grokscope sweep analyses/power2022/outliers.toml (full) or outliers.reduced.toml (reduced), then
python analyses/power2022/outliers.py RUN
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
    """Print the median best train and test accuracy for each number of outliers; return the curves of one seed."""
    plan = sweep_folder.load(run, ["task.outliers"])
    cells = sweep_folder.finished_cells(plan, run)
    figure = figures.new_figure(figures.PAGE_WIDTH, 2.8)
    axes = figure.subplots(1, 2, sharey=True)
    for line, k in enumerate(sorted({cell.config.task.outliers for cell in cells})):
        runs = [Trajectory.open(run / cell.name) for cell in cells if cell.config.task.outliers == k]
        n_train = len(runs[0].split.train)
        train, test = (
            np.median([trajectory.log[f"{part}_accuracy"].max() for trajectory in runs]) for part in ("train", "test")
        )
        print(
            f"{k:>5} of {n_train:,} answers replaced ({k / n_train:5.1%}), {len(runs)} seeds: median best train "
            f"accuracy {train:.1%}, test accuracy {test:.1%}"
        )
        for ax, part in zip(axes, ("train", "test"), strict=True):
            label = f"{k / n_train:.1%} replaced"
            log = runs[0].log
            figures.plot_curve(log, f"{part}_accuracy", ax=ax, label=label, line=line, ylabel="accuracy (%)")
            ax.set_title(f"{part} accuracy", fontsize=8)
            ax.label_outer()
    figure.suptitle(plan.about, fontsize=8, parse_math=False)
    return figure


if __name__ == "__main__":
    analysis(main, "outliers")
