"""The embedding circle: one plane at one step, small multiples over steps, and the animation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope import phases
from grokscope.figures._export import animate, caption
from grokscope.figures._style import BLUE, COLUMN_WIDTH, FONT_SIZE, PAGE_WIDTH, new_figure
from grokscope.series import Series
from grokscope.thinning import spread_by_log_step

_RESIDUES = "twilight_shifted"


def plot_principal_plane(series: Series, *, ax: Axes, step: int, first: int = 0) -> Axes:
    """Draw the tokens on principal components `first` and `first` + 1 at the checkpoint nearest to `step`.

    Colours and the joining line follow the circle's order at the frequency of the last step's component.
    """
    row = _nearest(series, step)
    points = series["principal_components"][row][:, first : first + 2]
    # Two points have one component alone: they are drawn on a line.
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    frequency = int(series["component_frequency"][-1, first]) if "component_frequency" in series else None
    return _plot_circle(series, points, frequency, ax, int(series.steps[row]))


def plot_frequency_plane(series: Series, *, ax: Axes, step: int, plane: int = 0) -> Axes:
    """Draw the tokens in the plane of the `plane`-th strongest key frequency at the checkpoint nearest to `step`."""
    row = _nearest(series, step)
    frequency = int(series["plane_frequencies"][plane])
    return _plot_circle(series, series["frequency_planes"][row, plane], frequency, ax, int(series.steps[row]))


def figure_embedding(embedding: Series, steps: Sequence[int], *, width: float = PAGE_WIDTH) -> Figure:
    """Return small multiples of the embedding: a column a step; the principal plane, then key-frequency planes.

    For a task without a circle there is the principal plane alone.
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
    axes[0, 0].set_ylabel("PC 1 and PC 2")
    for plane in range(n_planes):
        axes[1 + plane, 0].set_ylabel(f"frequency {embedding['plane_frequencies'][plane]}")
    for row in axes:
        # One scale a row, so that growth and decay over time are seen.
        limit = max(abs(edge) for ax in row for edge in (*ax.get_xlim(), *ax.get_ylim()))
        for ax in row:
            ax.set_xlim(-limit, limit)
            ax.set_ylim(-limit, limit)
    return figure


def figure_circle(embedding: Series, step: int, *, width: float = COLUMN_WIDTH) -> Figure:
    """Return one step's embedding: the principal plane and, beside it, the plane of the strongest key frequency."""
    n = 1 + min(1, _n_planes(embedding))
    figure = new_figure(width, min(width / n, 3.0) + 0.3)
    axes = figure.subplots(1, n, squeeze=False)[0]
    plot_principal_plane(embedding, ax=axes[0], step=step)
    axes[0].set_title("principal components", fontsize=FONT_SIZE)
    if n > 1:
        plot_frequency_plane(embedding, ax=axes[1], step=step)
        axes[1].set_title(f"plane of frequency {embedding['plane_frequencies'][0]}", fontsize=FONT_SIZE)
    figure.suptitle(caption(int(embedding.steps[_nearest(embedding, step)]), None), fontsize=FONT_SIZE + 1)
    return figure


def animation(
    embedding: Series, log: Series | None, n_frames: int = 80, *, width: float | None = None, kind: str = "webp"
) -> bytes:
    """Return an animated WebP, or GIF, of the circle forming: `figure_circle` step by step.

    Frames are spread over the logarithm of the step, where grokking has its pace; the log, if given, adds the
    test accuracy to the caption.
    """
    limits = [_limit(embedding["principal_components"][:, :, :2])]
    if _n_planes(embedding):
        limits.append(_limit(embedding["frequency_planes"][:, 0]))
    figure = figure_circle(embedding, 0, width=width or 2.6 * len(limits))

    def frame(row: int) -> str:
        step = int(embedding.steps[row])
        for plane, (ax, limit) in enumerate(zip(figure.axes, limits, strict=True)):
            for before in [*ax.lines, *ax.collections]:
                before.remove()
            title = ax.get_title()
            if plane:
                plot_frequency_plane(embedding, ax=ax, step=step)
            else:
                plot_principal_plane(embedding, ax=ax, step=step)
            ax.set_title(title, fontsize=FONT_SIZE)
            ax.set_xlim(-limit, limit)
            ax.set_ylim(-limit, limit)
        return caption(step, log)

    return animate(figure, frame, spread_by_log_step(embedding.steps, n_frames).tolist(), kind)


def telling_steps(log: Series, steps: Int[np.ndarray, " steps"], n: int = 6) -> list[int]:
    """Return up to `n` checkpoints at which a run is worth a look: start, memorization, then on to the end.

    Those after memorization are spread over the logarithm of the step up to generalisation, which is one of
    them, and the last.
    """
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    end = int(steps[-1])
    wanted = [0.0]
    start = max(memorized.step if memorized else end // 50, 1)
    goal = generalised.step if generalised and generalised.step > start else max(end, 1)
    wanted += np.geomspace(start, goal, n - 2).tolist() + [end]
    return sorted({int(steps[np.abs(steps - step).argmin()]) for step in wanted})


def _plot_circle(
    series: Series, points: Float[np.ndarray, "n 2"], frequency: int | None, ax: Axes, step: int
) -> Axes:
    n = len(points)
    position = np.arange(n) if frequency is None else np.arange(n) * frequency % n
    # Two tokens may share an angle where the frequency divides n; the stable order joins each round in turn.
    order = np.argsort(position, kind="stable")
    if frequency is not None:
        path = points[np.append(order, order[0])]
        ax.plot(path[:, 0], path[:, 1], color="#B8B8B8", linewidth=0.5, zorder=1, label="_joining line")
    # Without a circle the elements have no order that a colour could tell.
    colours: dict[str, Any] = {"color": BLUE}
    if frequency is not None:
        colours = {"c": position / n, "cmap": colormaps[_RESIDUES], "vmin": 0, "vmax": 1}
    edge: dict[str, Any] = {"linewidths": 0.2, "edgecolors": "#404040"}
    ax.scatter(points[:, 0], points[:, 1], **colours, s=7, zorder=2, **edge, label="_tokens")
    limit = _limit(points)
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.yaxis.label.set_fontsize(FONT_SIZE)
    ax.set_title(f"step {step:,}", fontsize=FONT_SIZE)
    for spine in ax.spines.values():
        spine.set_color("#C8C8C8")
    return ax


def _n_planes(embedding: Series) -> int:
    return len(embedding["plane_frequencies"]) if "plane_frequencies" in embedding else 0


def _limit(points: Float[np.ndarray, "*steps n axes"]) -> float:
    """Return how far the axes must reach to hold all points, and some way for points that all lie at zero."""
    return float(np.abs(points).max()) * 1.08 or 1.0


def _nearest(series: Series, step: float) -> int:
    return int(np.abs(series.steps - step).argmin())
