"""Figures of interventions: components moved from step to step."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from grokscope.figures.style import COLUMN_WIDTH, FONT_SIZE, PAGE_WIDTH, finish, new_figure
from grokscope.scan import Scan


def plot_transplant(scan: Scan, component: str, *, ax: Axes, name: str = "test_loss") -> Axes:
    """Draw one component's map: a row for each source step, a column for each host step, the colour the loss.

    The colour's scale is the same for all components; a bar for it is the figure's to draw, of `ax.images[0]`.
    """
    values = scan[name][list(scan["component"]).index(component)]
    # One scale for all components, and none where a loss is zero.
    positive = scan[name][scan[name] > 0]
    limits = (positive.min(), positive.max()) if len(positive) else (1e-9, 1.0)
    ax.imshow(np.maximum(values, limits[0]), norm=LogNorm(*limits), origin="lower", aspect="auto", cmap="cividis")
    for axis, steps in ((ax.xaxis, scan["host"]), (ax.yaxis, scan["source"])):
        axis.set_ticks(range(len(steps)), [f"{step:,}" for step in steps])
    ax.tick_params(axis="x", rotation=90)
    ax.set_title(component, fontsize=FONT_SIZE)
    ax.set_xlabel("host step")
    ax.set_ylabel("source step")
    return finish(ax)


def figure_transplant(scan: Scan, name: str = "test_loss", *, width: float = PAGE_WIDTH) -> Figure:
    """Return a map for each component, all of one colour scale."""
    components = list(scan["component"])
    n_columns = min(3 if width > COLUMN_WIDTH else 2, len(components))
    n_rows = -(-len(components) // n_columns)
    figure = new_figure(width, 2.3 * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
    for component, ax in zip(components, axes, strict=False):
        plot_transplant(scan, str(component), ax=ax, name=name)
    for ax in axes[len(components) :]:
        ax.remove()
    for ax in axes[: len(components)]:
        ax.label_outer()
    # A column has no room beside its panels.
    place: dict[str, Any] = {"shrink": 0.8} if width > COLUMN_WIDTH else {"location": "bottom", "aspect": 30}
    bar = figure.colorbar(axes[0].images[0], ax=list(axes[: len(components)]), **place)
    bar.set_label(f"{name.replace('_', ' ')}{' (nats)' if name.endswith('loss') else ''}", fontsize=FONT_SIZE)
    bar.ax.tick_params(labelsize=FONT_SIZE)
    return figure
