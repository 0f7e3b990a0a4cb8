"""Representations and cosets over the step: shares, logit similarity, restricted and excluded loss, silhouettes."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures._axes import broken_at_gaps, draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures._style import BLUE, GREEN, GREY, ORANGE, PAGE_WIDTH, PURPLE, SKY, VERMILLION
from grokscope.figures.curves import plot_accuracies
from grokscope.series import Series

_BLACK = "#202020"
_LOOKS = tuple(
    zip(
        (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, _BLACK),
        ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), "-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), "-"),
        strict=True,
    )
)
"""A colour and a line style for each curve that is told apart; colours that look alike differ in style."""
_LABELS = {
    "embedding_shares": "share of W_E's variance",
    "unembedding_shares": "share of W_U's variance",
    "neuron_shares": "share of neurons' variance",
    "logit_shares": "share of logits' square",
    "logit_similarity": "logit similarity",
}


def plot_representations(series: Series, name: str, *, ax: Axes) -> Axes:
    """Draw one array of the measure `representations`, a curve a representation, with its controls.

    The key representations come first, marked *, then those that reach the largest share of W_E; beyond seven all
    are thin and grey. Dotted in the same colour: the elements in random orders, where the series has them. A cross on
    the left: the untrained model.
    """
    values = series[name]
    for i, (colour, style, label) in _chosen(series).items():
        is_told = label is not None
        width = 1.6 if i in series["key_representations"] else 1.0 if is_told else 0.6
        steps, curve = broken_at_gaps(series, values[:, i])
        ax.plot(steps, curve, color=colour, linestyle=style, linewidth=width, label=label, zorder=3 if is_told else 2)
        if is_told and f"{name}_shuffled" in series:
            steps, curve = broken_at_gaps(series, series[f"{name}_shuffled"][:, i])
            ax.plot(steps, curve, color=colour, linestyle=":", linewidth=0.9, zorder=2)
        if is_told:
            start = float(series[f"{name}_initialization"][i])
            ax.plot([0], [start], color=colour, marker="x", markersize=4, linestyle="", clip_on=False, zorder=4)
    ax.set_ylabel(_LABELS.get(name, name.replace("_", " ")))
    return finish_over_steps(series, ax)


def plot_representation_losses(series: Series, *, ax: Axes) -> Axes:
    """Draw the restricted and the excluded loss, in all and for each key representation, beside the whole loss."""
    looks = _chosen(series)
    # Colours are the representations'; what is of all together is black or grey.
    draw_line(series, "train_loss", ax, GREY, "train", linewidth=1.0)
    draw_line(series, "loss", ax, GREY, "all pairs", linewidth=1.0, linestyle="-.")
    draw_line(series, "restricted_loss", ax, _BLACK, "restricted (all pairs)", linestyle="--")
    draw_line(series, "excluded_loss", ax, _BLACK, "excluded (train)", linestyle="-")
    for column, i in enumerate(series["key_representations"]):
        if i in looks and looks[i][2]:
            steps, curve = broken_at_gaps(series, series["excluded_loss_by_representation"][:, column])
            name = series.words("representations")[i]
            ax.plot(steps, curve, color=looks[i][0], linestyle=":", linewidth=1.2, label=f"without {name} (train)")
    start = float(series["loss_initialization"])
    ax.plot([0], [start], color=GREY, marker="x", markersize=4, linestyle="", clip_on=False)
    ax.set_yscale("log")
    ax.set_ylabel("cross-entropy (nats)")
    return finish_over_steps(series, ax)


def plot_silhouettes(series: Series, place: str, *, ax: Axes, n_most: int = 6) -> Axes:
    """Draw how well the cosets of a few classes of subgroups are clusters of the "embedding" or "unembedding".

    Left cosets are solid, right ones dashed, dotted the shuffled control of the left; a cross on the left is the
    untrained model. The classes are the `n_most` whose silhouette at the last step, of W_E or W_U, is farthest above
    the control's. Raise ValueError for a series without cosets.
    """
    if "subgroups" not in series:
        raise ValueError("the series has no cosets: its group has no subgroups to try, or too many")
    names, orders, n = series.words("subgroups"), series["subgroup_orders"], series["subgroup_elements"].shape[1]
    for (colour, _), i in zip(_LOOKS, _clearest_classes(series)[:n_most], strict=False):
        label = f"{names[i]}: {n // orders[i]} cosets of {orders[i]}"
        for key, style, said in ((f"{place}_left_silhouette", "-", label), (f"{place}_right_silhouette", "--", None)):
            steps, curve = broken_at_gaps(series, series[key][:, i])
            ax.plot(steps, curve, color=colour, linestyle=style, linewidth=1.3, label=said)
        left = f"{place}_left_silhouette"
        steps, curve = broken_at_gaps(series, series[f"{left}_shuffled"][:, i])
        ax.plot(steps, curve, color=colour, linestyle=":", linewidth=0.9)
        start = float(series[f"{left}_initialization"][i])
        ax.plot([0], [start], color=colour, marker="x", markersize=4, linestyle="", clip_on=False)
    ax.set_ylabel(f"silhouette, {'W_E' if place == 'embedding' else 'W_U'}")
    return finish_over_steps(series, ax)


def figure_representations(log: Series, series: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return accuracy, W_E's shares, the logit similarity, and restricted and excluded loss, on one step axis."""
    figure, axes = stack_over_steps([0.9, 1.5, 1.1, 1.5], width)
    plot_accuracies(log, ax=axes[0])
    plot_representations(series, "embedding_shares", ax=axes[1])
    plot_representations(series, "logit_similarity", ax=axes[2])
    plot_representation_losses(series, ax=axes[3])
    axes[2].legend().remove()
    axes[-1].set_xlabel("step (optimizer updates). * key; dotted: elements in random orders; cross: untrained")
    return with_stages(figure, log, axes)


def figure_cosets(log: Series, series: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return accuracy and the silhouettes of cosets in W_E and W_U on one step axis."""
    figure, axes = stack_over_steps([0.9, 1.8, 1.4], width)
    plot_accuracies(log, ax=axes[0])
    plot_silhouettes(series, "embedding", ax=axes[1])
    plot_silhouettes(series, "unembedding", ax=axes[2])
    axes[2].legend().remove()
    axes[-1].set_xlabel(
        "step (optimizer updates). Solid: left cosets; dashed: right; dotted: shuffled; cross: untrained"
    )
    return with_stages(figure, log, axes)


def _chosen(series: Series) -> dict[int, tuple[str, Any, str | None]]:
    """Return each representation's colour, line style and label; those beyond seven have no label."""
    names, key = series.words("representations"), [int(i) for i in series["key_representations"]]
    similarity = series["logit_similarity"][-1]
    key.sort(key=lambda i: -similarity[i])
    told = key + [int(i) for i in np.argsort(-series["embedding_shares"].max(0), kind="stable") if i not in key]
    looks = dict(zip(told, _LOOKS, strict=False))
    return {
        i: (*looks[i], f"{names[i]}{' *' if i in key else ''}") if i in looks else ("#B0B0B0", "-", None)
        for i in sorted(range(len(names)), key=told.index)
    }


def _clearest_classes(series: Series) -> list[int]:
    sides = [f"{place}_{side}_silhouette" for place in ("embedding", "unembedding") for side in ("left", "right")]
    excess = np.max([series[name][-1] - series[f"{name}_shuffled"][-1] for name in sides], 0)
    return np.argsort(-excess, kind="stable").tolist()
