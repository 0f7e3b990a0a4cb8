"""Which regularisation makes a network generalise from less data? (Power et al. 2022, figure 2 left)

Claim: of nine ways to train the product in S5, weight decay helps most, and more than halves the data needed;
decay towards the initialization helps as well, though less than towards zero; noise from minibatches, on the
update or on the weights helps some; the learning rate works within about one order of magnitude.

How to run: grokscope sweep analyses/power2022/variants.toml (full; .reduced.toml: reduced), then
python analyses/power2022/variants.py RUN
Found: analyses/README.md.
"""

from pathlib import Path

from matplotlib.figure import Figure

from grokscope import figures
from grokscope.cli import analysis
from grokscope.config import RunConfig
from grokscope.sweep import results, sweep_folder

FRACTION = "task.train_fraction"


def variant(config: RunConfig) -> str:
    """Return what tells a run's way of training from the others, in words."""
    optimizer = config.optimizer
    parts = [
        (optimizer.update_noise, f"update noise {optimizer.update_noise:g}, full batch"),
        (optimizer.weight_noise, f"weight noise {optimizer.weight_noise:g}"),
        (config.residual_dropout, f"dropout {config.residual_dropout:g}"),
        (optimizer.decay_centre != "zero", f"decay {optimizer.weight_decay:g} to init"),
        (optimizer.weight_decay, f"decay {optimizer.weight_decay:g}"),
        (config.batch_size is None, "full batch"),
    ]
    said = next((words for is_there, words in parts if is_there), "minibatch")
    return f"{said}, lr {optimizer.lr:g}"


def main(run: Path) -> Figure:
    """Print each variant's best test accuracy at each fraction; return them as curves."""
    plan = sweep_folder.load(run, [FRACTION])
    rows = {row["cell"]: row for row in results.table(plan, run) if row["state"] == "finished"}
    by_variant: dict[str, list[results.Row]] = {}
    for cell in plan.cells:
        if cell.name in rows:
            by_variant.setdefault(variant(cell.config), []).append(rows[cell.name])
    medians = {name: results.summary(found, [FRACTION, "seed"]) for name, found in by_variant.items()}
    for name, found in medians.items():
        shown = ", ".join(f"{row[FRACTION]:.0%}: {row['best_test_accuracy_median']:.1%}" for row in found)
        print(f"{name:<42}{shown}")
    return figures.figure_against(
        medians, "best_test_accuracy_median", axis=FRACTION, ylabel="best test accuracy (%)", title=plan.about
    )


if __name__ == "__main__":
    analysis(main, "variants")
