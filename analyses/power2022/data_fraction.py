"""How does the time to generalise grow as the data shrink? (Power et al. 2022, figure 1 centre)

Claim: for the product in S5 near 25–30% of the data, one percentage point less costs 40–50% more median updates to
99% test accuracy. The time to 99% train accuracy stays between 10³ and 10⁴.

How to run: grokscope sweep analyses/power2022/data_fraction.toml (full) or data_fraction.reduced.toml (reduced), then
python analyses/power2022/data_fraction.py RUN
Findings: docs/papers/power2022.md
"""

import itertools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures
from grokscope.cli import analysis
from grokscope.sweep import results, sweep_folder

FRACTION = "task.train_fraction"


def main(run: Path) -> Figure:
    """Print median steps with their intervals, and the cost of a percentage point; return the medians."""
    plan = sweep_folder.load(run, [FRACTION])
    rows = results.summarize(results.cell_rows(plan, run), plan.axes)
    for row in rows:
        print(
            f"{row[FRACTION]:.1%}: train 99% at {row['memorized_median']:,.0f}, test 99% at "
            f"{row['generalised_median']:,.0f} [{row['generalised_low']:,.0f} to {row['generalised_high']:,.0f}], "
            f"{row['n_generalised']} of {row['n']} seeds"
        )
    budget = max(cell.config.n_steps for cell in plan.cells)
    for less, more in itertools.pairwise(sorted(rows, key=lambda row: row[FRACTION])):
        if np.isfinite(more["generalised_median"]):
            # A median beyond the budget is replaced by the budget, so the growth is then a lower bound.
            slow = min(less["generalised_median"], budget)
            growth = (slow / more["generalised_median"]) ** (0.01 / (more[FRACTION] - less[FRACTION])) - 1
            at_least = "" if np.isfinite(less["generalised_median"]) else "at least "
            print(
                f"from {more[FRACTION]:.1%} to {less[FRACTION]:.1%}: {at_least}{growth:+.0%} median updates per "
                f"percentage point less"
            )
    figure = figures.new_figure(figures.PAGE_WIDTH, 3)
    ax = figure.subplots()
    figures.plot_median_steps(rows, "memorized", ax=ax, axis=FRACTION, label="99% train accuracy")
    # Line 8 is dashed vermillion, like the test curves of all figures.
    figures.plot_median_steps(rows, "generalised", ax=ax, axis=FRACTION, label="99% test accuracy", line=8)
    figure.suptitle(f"{plan.about}\nOpen markers: beyond the budget", fontsize=8, parse_math=False)
    return figure


if __name__ == "__main__":
    analysis(main, "data_fraction")
