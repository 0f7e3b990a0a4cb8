"""How does the time to generalise grow as the data shrink? (Power et al. 2022, figure 1 centre)

Claim: for the product in S5 near 25-30% of the data, one percentage point less costs 40-50% more median updates to
99% test accuracy, while the time to 99% train accuracy stays within 10³ to 10⁴.

How to run: grokscope sweep analyses/power2022/data_fraction.toml (full; .reduced.toml: reduced), then
python analyses/power2022/data_fraction.py RUN
Found: analyses/README.md.
"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from grokscope import figures, sweep
from grokscope.cli import analysis
from grokscope.sweep import results

FRACTION = "task.train_fraction"


def main(run: Path) -> Figure:
    """Print medians with their intervals and the cost of a percentage point; return both against the fraction."""
    plan = sweep.load(run)
    rows = results.summary(results.table(plan, run), plan.axes)
    for row in rows:
        print(
            f"{row[FRACTION]:.1%}: train 99% at {row['memorized_median']:,.0f}, test 99% at "
            f"{row['generalised_median']:,.0f} [{row['generalised_low']:,.0f} to {row['generalised_high']:,.0f}], "
            f"{row['n_generalised']} of {row['n']} seeds"
        )
    reached = [(row[FRACTION], row["generalised_median"]) for row in rows if np.isfinite(row["generalised_median"])]
    for (low, slow), (high, fast) in zip(reached, reached[1:], strict=False):
        growth = (slow / fast) ** (0.01 / (high - low)) - 1
        print(f"from {high:.1%} down to {low:.1%}: {growth:+.0%} median updates for a percentage point less")
    figure = figures.new_figure(figures.PAGE_WIDTH, 3)
    ax = figure.subplots()
    figures.plot_median_steps(rows, "memorized", ax=ax, axis=FRACTION, label="99% train accuracy")
    figures.plot_median_steps(rows, "generalised", ax=ax, axis=FRACTION, label="99% test accuracy", line=8)
    figure.suptitle(f"{plan.about}\nOpen marks: later than the budget", fontsize=8)
    return figure


if __name__ == "__main__":
    analysis(main, "data_fraction")
