"""Figures: `plot_*(series, *, ax)` draws on an Axes and returns it; `figure_*` puts several on one Figure.

A figure never computes a measure, and never touches pyplot or the global rcParams. Colours are Okabe and Ito's,
which colour-blind readers can tell apart; train and test also differ in line style.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from PIL import Image

from grokscope import files, phases
from grokscope.series import Series

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#6B6B6B",
)  # fmt: skip
PAGE_WIDTH = 7.0
"""The width in inches of a figure that spans a page; fonts are legible at this size."""

_STAGE_COLOURS = {"before memorization": "#F4F4F4", "memorized": "#FBEBD9", "generalised": "#DFF1EA"}
_FONT_SIZE = 8
_RESIDUES = "twilight_shifted"


def plot_losses(series: Series, *, ax: Axes) -> Axes:
    """Draw train and test loss (the log's, or the measure `loss`'s) on a log-log axis."""
    _line(series, "train_loss", ax, BLUE, "train")
    _line(series, "test_loss", ax, VERMILLION, "test", linestyle="--")
    ax.set_yscale("log")
    ax.set_ylabel("cross-entropy (nats)")
    return _finish(series, ax)


def plot_accuracies(series: Series, *, ax: Axes) -> Axes:
    """Draw train and test accuracy in percent."""
    _line(series, "train_accuracy", ax, BLUE, "train", scale=100)
    _line(series, "test_accuracy", ax, VERMILLION, "test", linestyle="--", scale=100)
    ax.set_ylim(-3, 103)
    ax.set_ylabel("accuracy (%)")
    return _finish(series, ax)


def plot_weight_norm(series: Series, *, ax: Axes) -> Axes:
    """Draw the total weight norm and the distance from initialization."""
    _line(series, "weight_norm", ax, BLUE, "all weights ‖w‖")
    _line(series, "distance_from_initialization", ax, VERMILLION, "from initialization ‖w − w₀‖", linestyle="--")
    ax.set_ylim(bottom=0)
    ax.set_ylabel("L2 norm")
    return _finish(series, ax)


def plot_parameter_norms(series: Series, *, ax: Axes) -> Axes:
    """Draw the norm of each weight matrix; biases and LayerNorm parameters are left out."""
    names = [name for name in series.arrays if name.startswith("weight_norm.") and ".W_" in name]
    several_layers = any(".blocks.1." in name for name in names)
    colours, styles = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY), ("-", "--", ":")
    for i, name in enumerate(names):
        place, _, matrix = name.removeprefix("weight_norm.").rpartition(".")
        layer = place.split(".")[1] if place.startswith("blocks.") else ""
        label = f"{matrix}, layer {layer}" if layer and several_layers else matrix
        colour, style = colours[i % len(colours)], styles[i // len(colours) % len(styles)]
        _line(series, name, ax, colour, label, linestyle=style)
    _finish(series, ax)
    # Room above the curves for the legend.
    ax.set_ylim(0, 1.45 * max(np.nanmax(series[name]) for name in names))
    ax.set_ylabel("L2 norm of each matrix")
    ax.legend(frameon=False, fontsize=_FONT_SIZE - 1, ncols=5, loc="upper left")
    return ax


def plot_circularity(series: Series, *, ax: Axes) -> Axes:
    """Draw circularity and the key frequencies' share of variance, with their controls."""
    for name, colour, label, style in (
        ("circularity", BLUE, "circularity of PCs 1–4", "-"),
        ("key_frequency_share", VERMILLION, "share of key frequencies", "--"),
    ):
        _line(series, name, ax, colour, label, linestyle=style)
        _line(series, f"{name}_shuffled", ax, colour, f"{label}, shuffled", linestyle=":", linewidth=1)
        ax.axhline(float(series[f"{name}_initialization"]), color=colour, linewidth=0.7, alpha=0.6)
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("share (thin line: untrained)")
    return _finish(series, ax)


def plot_sharpness(series: Series, *, ax: Axes) -> Axes:
    """Draw the top Hessian eigenvalue and the Hessian's trace, the latter with two standard errors."""
    _line(series, "sharpness", ax, BLUE, "top eigenvalue λ₁", marker="o")
    _line(series, "hessian_trace", ax, VERMILLION, "trace ± 2 s.e.", linestyle="--", marker="s")
    trace, error = series["hessian_trace"], 2 * series["hessian_trace_stderr"]
    steps, low = _broken(series, trace - error)
    ax.fill_between(steps, low, _broken(series, trace + error)[1], color=VERMILLION, alpha=0.25, linewidth=0)
    positive = np.concatenate([series["sharpness"], trace])
    if (positive > 0).all():
        ax.set_yscale("log")
    ax.set_ylabel("Hessian of the train loss")
    return _finish(series, ax)


def plot_principal_plane(series: Series, *, ax: Axes, step: int, first: int = 0) -> Axes:
    """Draw the tokens on principal components `first` and `first` + 1 at the checkpoint nearest to `step`.

    Colours and the joining line follow the circle's order at the frequency of the last step's component.
    """
    row = _nearest(series, step)
    points = series["principal_components"][row][:, first : first + 2]
    frequency = int(series["component_frequency"][-1, first]) if "component_frequency" in series else None
    return _plot_circle(series, points, frequency, ax, int(series.steps[row]))


def plot_frequency_plane(series: Series, *, ax: Axes, step: int, plane: int = 0) -> Axes:
    """Draw the tokens in the plane of the `plane`-th strongest key frequency at the checkpoint nearest to `step`."""
    row = _nearest(series, step)
    frequency = int(series["plane_frequencies"][plane])
    return _plot_circle(series, series["frequency_planes"][row, plane], frequency, ax, int(series.steps[row]))


def shade_stages(log: Series, *, ax: Axes, named: bool = True) -> Axes:
    """Shade the stages that accuracy tells (before memorization, memorized, generalised) behind the curves."""
    left, right = ax.get_xlim()
    on_paper = ax.transData.transform
    width = ax.get_window_extent().width
    for name, first, last in phases.stages(log):
        ax.axvspan(first, last, color=_STAGE_COLOURS[name], zorder=-10, linewidth=0)
        start, end = on_paper((first, 1))[0], on_paper((last, 1))[0]
        if not named or end - start < 0.04 * width:
            continue
        # A name that is wider than its narrow last stage ends with it.
        fits = end - start > 0.14 * width
        place = ax.transData.inverted().transform(((start + end) / 2 if fits else end, 0))[0]
        ax.text(
            place,
            1.02,
            name,
            transform=ax.get_xaxis_transform(),
            ha="center" if fits else "right",
            va="bottom",
            fontsize=_FONT_SIZE - 1,
        )
    for first, last in log["gaps"]:
        ax.axvspan(first, last, facecolor="none", edgecolor=GREY, hatch="///", linewidth=0, zorder=-5)
    ax.set_xlim(left, right)
    return ax


def figure_losses(log: Series) -> Figure:
    """Return losses over accuracies on one step axis, the stages shaded."""
    figure, (upper, lower) = _stack([1.4, 1])
    plot_losses(log, ax=upper)
    plot_accuracies(log, ax=lower)
    return _shaded(figure, log, [upper, lower])


def figure_weight_norms(log: Series, norms: Series) -> Figure:
    """Return losses, the total norms and each matrix's norm on one step axis, the stages shaded."""
    figure, axes = _stack([1, 1, 1.3])
    plot_losses(log, ax=axes[0])
    plot_weight_norm(norms, ax=axes[1])
    plot_parameter_norms(norms, ax=axes[2])
    return _shaded(figure, log, axes)


def figure_sharpness(log: Series, sharpness: Series) -> Figure:
    """Return the sharpness under the losses on the same step axis, the stages shaded."""
    figure, (upper, lower) = _stack([1, 1])
    plot_losses(log, ax=upper)
    plot_sharpness(sharpness, ax=lower)
    return _shaded(figure, log, [upper, lower])


def figure_circularity(log: Series, embedding: Series) -> Figure:
    """Return circularity and key-frequency share under the accuracies on the same step axis."""
    figure, (upper, lower) = _stack([1, 1.3])
    plot_accuracies(log, ax=upper)
    plot_circularity(embedding, ax=lower)
    return _shaded(figure, log, [upper, lower])


def figure_embedding(embedding: Series, steps: Sequence[int]) -> Figure:
    """Return small multiples of the embedding: a column a step; the principal plane, then key-frequency planes.

    For a task without a circle there is the principal plane alone.
    """
    n_planes = min(2, len(embedding["plane_frequencies"])) if "plane_frequencies" in embedding else 0
    side = PAGE_WIDTH / len(steps)
    figure = _new(PAGE_WIDTH, side * (1 + n_planes) + 0.2)
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


def animation(embedding: Series, log: Series | None, n_frames: int = 80, side: float = 2.6) -> bytes:
    """Return an animated WebP of the circle forming: principal plane and strongest frequency plane, step by step.

    Frames are spread over the logarithm of the step, where grokking has its pace; the log, if given, adds the
    test accuracy to the caption.
    """
    chosen = np.unique([_nearest(embedding, step) for step in np.geomspace(1, max(embedding.steps[-1], 2), n_frames)])
    has_plane = "plane_frequencies" in embedding
    limits = [np.abs(embedding["principal_components"][:, :, :2]).max() * 1.08]
    if has_plane:
        limits.append(np.abs(embedding["frequency_planes"][:, 0]).max() * 1.08)
    frames = []
    for row in chosen:
        step = int(embedding.steps[row])
        figure = _new(side * len(limits), side + 0.45)
        axes = figure.subplots(1, len(limits), squeeze=False)[0]
        plot_principal_plane(embedding, ax=axes[0], step=step)
        axes[0].set_title("principal components 1 and 2", fontsize=_FONT_SIZE)
        if has_plane:
            plot_frequency_plane(embedding, ax=axes[1], step=step)
            axes[1].set_title(f"plane of frequency {embedding['plane_frequencies'][0]}", fontsize=_FONT_SIZE)
        for ax, limit in zip(axes, limits, strict=True):
            ax.set_xlim(-limit, limit)
            ax.set_ylim(-limit, limit)
        caption = f"step {step:,}"
        if log is not None:
            caption += f" · test accuracy {log['test_accuracy'][_nearest(log, step)]:.0%}"
        figure.suptitle(caption, fontsize=_FONT_SIZE + 1)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    durations = [80] * (len(frames) - 1) + [2000]
    data = io.BytesIO()
    frames[0].save(data, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=80)
    return data.getvalue()


def telling_steps(log: Series, steps: Int[np.ndarray, " steps"], n: int = 6) -> list[int]:
    """Return up to `n` checkpoints at which a run is worth a look: start, memorization, then on to the end.

    Those after memorization are spread over the logarithm of the step up to generalisation, which is one of
    them, and the last.
    """
    memorized, generalised = phases.memorization_step(log), phases.generalisation_step(log)
    end = int(steps[-1])
    wanted = [0.0]
    start = memorized.step if memorized else max(end // 50, 1)
    goal = generalised.step if generalised and generalised.step > start else end
    wanted += np.geomspace(start, goal, n - 2).tolist() + [end]
    return sorted({int(steps[np.abs(steps - step).argmin()]) for step in wanted})


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other, fonts embedded; return both paths."""
    files.make_folder(path.parent)
    written = []
    for kind in ("png", "pdf"):
        data = io.BytesIO()
        # No date in the file: the same figure has the same bytes.
        metadata = {"CreationDate": None} if kind == "pdf" else None
        figure.savefig(data, format=kind, dpi=200, metadata=metadata)
        written.append(path.with_suffix(f".{kind}"))
        files.write_atomic(written[-1], data.getvalue())
    return written


def png(figure: Figure, dpi: int = 160) -> bytes:
    """Return a figure as PNG bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi)
    return data.getvalue()


def _new(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _stack(heights: list[float]) -> tuple[Figure, list[Axes]]:
    figure = _new(PAGE_WIDTH, 1.55 * sum(heights) + 0.4)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    return figure, list(axes)


def _shaded(figure: Figure, log: Series, axes: list[Axes]) -> Figure:
    figure.draw_without_rendering()
    for i, ax in enumerate(axes):
        shade_stages(log, ax=ax, named=i == 0)
        if i + 1 < len(axes):
            ax.set_xlabel("")
    return figure


def _line(
    series: Series,
    name: str,
    ax: Axes,
    colour: str,
    label: str,
    *,
    scale: float = 1,
    linestyle: str = "-",
    linewidth: float = 1.4,
    marker: str = "",
) -> None:
    steps, values = _broken(series, series[name] * scale)
    ax.plot(
        steps,
        values,
        color=colour,
        label=label,
        linestyle=linestyle,
        linewidth=linewidth,
        marker=marker,
        markersize=3,
    )


def _broken(
    series: Series, values: Float[np.ndarray, " steps"]
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Return steps and values with a break in each gap, so that no line is drawn across what is lost."""
    gaps = series["gaps"] if "gaps" in series else np.empty((0, 2))
    places = [int(np.searchsorted(series.steps, first)) for first, _ in gaps]
    return (
        np.insert(series.steps.astype(float), places, [float(first) for first, _ in gaps]),
        np.insert(values.astype(float), places, np.nan),
    )


def _finish(series: Series, ax: Axes) -> Axes:
    # Zero has a place of its own left of the logarithmic part.
    ax.set_xscale("symlog", linthresh=10, linscale=0.35)
    last = max(int(series.steps[-1]), 10)
    ticks = [0, *(10**k for k in range(1, int(math.log10(last)) + 1))]
    if last > 2 * ticks[-1]:
        ticks.append(last)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_locator(
        FixedLocator([m * tick for tick in (10**k for k in range(1, 10)) for m in range(2, 10)])
    )
    ax.set_xlim(0, last)
    ax.set_xlabel("step (optimizer updates)")
    _small(ax)
    ax.legend(frameon=False, fontsize=_FONT_SIZE)
    return ax


def _small(ax: Axes) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(_FONT_SIZE)
    ax.tick_params(labelsize=_FONT_SIZE)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _plot_circle(
    series: Series, points: Float[np.ndarray, "n 2"], frequency: int | None, ax: Axes, step: int
) -> Axes:
    n = len(points)
    position = np.arange(n) if frequency is None else np.arange(n) * frequency % n
    # Two tokens may share an angle where the frequency divides n; the stable order joins each round in turn.
    order = np.argsort(position, kind="stable")
    if frequency is not None:
        path = points[np.append(order, order[0])]
        ax.plot(path[:, 0], path[:, 1], color="#B8B8B8", linewidth=0.5, zorder=1)
    ax.scatter(
        points[:, 0], points[:, 1], c=position / n, cmap=colormaps[_RESIDUES], vmin=0, vmax=1, s=7, zorder=2,
        linewidths=0.2, edgecolors="#404040",
    )  # fmt: skip
    limit = float(np.abs(points).max()) * 1.08 or 1.0
    ax.set_xlim(-limit, limit)
    ax.set_ylim(-limit, limit)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.yaxis.label.set_fontsize(_FONT_SIZE)
    ax.set_title(f"step {step:,}", fontsize=_FONT_SIZE)
    for spine in ax.spines.values():
        spine.set_color("#C8C8C8")
    return ax


def _nearest(series: Series, step: float) -> int:
    return int(np.abs(series.steps - step).argmin())
