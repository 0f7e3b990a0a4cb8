"""At which train fractions and weight decays does a network comprehend, grok, memorize or stay confused?

Claim: a run ends in one of four phases, by the steps at which train and test accuracy reach 90%. In comprehension,
test follows train within 10³ steps. In grokking it follows later. In memorization only train reaches 90%. In
confusion neither does. Grokking lies between comprehension and memorization (Liu et al. 2022, section 4).

How to run: grokscope sweep analyses/phase_diagram.toml, then python analyses/phase_diagram.py RUN
Findings: docs/papers/liu2022.md
"""

from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures
from grokscope.cli import analysis
from grokscope.sweep import results, sweep_folder

FRACTION, DECAY = "task.train_fraction", "optimizer.weight_decay"


def main(run: Path) -> Figure:
    """Print the number of runs in each phase; return the phase diagram."""
    plan = sweep_folder.load(run, [FRACTION, DECAY])
    rows = [row for row in results.cell_rows(plan, run) if row["state"] == "finished"]
    counts = ", ".join(f"{n} {phase}" for phase, n in Counter(row["phase"] for row in rows).most_common())
    print(f"{len(rows)} of {len(plan.cells)} runs: {counts}")
    figure = figures.new_figure(figures.PAGE_WIDTH, 3)
    figures.plot_phase_diagram(rows, ax=figure.subplots(), x=FRACTION, y=DECAY)
    figure.suptitle(plan.about, fontsize=8, parse_math=False)
    return figure


if __name__ == "__main__":
    analysis(main, "phase_diagram")
