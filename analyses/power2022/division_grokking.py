"""Does division grok decades of steps after it is memorized? (Power et al. 2022, figure 1 left)

Claim: on division mod 97 with half of the equations, train accuracy is near 1 before 10³ updates, and test accuracy
only near 10⁶. The optimizer is Adam without weight decay.

How to run: grokscope sweep analyses/power2022/division_grokking.toml (full) or division_grokking.reduced.toml
(reduced), then python analyses/power2022/division_grokking.py RUN
Findings: docs/papers/power2022.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures, phases
from grokscope.cli import analysis
from grokscope.sweep import sweep_folder
from grokscope.trajectory import Trajectory


def main(run: Path) -> Figure:
    """Print when each run memorized and generalised; return its train and test accuracy."""
    plan = sweep_folder.load(run)
    logs = {}
    for cell in sweep_folder.finished_cells(plan, run):
        log = Trajectory.open(run / cell.name).log
        memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
        task, optimizer = cell.config.task, cell.config.optimizer
        title = f"{optimizer.name}, decay {optimizer.weight_decay:g}, {task.train_fraction:.0%} of mod {task.p}"
        print(
            f"{title}, seed {cell.config.init_seed}: train 99% at {memorized or 'no step'}, test 99% at "
            f"{generalised or 'no step'}; best test accuracy {log['test_accuracy'].max():.1%} in "
            f"{log.steps[-1]:,} steps"
        )
        logs[f"{title}\nseed {cell.config.init_seed}"] = log
    return figures.figure_train_and_test(logs, "accuracy", title=plan.about)


if __name__ == "__main__":
    analysis(main, "division_grokking")
