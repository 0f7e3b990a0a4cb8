"""Group composition over the steps: representations in weights and logits, their losses, and clusters of cosets."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures._axes import (
    add_key,
    draw_line,
    draw_untrained,
    draw_values,
    finish_stack,
    finish_step_axes,
    stack_panels,
)
from grokscope.figures._style import GREY, OTHER, PAGE_WIDTH, REFERENCE, REPRESENTATION_LOOKS, Look
from grokscope.figures.curves import plot_accuracies
from grokscope.series import Series

_BLACK = REPRESENTATION_LOOKS[-1].colour
_LABELS = {
    "embedding_shares": "share of W_E variance",
    "unembedding_shares": "share of W_U variance",
    "neuron_shares": "share of neuron variance",
    "logit_shares": "share of squared logits",
    "logit_similarity": "logit similarity",
}


def plot_representations(series: Series, name: str, *, ax: Axes) -> Axes:
    """Draw one quantity of each representation, with its controls.

    At most seven representations have a colour and a label: first the key ones, then those with the largest
    share of W_E at any step. The others are grey.

    Args:
        series: The measure `representations`.
        name: The quantity, such as "embedding_shares" or "logit_similarity".
    """
    values, key = series[name], set(series["key_representations"].tolist())
    for i, (look, label) in _ranked_looks(series).items():
        width = 1.6 if i in key else 1.0 if label else 0.6
        draw_values(series, values[:, i], ax, label, look, linewidth=width, zorder=3 if label else 2)
    for i, (look, label) in _ranked_looks(series).items():
        if label and f"{name}_shuffled" in series:
            shuffled = series[f"{name}_shuffled"][:, i]
            draw_values(series, shuffled, ax, f"_{label}, shuffled", Look(look.colour, ":"), linewidth=0.9)
            add_key(ax, "shuffled elements", Look(GREY, ":"))
        if label:
            draw_untrained(ax, float(series[f"{name}_initialization"][i]), look.colour)
    return finish_step_axes(series, ax, _LABELS.get(name, name.replace("_", " ")))


def plot_representation_losses(series: Series, *, ax: Axes) -> Axes:
    """Draw restricted and excluded loss, of all key representations and of each, with the loss of the full logits.

    Curves of a single representation have its colour. All others are black or grey.

    Args:
        series: The measure `representations`.
    """
    looks = _ranked_looks(series)
    draw_line(series, "train_loss", ax, "train", REFERENCE, linewidth=1.0)
    draw_line(series, "loss", ax, "all pairs", Look(GREY, "-."), linewidth=1.0)
    draw_line(series, "restricted_loss", ax, "restricted (all pairs)", Look(_BLACK, "--"))
    draw_line(series, "excluded_loss", ax, "excluded (train)", Look(_BLACK, "-"))
    for column, i in enumerate(series["key_representations"].tolist()):
        look, label = looks[i]
        if label:
            losses, name = series["excluded_loss_by_representation"][:, column], series.words("representations")[i]
            draw_values(series, losses, ax, f"without {name} (train)", Look(look.colour, ":"), linewidth=1.2)
    draw_untrained(ax, float(series["loss_initialization"]), GREY)
    ax.set_yscale("log")
    return finish_step_axes(series, ax, "softmax loss (nats)")


def plot_silhouettes(series: Series, place: str, *, ax: Axes, n_most: int = 6) -> Axes:
    """Draw how well the cosets of some subgroups cluster: left cosets solid, right dashed, shuffled left dotted.

    Args:
        series: The measure `representations` with cosets.
        place: "embedding" or "unembedding".
        n_most: The number of classes of subgroups, at most 7: those whose silhouette, of any side and in either
            place, exceeds its control most at the last step.

    Raises:
        ValueError: The series has no cosets.
    """
    if "subgroups" not in series:
        raise ValueError("the series has no cosets: its group has no subgroups to try, or too many")
    names, orders, n = series.words("subgroups"), series["subgroup_orders"], series["subgroup_elements"].shape[1]
    left, right = f"{place}_left_silhouette", f"{place}_right_silhouette"
    for (colour, *_), i in zip(REPRESENTATION_LOOKS, _clearest_classes(series)[:n_most], strict=False):
        label = f"{names[i]}: {n // orders[i]} cosets of {orders[i]}"
        draw_values(series, series[left][:, i], ax, label, Look(colour, "-"), linewidth=1.3)
        draw_values(series, series[right][:, i], ax, f"_{label}, right", Look(colour, "--"), linewidth=1.3)
        shuffled = series[f"{left}_shuffled"][:, i]
        draw_values(series, shuffled, ax, f"_{label}, shuffled", Look(colour, ":"), linewidth=0.9)
    for label, style in (("left cosets", "-"), ("right cosets", "--"), ("shuffled elements", ":")):
        add_key(ax, label, Look(GREY, style))
    for (colour, *_), i in zip(REPRESENTATION_LOOKS, _clearest_classes(series)[:n_most], strict=False):
        draw_untrained(ax, float(series[f"{left}_initialization"][i]), colour)
    return finish_step_axes(series, ax, f"silhouette in {'W_E' if place == 'embedding' else 'W_U'}")


def figure_representations(log: Series, series: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the accuracies above the shares of W_E, the logit similarity, and restricted and excluded loss.

    Args:
        log: The run's log.
        series: The measure `representations`.
        width: Width in inches.
    """
    figure, axes = stack_panels([0.9, 1.5, 1.1, 1.5], width)
    plot_accuracies(log, ax=axes[0])
    plot_representations(series, "embedding_shares", ax=axes[1])
    plot_representations(series, "logit_similarity", ax=axes[2])
    plot_representation_losses(series, ax=axes[3])
    axes[2].legend().remove()
    return finish_stack(figure, log, axes)


def figure_cosets(log: Series, series: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the accuracies above the silhouettes of cosets in W_E and in W_U.

    Args:
        log: The run's log.
        series: The measure `representations` with cosets.
        width: Width in inches.

    Raises:
        ValueError: The series has no cosets.
    """
    figure, axes = stack_panels([0.9, 1.8, 1.4], width)
    plot_accuracies(log, ax=axes[0])
    plot_silhouettes(series, "embedding", ax=axes[1])
    plot_silhouettes(series, "unembedding", ax=axes[2])
    axes[2].legend().remove()
    return finish_stack(figure, log, axes)


def _ranked_looks(series: Series) -> dict[int, tuple[Look, str | None]]:
    """Return the look and the label of each representation, by importance; no label from the eighth on.

    Key representations come first, by their logit similarity at the last step, then the others by their largest
    share of W_E.
    """
    names, key = series.words("representations"), series["key_representations"].tolist()
    similarity = series["logit_similarity"][-1]
    key.sort(key=lambda i: -similarity[i])
    by_share = np.argsort(-series["embedding_shares"].max(0), kind="stable").tolist()
    ranked = key + [i for i in by_share if i not in key]
    labels = {i: f"{names[i]} (key)" if i in key else names[i] for i in ranked[: len(REPRESENTATION_LOOKS)]}
    looks = dict(zip(ranked, REPRESENTATION_LOOKS, strict=False))
    return {i: (looks.get(i, OTHER), labels.get(i)) for i in ranked}


def _clearest_classes(series: Series) -> list[int]:
    """Return the classes of subgroups, from the one whose silhouette exceeds its control most."""
    names = [f"{layer}_{side}_silhouette" for layer in ("embedding", "unembedding") for side in ("left", "right")]
    excess = np.max([series[name][-1] - series[f"{name}_shuffled"][-1] for name in names], 0)
    return np.argsort(-excess, kind="stable").tolist()
