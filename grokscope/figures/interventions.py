"""Figures of interventions: the line between two checkpoints, and components moved from step to step."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from grokscope.figures.style import BLUE, COLUMN_WIDTH, FONT_SIZE, PAGE_WIDTH, VERMILLION, finish, new_figure
from grokscope.scan import Scan


def plot_interpolation(scan: Scan, *, ax: Axes) -> Axes:
    """Draw train and test loss along the line from A (t = 0) to B (t = 1)."""
    ax.plot(scan["t"], scan["train_loss"], color=BLUE, label="train")
    ax.plot(scan["t"], scan["test_loss"], color=VERMILLION, linestyle="--", label="test")
    ax.set_yscale("log")
    ax.set_xlabel("t, from A to B")
    ax.set_ylabel("cross-entropy (nats)")
    return finish(ax)


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


def figure_interpolation(scan: Scan, ends: tuple[str, str] = ("A", "B"), *, width: float = COLUMN_WIDTH) -> Figure:
    """Return the losses along the line between two checkpoints, which `ends` names."""
    figure = new_figure(width, 2.4)
    ax = plot_interpolation(scan, ax=figure.subplots())
    ax.set_xlabel(f"t, from {ends[0]} (t = 0) to {ends[1]} (t = 1)")
    return figure


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
