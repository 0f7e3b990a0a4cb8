"""The model card of a run on the Hub: what it is, its headline numbers, a picture, and how to load a step."""

import json

from grokscope import figures, gallery, measures, report
from grokscope._version import __version__
from grokscope.tasks import Task
from grokscope.trajectory import Trajectory

PICTURE = "losses.png"
"""The name of the picture's file."""


def picture(trajectory: Trajectory) -> bytes:
    """Return a PNG with the losses and accuracies over training."""
    return figures.encoded(gallery.figure("losses", gallery.FigureRequest(trajectory)), "png", dpi=120)


def text(trajectory: Trajectory, repo: str, licence: str) -> str:
    """Return the card as Markdown with the metadata that the Hub reads.

    Args:
        trajectory: A run on disk, with the measures of its page.
        repo: The repository, "org/name".
        licence: The licence's name on the Hub, such as "mit" or "cc-by-4.0".
    """
    config, log, task = trajectory.config, trajectory.log, trajectory.task
    name, step = repo.rpartition("/")[2], int(trajectory.steps[-1])
    series = report.default_series(measures.kept(trajectory), trajectory)
    rows = [
        f"| {headline.name} | {headline.value} | {headline.context} |"
        for headline in report.headlines(log, series, config.n_steps)
    ]
    tags = ["grokking", "mechanistic-interpretability", "training-dynamics", "transformer-lens"]
    return "\n".join(
        [
            "---",
            f"license: {json.dumps(licence)}",
            "library_name: grokscope",
            f"tags: {json.dumps(tags)}",
            "---",
            "",
            f"# {name}",
            "",
            _description(trajectory, task),
            "",
            report.summary(log, config.n_steps),
            *report.details(log, series),
            "",
            f"![Losses and accuracies over training]({PICTURE})",
            "",
            "| quantity | value | compare with |",
            "|---|---|---|",
            *rows,
            "",
            "## Load one step",
            "",
            "```python",
            f'trajectory = grokscope.pull("{repo}")  # or: grokscope pull {repo}',
            f"model = trajectory.at({step}).model  # for TransformerLens; any step of trajectory.steps",
            "```",
            "",
            f"`report.html` shows the whole run. Written by grokscope {__version__}; the checkpoints' digest is "
            f"`{trajectory.digest}`.",
            "",
        ]
    )


def _description(trajectory: Trajectory, task: Task) -> str:
    """Return two sentences on the network and its training."""
    model = trajectory.config.model
    n_parameters = sum(tensor.numel() for tensor in trajectory.last.parameters.values())
    layers = "layer" if model.n_layers == 1 else "layers"
    return (
        f"A transformer of {model.n_layers} {layers} and {n_parameters:,} parameters, trained on {task.formula}. "
        f"The run has {len(trajectory):,} checkpoints, from step {int(trajectory.steps[0]):,} to "
        f"{int(trajectory.steps[-1]):,}."
    )
