"""Which operations generalise from how much data? (Power et al. 2022, figure 2 right)

Claim: symmetric operations (a + b, a·b, a² + b², a² + ab + b²) need less data than similar ones that are not
symmetric. a³ + ab² + b never generalises within 10⁵ updates, up to 95% of the data.

How to run: grokscope sweep analyses/power2022/operations.toml (full) or operations.reduced.toml (reduced), then
python analyses/power2022/operations.py RUN
Findings: docs/papers/power2022.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, tasks
from grokscope.cli import analysis
from grokscope.sweep import results, sweep_folder

FRACTION = "task.train_fraction"


def main(run: Path) -> Figure:
    """Print the best test accuracy of each operation at each train fraction; return them as curves."""
    plan = sweep_folder.load(run, [FRACTION, "task.name"])
    rows = results.summarize(results.cell_rows(plan, run), plan.axes)
    operations = {cell.config.task.name: tasks.build(cell.config.task) for cell in plan.cells}
    groups = {}
    for name, task in operations.items():
        groups[task.formula] = [row for row in rows if row["task.name"] == name]
        accuracies = ", ".join(
            f"{row[FRACTION]:.0%}: {row['best_test_accuracy_median']:.1%}" for row in groups[task.formula]
        )
        print(f"{task.formula:<42}{'symmetric' if task.is_commutative else '':<11}{accuracies}")
    return figures.figure_against(
        groups, "best_test_accuracy_median", axis=FRACTION, ylabel="best test accuracy (%)", title=plan.about
    )


if __name__ == "__main__":
    analysis(main, "operations")
