"""Who knew first: since when each measure lies outside its control, beside what the accuracies tell."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope.figures.steps import finish_over_steps
from grokscope.figures.style import BLUE, COLUMN_WIDTH, FONT_SIZE, GREY, PAGE_WIDTH, VERMILLION, new_figure
from grokscope.phases import Crossing
from grokscope.series import Series


def plot_departures(
    log: Series, found: Mapping[str, Crossing | None], landmarks: Mapping[str, Crossing | None], *, ax: Axes
) -> Axes:
    """Draw a row a measure, the earliest on top: its interval (after, step], and a line a landmark.

    A measure that is None, inside its control at the end, has a row without a mark.
    """
    last = int(log.steps[-1])
    rows = sorted(found.items(), key=lambda item: np.inf if item[1] is None else item[1].step, reverse=True)
    is_narrow = ax.figure.get_figwidth() <= COLUMN_WIDTH  # pyright: ignore[reportAttributeAccessIssue]
    for row, (name, at) in enumerate(rows):
        if at is None:
            ax.text(last, row, "never ", ha="right", va="center", fontsize=FONT_SIZE - 1, color=GREY)
            continue
        ax.plot([max(at.after, 0), at.step], [row, row], color=BLUE, linewidth=3, label=f"_{name}")
        ax.plot(at.step, row, marker="o", color=BLUE, markersize=5)
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        place = {"textcoords": "offset points", "va": "center", "fontsize": FONT_SIZE - 2}
        # Late in a column there is no room to the right.
        is_left = is_narrow and at.step > last / 10
        side: dict[str, Any] = {"xytext": (-7, 0), "ha": "right"} if is_left else {"xytext": (7, 0)}
        ax.annotate(str(at), (at.step, row), bbox=behind, **place, **side)
    for i, (name, at) in enumerate(landmarks.items()):
        if at is not None:
            ax.axvline(at.step, color=VERMILLION, linewidth=1, linestyle=("-", "--", "-.", ":")[i % 4], label=name)
    ax.set_yticks(range(len(rows)), ["" if is_narrow else name for name, _ in rows])
    for row, (name, _) in enumerate(rows if is_narrow else []):
        at_left = {"transform": ax.get_yaxis_transform(), "va": "bottom", "fontsize": FONT_SIZE - 1}
        ax.text(0.01, row + 0.2, name, **at_left)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    finish_over_steps(log, ax)
    if any(at is not None for at in landmarks.values()):
        ax.legend(
            frameon=False,
            fontsize=FONT_SIZE - 1,
            ncols=2 if is_narrow else 4,
            loc="lower left",
            bbox_to_anchor=(0, 1),
        )
    return ax


def figure_departures(
    log: Series,
    found: Mapping[str, Crossing | None],
    landmarks: Mapping[str, Crossing | None],
    *,
    width: float = PAGE_WIDTH,
) -> Figure:
    """Return the rows of `plot_departures`."""
    figure = new_figure(width, 1 + (0.28 if width > COLUMN_WIDTH else 0.36) * len(found))
    plot_departures(log, found, landmarks, ax=figure.subplots())
    return figure
