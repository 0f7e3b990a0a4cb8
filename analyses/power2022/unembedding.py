"""Does the output layer show the structure of the operation? (Power et al. 2022, figure 3)

Claim, for t-SNE of the rows of the output layer: addition forms a circle (lines join x and x + 8). The product in S5
clusters by cosets of the subgroup ⟨(0,3)(1,4), (1,2)(3,4)⟩ or a conjugate. Both are clearer with weight decay.

How to run: grokscope sweep analyses/power2022/unembedding.toml (full) or unembedding.reduced.toml (reduced), then
python analyses/power2022/unembedding.py RUN
Findings: docs/papers/power2022.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, measures
from grokscope.cli import analysis
from grokscope.series import Series
from grokscope.sweep import sweep_folder
from grokscope.trajectory import Trajectory

SUBGROUPS = {
    "D5, the paper's": ("(0 3)(1 4)", "(1 2)(3 4)"),
    "A4": ("(0 1 2)", "(0 1)(2 3)"),
    "S3": ("(0 1 2)", "(0 1)(3 4)"),
    "C5": ("(0 1 2 3 4)",),
    "V4": ("(0 1)(2 3)", "(0 2)(1 3)"),
    "C3": ("(0 1 2)",),
}
"""Subgroups of A5, and so of S5, by generators. The first is the paper's, a dihedral group of order ten."""


def main(run: Path) -> Figure:
    """Print the circularity or the cluster scores of each last output layer, with controls; return t-SNE and PCA."""
    plan = sweep_folder.load(run)
    cells = sweep_folder.finished_cells(plan, run)
    figure = figures.new_figure(figures.PAGE_WIDTH, 4.2)
    axes = figure.subplots(2, len(cells), squeeze=False)
    for column, cell in enumerate(cells):
        trajectory = Trajectory.open(run / cell.name)
        decay = cell.config.optimizer.weight_decay
        accuracy = f"test accuracy {trajectory.log['test_accuracy'][-1]:.1%}"
        print(f"{trajectory.task.formula}, decay {decay:g}, step {trajectory.steps[-1]:,}, {accuracy}:")
        series = clearest_structure(trajectory)
        for row, kind in enumerate(("tsne", "pca")):
            figures.plot_unembedding(series, ax=axes[row, column], step=int(series.steps[-1]), kind=kind)
            axes[row, column].set_title("")
        axes[0, column].set_title(f"{trajectory.task.formula}, decay {decay:g}\n{accuracy}", fontsize=8)
    figure.suptitle(plan.about, fontsize=8, parse_math=False)
    return figure


def clearest_structure(trajectory: Trajectory) -> Series:
    """Print the scores of the last output layer; return the measure with the subgroup of the best clusters."""
    last = trajectory[-1:]
    if trajectory.task.circle is not None:
        series = measures.evaluate("unembedding", last)
        print(f"  circularity {series['circularity'][-1]:.3f} (shuffled {series['circularity_shuffled'][-1]:.3f})")
        return series
    candidates = {
        name: measures.evaluate("unembedding", last, subgroup=generators) for name, generators in SUBGROUPS.items()
    }
    for name, series in candidates.items():
        sides = [
            f"{side} cosets {series[f'{side}_silhouette'][-1]:.3f} "
            f"(shuffled {series[f'{side}_silhouette_shuffled'][-1]:.3f})"
            for side in ("left", "right")
        ]
        print(f"  silhouette by {name:<16}{', '.join(sides)}")
    return max(candidates.values(), key=lambda s: max(s["left_silhouette"][-1], s["right_silhouette"][-1]))


if __name__ == "__main__":
    analysis(main, "unembedding")
