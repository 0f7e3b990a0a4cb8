"""Which regularisation lets a network generalise from less data? (Power et al. 2022, figure 2 left)

Claim: of nine ways to train the product in S5, weight decay helps most, and more than halves the data needed. Decay
towards the initialization helps too, but less than decay towards zero. Noise from minibatches, on the update or on
the weights helps somewhat. The learning rate works within about one order of magnitude.

How to run: grokscope sweep analyses/power2022/variants.toml (full) or variants.reduced.toml (reduced), then
python analyses/power2022/variants.py RUN
Findings: docs/papers/power2022.md
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures
from grokscope.cli import analysis
from grokscope.config import RunConfig
from grokscope.sweep import results, sweep_folder

FRACTION = "task.train_fraction"


def main(run: Path) -> Figure:
    """Print the best test accuracy of each variant at each train fraction; return them as curves."""
    plan = sweep_folder.load(run, [FRACTION])
    finished = {row["cell"]: row for row in results.cell_rows(plan, run) if row["state"] == "finished"}
    by_variant: dict[str, list[results.Row]] = {}
    for cell in plan.cells:
        if cell.name in finished:
            by_variant.setdefault(variant(cell.config), []).append(finished[cell.name])
    medians = {name: results.summarize(rows, [FRACTION, "seed"]) for name, rows in by_variant.items()}
    for name, rows in medians.items():
        accuracies = ", ".join(f"{row[FRACTION]:.0%}: {row['best_test_accuracy_median']:.1%}" for row in rows)
        print(f"{name:<42}{accuracies}")
    return figures.figure_against(
        medians, "best_test_accuracy_median", axis=FRACTION, ylabel="best test accuracy (%)", title=plan.about
    )


def variant(config: RunConfig) -> str:
    """Return a short name of the regularisation of a run, with its learning rate."""
    optimizer = config.optimizer
    names = [
        (optimizer.update_noise, f"update noise {optimizer.update_noise:g}, full batch"),
        (optimizer.weight_noise, f"weight noise {optimizer.weight_noise:g}"),
        (config.residual_dropout, f"dropout {config.residual_dropout:g}"),
        (optimizer.decay_centre != "zero", f"decay {optimizer.weight_decay:g} to init"),
        (optimizer.weight_decay, f"decay {optimizer.weight_decay:g}"),
        (config.batch_size is None, "full batch"),
    ]
    name = next((name for is_used, name in names if is_used), "minibatch")
    return f"{name}, lr {optimizer.lr:g}"


if __name__ == "__main__":
    analysis(main, "variants")
