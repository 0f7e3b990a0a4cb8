"""How many wrong answers does generalisation bear? (Power et al. 2022, section 3.3)

Claim: with k of the training answers replaced by those of other training equations (k from 10 to 3,000 of 7,200 in
S5), up to about 1,000 have little effect on test accuracy, while train accuracy, wrong answers included, still
reaches 100%.

How to run: grokscope sweep analyses/power2022/outliers.toml (full; .reduced.toml: reduced), then
python analyses/power2022/outliers.py RUN
Found: analyses/README.md.
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, sweep
from grokscope.cli import analysis
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print best train and test accuracy for each number of outliers; return their curves."""
    plan = sweep.load(run)
    figure = figures.new_figure(figures.PAGE_WIDTH, 2.8)
    axes = figure.subplots(1, 2, sharey=True)
    for line, cell in enumerate(cell for cell in plan.cells if cell.config.init_seed == 0):
        trajectory = Trajectory.open(run / cell.name)
        log, k, n_train = trajectory.log, cell.config.task.outliers, len(trajectory.split.train)
        print(
            f"{k:>5} of {n_train:,} answers replaced ({k / n_train:5.1%}): best train accuracy "
            f"{log['train_accuracy'].max():.1%}, best test accuracy {log['test_accuracy'].max():.1%}"
        )
        for ax, part in zip(axes, ("train", "test"), strict=True):
            label = f"{k / n_train:.1%} replaced"
            figures.plot_curve(log, f"{part}_accuracy", ax=ax, label=label, line=line, ylabel="accuracy (%)")
            ax.set_title(f"{part} accuracy", fontsize=8)
            ax.label_outer()
    figure.suptitle(plan.about, fontsize=8)
    return figure


if __name__ == "__main__":
    analysis(main, "outliers")
