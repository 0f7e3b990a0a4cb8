"""The unembedding's points: t-SNE and principal components, with the circle's lines or the cosets' colours."""

import math
import textwrap

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from grokscope.figures._style import COLUMN_WIDTH, FONT_SIZE, GREY, PAGE_WIDTH, PALETTE, new_figure
from grokscope.series import Series

# As many shapes as are no multiple of the colours' number, so that 56 classes all look different.
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
    """Draw the columns of W_U at the checkpoint nearest to `step` (Power et al. 2022, figure 3).

    `kind` is "tsne" or "pca" (the first two principal components). For a circle, lines join x and x + `shift`, x
    counted along the circle; by default `shift` is the one under which the points move least at the last step, and
    for "pca" the one that is next round the circle at the first component's frequency there. `colours` is what a
    point's colour stands for, and beyond seven classes its shape: "arc" (the path along those lines cut into eight
    arcs), "left coset" or "right coset" (of the conjugate whose silhouette is the largest at the last step), or
    "none". By default it is the arc where the series has a circle, else the side of the larger silhouette, else none.

    Power et al. take `shift` 8, which suits their network; the eight arcs are then the classes of x mod 8, their
    colours. Raise ValueError for another `kind`, and for `colours` or a `shift` that the series has no use for.
    """
    if kind not in _KINDS or colours not in (None, *_COLOURINGS):
        raise ValueError(f"kind: {kind!r}, allowed: {_KINDS}; colours: {colours!r}, allowed: {_COLOURINGS}")
    row = _nearest(series, step)
    points = series["tsne" if kind == "tsne" else "principal_components"][row][:, :2]
    # Two points have one component alone: they are drawn on a line.
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    n = len(points)
    colours = colours or _usual_colours(series)
    if "nearest_shift" in series:
        shift = (shift or _usual_shift(series, kind, n)) % n
        ends = np.stack([points, np.roll(points, -shift, 0)], 1)
        ax.add_collection(LineCollection(list(ends), colors="#B0B0B0", linewidths=0.6, zorder=1))
    elif shift is not None:
        raise ValueError(f"shift: {shift}, but the series has no circle")
    classes = _classes(series, colours, n, shift)
    for one in range(classes.max() + 1):
        x, y = points[classes == one].T
        shape = _SHAPES[one % len(_SHAPES)] if classes.max() >= len(PALETTE) else "o"
        colour = GREY if colours == "none" else PALETTE[one % len(PALETTE)]
        size = 34 if shape == "*" else 18
        ax.scatter(x, y, s=size, color=colour, marker=shape, linewidths=0.3, edgecolors="white", zorder=2)
    _frame(ax, points)
    _name_axes(series, ax, kind, row, shift)
    return ax


def figure_unembedding(series: Series, step: int, *, width: float = PAGE_WIDTH) -> Figure:
    """Return t-SNE and the first two principal components, and under them what the colours say.

    They are beside each other, or, where `width` is a column's, one above the other.
    """
    is_narrow = width <= COLUMN_WIDTH
    figure = new_figure(width, 2 * width + 0.3 if is_narrow else width / 2 + 0.45)
    for ax, kind in zip(figure.subplots(*((2, 1) if is_narrow else (1, 2))), _KINDS, strict=True):
        plot_unembedding(series, ax=ax, step=step, kind=kind)
    row = _nearest(series, step)
    figure.suptitle(f"Columns of the unembedding W_U, step {series.steps[row]:,}", fontsize=FONT_SIZE + 1)
    # Some 17 signs of this size are an inch.
    figure.supxlabel("\n".join(textwrap.wrap(_legend(series, row), int(17 * width))), fontsize=FONT_SIZE)
    return figure


def _usual_colours(series: Series) -> str:
    if "nearest_shift" in series:
        return "arc"
    if "left_silhouette" not in series:
        return "none"
    return "left coset" if series["left_silhouette"][-1] >= series["right_silhouette"][-1] else "right coset"


def _usual_shift(series: Series, kind: str, n: int) -> int:
    if kind == "tsne":
        return int(series["nearest_shift"][-1])
    # At frequency f token x has the angle f·x; where f divides n, several share one, and the next is gcd(f, n) on.
    frequency = int(series["component_frequency"][-1, 0])
    shared = math.gcd(frequency, n)
    return pow(frequency // shared, -1, n // shared)


def _classes(series: Series, colours: str, n: int, shift: int | None) -> Int[np.ndarray, " n"]:
    if colours == "none":
        return np.zeros(n, np.int64)
    if colours == "arc":
        if shift is None:
            raise ValueError("colours: 'arc', but the series has no circle")
        # Where shift and n share a divisor, the lines make that many rounds: one after the other.
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


def _legend(series: Series, row: int) -> str:
    colours = _usual_colours(series)
    if colours == "none":
        return ""
    if colours == "arc":
        found, control = "circularity", "circularity_shuffled"
        said = f"Colour and shape: {_N_ARCS} arcs along each panel's lines. Circularity of PCs 1–4"
    else:
        side = colours.split()[0]
        found, control = f"{side}_silhouette", f"{side}_silhouette_shuffled"
        n_cosets, order = int(series[f"{side}_cosets"].max()) + 1, series["conjugates"].shape[1]
        by = "Colour and shape" if n_cosets > len(PALETTE) else "Colour"
        said = f"{by}: the {n_cosets} {side} cosets of a subgroup of order {order}. Their silhouette"
    numbers = f"{series[found][row]:.2f}; shuffled {series[control][row]:.2f}"
    return f"{said} {numbers}.".replace(" -", " −")


def _nearest(series: Series, step: float) -> int:
    return int(np.abs(series.steps - step).argmin())


def _name_axes(series: Series, ax: Axes, kind: str, row: int, shift: int | None) -> None:
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


def _frame(ax: Axes, points: Float[np.ndarray, "n 2"]) -> None:
    """Give the axes a square that holds all points, and no ticks: neither kind has a unit that means anything."""
    centre = (points.max(0) + points.min(0)) / 2
    half = float(np.abs(points - centre).max()) * 1.08 or 1.0
    ax.set_xlim(centre[0] - half, centre[0] + half)
    ax.set_ylim(centre[1] - half, centre[1] + half)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color("#C8C8C8")
