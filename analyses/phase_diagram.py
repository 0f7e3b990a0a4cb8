"""Where in the plane of data and weight decay does a network comprehend, grok, memorize or stay confused?

Claim: training ends in one of four phases, by when train and test accuracy reach 90%: comprehension (test within 10³
steps of train), grokking (later), memorization (train alone), confusion (neither); grokking lies between
comprehension and memorization (Liu et al. 2022, section 4).

How to run: grokscope sweep analyses/phase_diagram.toml, then python analyses/phase_diagram.py RUN
Found: analyses/README.md.
"""

from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures
from grokscope.cli import analysis
from grokscope.sweep import results, sweep_folder

FRACTION, DECAY = "task.train_fraction", "optimizer.weight_decay"


def main(run: Path) -> Figure:
    """Print how many cells are in each phase; return the phase diagram."""
    plan = sweep_folder.load(run, [FRACTION, DECAY])
    rows = [row for row in results.table(plan, run) if row["state"] == "finished"]
    counts = Counter(row["phase"] for row in rows)
    print(f"{len(rows)} of {len(plan.cells)} cells: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
    figure = figures.new_figure(figures.PAGE_WIDTH, 3)
    figures.plot_phase_diagram(rows, ax=figure.subplots(), x=FRACTION, y=DECAY)
    figure.suptitle(plan.about, fontsize=8, parse_math=False)
    return figure


if __name__ == "__main__":
    analysis(main, "phase_diagram")
