"""The unembedding W_U as points: t-SNE and principal components, with the circle's lines or the cosets' colours."""

import math
import textwrap

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from grokscope.figures._style import (
    COLUMN_WIDTH,
    FONT_SIZE,
    FRAME_GREY,
    GREY,
    LIGHT_GREY,
    PAGE_WIDTH,
    PALETTE,
    new_figure,
)
from grokscope.series import Series
from grokscope.thinning import nearest_row

# Eight shapes and seven colours have no common divisor, so 56 classes all differ.
_SHAPES = "os^Dv*PX"
_KINDS = ("tsne", "pca")
_COLOURINGS = ("arc", "left coset", "right coset", "none")
_N_ARCS = 8


def plot_unembedding(
    series: Series,
    *,
    ax: Axes,
    step: int,
    kind: str = "tsne",
    colours: str | None = None,
    shift: int | None = None,
) -> Axes:
    """Draw a point for each answer: the columns of W_U in two dimensions.

    On a circle, lines join x and x + `shift`, with x counted along the circle.

    Args:
        series: The measure `unembedding`.
        step: The checkpoint nearest to this step is drawn.
        kind: "tsne", or "pca" for the first two principal components.
        colours: The meaning of the colours, and of the shapes for more than seven classes. "arc" cuts the path along
            the lines into eight arcs. "left coset" and "right coset" are those of the conjugate with the largest
            silhouette at the last step. "none" is a single colour. The default is "arc" on a circle, else the side
            with the larger silhouette, else "none".
        shift: The distance of joined points, for a circle only. The default joins neighbours: for "tsne" the shift
            under which the points move least at the last step, for "pca" the next point at the first component's
            frequency. Power et al. use 8, which makes the eight arcs the classes of x mod 8.

    Raises:
        ValueError: `kind` or `colours` is unknown, or the series has no circle or cosets for `shift` or `colours`.

    References:
        Power et al. 2022, figure 3.
    """
    if kind not in _KINDS or colours not in (None, *_COLOURINGS):
        raise ValueError(f"kind: {kind!r}, allowed: {_KINDS}; colours: {colours!r}, allowed: {_COLOURINGS}")
    row = nearest_row(series.steps, step)
    points = series["tsne" if kind == "tsne" else "principal_components"][row][:, :2]
    # An unembedding of two answers has one component only. Its points lie on a line.
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    n = len(points)
    colours = colours or _default_colours(series)
    if "nearest_shift" in series:
        shift = (shift or _default_shift(series, kind, n)) % n
        ends = np.stack([points, np.roll(points, -shift, 0)], 1)
        ax.add_collection(LineCollection(list(ends), colors=LIGHT_GREY, linewidths=0.6, zorder=1))
    elif shift is not None:
        raise ValueError(f"shift: {shift}, but the series has no circle")
    classes = _classes(series, colours, n, shift)
    for i in range(classes.max() + 1):
        x, y = points[classes == i].T
        shape = _SHAPES[i % len(_SHAPES)] if classes.max() >= len(PALETTE) else "o"
        colour = GREY if colours == "none" else PALETTE[i % len(PALETTE)]
        size = 34 if shape == "*" else 18
        ax.scatter(x, y, s=size, color=colour, marker=shape, linewidths=0.3, edgecolors="white", zorder=2)
    _frame_points(ax, points)
    _label_axes(series, ax, kind, row, shift)
    return ax


def figure_unembedding(series: Series, step: int, *, width: float = PAGE_WIDTH) -> Figure:
    """Return t-SNE and the first two principal components of W_U, with the meaning of the colours below.

    The panels are side by side on a page, and one above the other in a column.

    Args:
        series: The measure `unembedding`.
        step: The checkpoint nearest to this step is drawn.
        width: Width in inches.
    """
    is_narrow = width <= COLUMN_WIDTH
    figure = new_figure(width, 2 * width + 0.3 if is_narrow else width / 2 + 0.45)
    for ax, kind in zip(figure.subplots(*((2, 1) if is_narrow else (1, 2))), _KINDS, strict=True):
        plot_unembedding(series, ax=ax, step=step, kind=kind)
    row = nearest_row(series.steps, step)
    figure.suptitle(f"Columns of the unembedding W_U, step {series.steps[row]:,}", fontsize=FONT_SIZE + 1)
    # About 17 letters fit into an inch.
    figure.supxlabel("\n".join(textwrap.wrap(_colour_key(series, row), int(17 * width))), fontsize=FONT_SIZE)
    return figure


def _default_colours(series: Series) -> str:
    if "nearest_shift" in series:
        return "arc"
    if "left_silhouette" not in series:
        return "none"
    return "left coset" if series["left_silhouette"][-1] >= series["right_silhouette"][-1] else "right coset"


def _default_shift(series: Series, kind: str, n: int) -> int:
    """Return the shift from a point to its neighbour in the plane."""
    if kind == "tsne":
        return int(series["nearest_shift"][-1])
    # At frequency f token x has the angle f·x. With d = gcd(f, n), d tokens share each angle, and the next is d on.
    frequency = int(series["component_frequency"][-1, 0])
    divisor = math.gcd(frequency, n)
    return pow(frequency // divisor, -1, n // divisor)


def _classes(series: Series, colours: str, n: int, shift: int | None) -> Int[np.ndarray, " n"]:
    """Return the class of each point, from 0."""
    if colours == "none":
        return np.zeros(n, np.int64)
    if colours == "arc":
        if shift is None:
            raise ValueError("colours: 'arc', but the series has no circle")
        # If shift and n share a divisor, the lines make that many rounds. The path takes one after another.
        n_rounds = math.gcd(shift, n)
        i = np.arange(n)
        path = (i % (n // n_rounds) * shift + i // (n // n_rounds)) % n
        classes = np.empty(n, np.int64)
        classes[path] = i * _N_ARCS // n
        return classes
    side = colours.split()[0]
    if f"{side}_cosets" not in series:
        raise ValueError(f"colours: {colours!r}, but the series has no cosets")
    return series[f"{side}_cosets"][series[f"{side}_conjugate"][-1]]


def _colour_key(series: Series, row: int) -> str:
    """Return the meaning of the default colours, with the score of the structure and its control."""
    colours = _default_colours(series)
    if colours == "none":
        return ""
    if colours == "arc":
        score, text = "circularity", f"Colour and shape: {_N_ARCS} arcs along the lines. Circularity of PCs 1–4"
    else:
        side = colours.split()[0]
        score = f"{side}_silhouette"
        n_cosets, order = int(series[f"{side}_cosets"].max()) + 1, series["conjugates"].shape[1]
        look = "Colour and shape" if n_cosets > len(PALETTE) else "Colour"
        text = f"{look}: the {n_cosets} {side} cosets of a subgroup of order {order}. Silhouette"
    values = f"{series[score][row]:.2f} (shuffled: {series[f'{score}_shuffled'][row]:.2f})"
    return f"{text}: {values}.".replace(" -", " −")


def _label_axes(series: Series, ax: Axes, kind: str, row: int, shift: int | None) -> None:
    lines = f"; lines join x and x + {shift}" if shift else ""
    if kind == "tsne":
        ax.set_title(f"t-SNE, perplexity {float(series['perplexity']):.3g}{lines}", fontsize=FONT_SIZE)
        names = ("t-SNE 1", "t-SNE 2")
    else:
        ax.set_title(f"Principal components{lines}", fontsize=FONT_SIZE)
        shares = series["explained_variance_ratio"][row]
        names = tuple(f"PC {i + 1} ({share:.0%} of variance)" for i, share in enumerate(shares[:2]))
    ax.set_xlabel(names[0], fontsize=FONT_SIZE)
    ax.set_ylabel(names[1] if len(names) > 1 else "", fontsize=FONT_SIZE)


def _frame_points(ax: Axes, points: Float[np.ndarray, "n 2"]) -> None:
    """Set a square frame around all points without ticks, because the coordinates have no meaningful unit."""
    centre = (points.max(0) + points.min(0)) / 2
    half = float(np.abs(points - centre).max()) * 1.08 or 1.0
    ax.set_xlim(centre[0] - half, centre[0] + half)
    ax.set_ylim(centre[1] - half, centre[1] + half)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(FRAME_GREY)
