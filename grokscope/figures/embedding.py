"""The embedding: tokens in a plane at one step, small multiples over steps, and the animation of the circle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures._export import animate, caption
from grokscope.figures._style import (
    COLUMN_WIDTH,
    DARK_GREY,
    FONT_SIZE,
    FRAME_GREY,
    LIGHT_GREY,
    PAGE_WIDTH,
    RESIDUE_MAP,
    TOKENS,
    new_figure,
)
from grokscope.series import Series
from grokscope.thinning import nearest_row, spread_by_log_step


def plot_principal_plane(series: Series, *, ax: Axes, step: int, first: int = 0) -> Axes:
    """Draw the tokens on two successive principal components.

    Colours and line follow the order of the tokens on the circle, at the last step's frequency of component `first`.

    Args:
        series: The measure `embedding`.
        step: The checkpoint nearest to this step is drawn.
        first: The index of the horizontal component, from 0.
    """
    row = nearest_row(series.steps, step)
    points = series["principal_components"][row][:, first : first + 2]
    # An embedding of two tokens has one component only. Its points lie on a line.
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    frequency = int(series["component_frequency"][-1, first]) if "component_frequency" in series else None
    return _plot_tokens(points, frequency, ax, int(series.steps[row]))


def plot_frequency_plane(series: Series, *, ax: Axes, step: int, plane: int = 0) -> Axes:
    """Draw the tokens in the plane of a key frequency.

    Args:
        series: The measure `embedding` of a task with a circle.
        step: The checkpoint nearest to this step is drawn.
        plane: The rank of the frequency, from 0 for the strongest at the last step.
    """
    row = nearest_row(series.steps, step)
    frequency = int(series["plane_frequencies"][plane])
    return _plot_tokens(series["frequency_planes"][row, plane], frequency, ax, int(series.steps[row]))


def figure_embedding(embedding: Series, steps: Sequence[int], *, width: float = PAGE_WIDTH) -> Figure:
    """Return small multiples of the embedding, with a column for each step.

    The rows are the first two principal components and the planes of up to two key frequencies. A task without a
    circle has the first row only. All panels of a row have one scale, so that growth and decay are visible.

    Args:
        embedding: The measure `embedding`.
        steps: The checkpoints nearest to these steps are drawn (see `representative_steps`).
        width: Width in inches.
    """
    n_planes = min(2, _n_planes(embedding))
    side = min(width / len(steps), 3.0)
    figure = new_figure(width, side * (1 + n_planes) + 0.2)
    axes = figure.subplots(1 + n_planes, len(steps), squeeze=False)
    for column, step in enumerate(steps):
        plot_principal_plane(embedding, ax=axes[0, column], step=step)
        for plane in range(n_planes):
            plot_frequency_plane(embedding, ax=axes[1 + plane, column], step=step, plane=plane)
            axes[1 + plane, column].set_title("")
    axes[0, 0].set_ylabel("PCs 1 and 2")
    for plane in range(n_planes):
        axes[1 + plane, 0].set_ylabel(f"frequency {embedding['plane_frequencies'][plane]}")
    for row in axes:
        limit = max(abs(edge) for ax in row for edge in (*ax.get_xlim(), *ax.get_ylim()))
        for ax in row:
            _set_limits(ax, limit)
    return figure


def figure_circle(embedding: Series, step: int, *, width: float = COLUMN_WIDTH) -> Figure:
    """Return the embedding at one step: its first two principal components and the plane of the strongest frequency.

    A task without a circle has the first panel only.

    Args:
        embedding: The measure `embedding`.
        step: The checkpoint nearest to this step is drawn.
        width: Width in inches.
    """
    n_panels = 1 + min(1, _n_planes(embedding))
    figure = new_figure(width, min(width / n_panels, 3.0) + 0.3)
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    plot_principal_plane(embedding, ax=axes[0], step=step)
    axes[0].set_title("PCs 1 and 2", fontsize=FONT_SIZE)
    if n_panels > 1:
        plot_frequency_plane(embedding, ax=axes[1], step=step)
        axes[1].set_title(f"frequency {embedding['plane_frequencies'][0]}", fontsize=FONT_SIZE)
    figure.suptitle(caption(int(embedding.steps[nearest_row(embedding.steps, step)]), None), fontsize=FONT_SIZE + 1)
    return figure


def animation(
    embedding: Series, log: Series | None, n_frames: int = 80, *, width: float | None = None, kind: str = "webp"
) -> bytes:
    """Return the circle as it forms: `figure_circle` step by step, as the bytes of an animation.

    Args:
        embedding: The measure `embedding`.
        log: The run's log, which adds the test accuracy to the captions, or None.
        n_frames: The largest number of frames, at least 2. They are spread over the logarithm of the step.
        width: Width in inches. The default is 2.6 for each panel.
        kind: "webp" or "gif".
    """
    limits = [_limit(embedding["principal_components"][:, :, :2])]
    if _n_planes(embedding):
        limits.append(_limit(embedding["frequency_planes"][:, 0]))
    figure = figure_circle(embedding, 0, width=width or 2.6 * len(limits))

    def draw_frame(row: int) -> str:
        step = int(embedding.steps[row])
        for plane, (ax, limit) in enumerate(zip(figure.axes, limits, strict=True)):
            for artist in [*ax.lines, *ax.collections]:
                artist.remove()
            title = ax.get_title()
            if plane:
                plot_frequency_plane(embedding, ax=ax, step=step)
            else:
                plot_principal_plane(embedding, ax=ax, step=step)
            ax.set_title(title, fontsize=FONT_SIZE)
            _set_limits(ax, limit)
        return caption(step, log)

    return animate(figure, draw_frame, spread_by_log_step(embedding.steps, n_frames).tolist(), kind)


def _plot_tokens(points: Float[np.ndarray, "n 2"], frequency: int | None, ax: Axes, step: int) -> Axes:
    """Draw a point for each token. With a frequency, colour and join the points in the order of the circle."""
    n = len(points)
    colours: dict[str, Any] = {"color": TOKENS}
    if frequency is not None:
        position = np.arange(n) * frequency % n
        colours = {"c": position / n, "cmap": colormaps[RESIDUE_MAP], "vmin": 0, "vmax": 1}
        # Tokens share a position if the frequency divides n. The stable order then joins one round after another.
        order = np.argsort(position, kind="stable")
        path = points[np.append(order, order[0])]
        ax.plot(path[:, 0], path[:, 1], color=LIGHT_GREY, linewidth=0.5, zorder=1, label="_joining line")
    edge: dict[str, Any] = {"linewidths": 0.2, "edgecolors": DARK_GREY}
    ax.scatter(points[:, 0], points[:, 1], **colours, s=7, zorder=2, **edge, label="_tokens")
    _set_limits(ax, _limit(points))
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.yaxis.label.set_fontsize(FONT_SIZE)
    ax.set_title(f"step {step:,}", fontsize=FONT_SIZE)
    for spine in ax.spines.values():
        spine.set_color(FRAME_GREY)
    return ax


def _n_planes(embedding: Series) -> int:
    return len(embedding["plane_frequencies"]) if "plane_frequencies" in embedding else 0


def _limit(points: Float[np.ndarray, "*steps n axes"]) -> float:
    """Return the half width of a square around 0 with all points, and 1 if all points are at 0."""
    return float(np.abs(points).max()) * 1.08 or 1.0


def _set_limits(ax: Axes, limit: float) -> None:
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)
