"""The model card of a run on the Hub: what it is, its headline numbers, a picture, and how to load a step."""

import json

from grokscope import figures, gallery, measures, report
from grokscope._version import __version__
from grokscope.store.record import Record
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
    assert trajectory.path is not None
    config, log = trajectory.config, trajectory.log
    series = report.default_series(measures.kept(trajectory), trajectory)
    rows = [
        f"| {headline.name} | {headline.value} | {headline.context} |"
        for headline in report.headlines(log, series, config.n_steps)
    ]
    tags = ["grokking", "mechanistic-interpretability", "training-dynamics", "transformer-lens"]
    lines = [
        "---",
        f"license: {json.dumps(licence)}",
        "library_name: grokscope",
        f"tags: {json.dumps(tags)}",
        "---",
        "",
        f"# {repo.rpartition('/')[2]}",
        "",
        _description(trajectory),
        "",
        f"**{report.summary(log, config.n_steps, is_fresh=config.task.fresh)}**",
        "",
        *(f"- {sentence}" for sentence in report.details(log, series)),
        "",
        f"![Losses and accuracies over training]({PICTURE})",
        "",
        "| quantity | value | compare with |",
        "|---|---|---|",
        *rows,
        "",
        *_loading(trajectory, repo),
        "",
        *_retraining(Record.read(trajectory.path), trajectory.path.name),
        "",
        "## Files",
        "",
        "- [`report.html`](report.html): one page with all curves, embeddings and spectra, and a slider over the "
        "steps. Download it and open it in a browser.",
        "- `segments/`: the checkpoints under TransformerLens' names, and the log. `measures/`: the measured series.",
        "- `config.json`: settings, versions and history. `SHA256SUMS`: checksums, which a pull compares.",
        "",
        f"Written by grokscope {__version__}. The digest of all checkpoints is `{trajectory.digest}`.",
        "",
    ]
    return "\n".join(lines)


def _description(trajectory: Trajectory) -> str:
    """Return sentences on the network, its task, its training and its checkpoints."""
    config = trajectory.config
    model, optimizer = config.model, config.optimizer
    n_parameters = sum(tensor.numel() for tensor in trajectory.last.parameters.values())
    network = f'A network of the family "{model.family}"'
    if model.family == "transformer":
        layers = "1 layer" if model.n_layers == 1 else f"{model.n_layers} layers"
        neurons = "no MLP" if model.attn_only else f"{model.d_mlp:,} neurons ({model.act_fn})"
        network = f"A transformer with {layers} of width {model.d_model}, {model.n_heads} heads and {neurons}"
    sentences = [f"{network}: {n_parameters:,} parameters."]
    formula = f"`{trajectory.task.formula}`"  # Its asterisks are not Markdown.
    if trajectory.has_split:
        drawn = f"{len(trajectory.split.train):,} of the {len(trajectory.task.inputs):,} equations"
        share = "fresh examples" if config.task.fresh else drawn
        batches = "full batches" if config.batch_size is None else f"batches of {config.batch_size:,}"
        sentences.append(
            f"It was trained on {share} of {formula}, by {optimizer.name} with learning rate {optimizer.lr:g}, "
            f"weight decay {optimizer.weight_decay:g} and {batches}."
        )
    else:
        sentences.append(f"Its task is {formula}.")
    steps = trajectory.steps
    sentences.append(f"The run has {len(steps):,} checkpoints, from step {steps[0]:,} to {steps[-1]:,}.")
    return " ".join(sentences)


def _loading(trajectory: Trajectory, repo: str) -> list[str]:
    """Return the lines that load one step."""
    step, is_transformer = int(trajectory.steps[-1]), trajectory.config.model.family == "transformer"
    load = (
        f"model = trajectory.at({step}).model  # of TransformerLens, with hooks and caches"
        if is_transformer
        else f"parameters = trajectory.at({step}).parameters  # tensors by name"
    )
    usage = "`model(trajectory.task.inputs)[:, -1]` are the logits of all equations. " if is_transformer else ""
    return [
        "## Load one step",
        "",
        "```python",
        "import grokscope",
        "",
        f'trajectory = grokscope.pull("{repo}")',
        load,
        "```",
        "",
        f"{usage}`trajectory.steps` are all steps, and `trajectory.log` has the losses. The pull writes the run to "
        f"`checkpoints/{repo.rpartition('/')[2]}`, which `grokscope.Trajectory.open` opens later.",
    ]


def _retraining(record: Record, name: str) -> list[str]:
    """Return the lines that train the run again, or state where its checkpoints are from."""
    recipe = report.retraining_recipe(record, name)
    lines = ["## Train it again", ""]
    if recipe.file:
        lines += [f"Save this as `{recipe.file_name}`:", "", "```toml", recipe.file.rstrip("\n"), "```", ""]
    if recipe.commands:
        bits = "the same bits" if recipe.is_exact else "the same training, but other bits"
        lines += ["```bash", *recipe.commands, "```", "", f"In the same environment this gives {bits}."]
    return [*lines, *recipe.remarks]
