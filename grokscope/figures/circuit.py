"""Progress measures and Fourier spectra: how the frequencies of the circuit emerge."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope import phases
from grokscope.figures._axes import draw_line, finish_over_steps, stack_over_steps, with_stages
from grokscope.figures._export import animate, caption
from grokscope.figures._style import (
    BLUE,
    COLUMN_WIDTH,
    FONT_SIZE,
    GREEN,
    GREY,
    PAGE_WIDTH,
    PALETTE,
    PURPLE,
    VERMILLION,
    finish,
    new_figure,
)
from grokscope.figures.curves import plot_accuracies
from grokscope.phases import Crossing
from grokscope.series import Series
from grokscope.thinning import spread_by_log_step

_STYLES = ("-", "--", "-.", ":")
_NAMES = {"W_E": "embedding W_E", "W_U": "unembedding W_U", "W_L": "neurons to logits W_L"}


def plot_progress_losses(log: Series, progress: Series, *, ax: Axes) -> Axes:
    """Draw train and test loss with the restricted and the excluded loss (Nanda et al. 2023, figure 7)."""
    draw_line(log, "train_loss", ax, BLUE, "train")
    draw_line(log, "test_loss", ax, VERMILLION, "test", linestyle="--")
    draw_line(progress, "restricted_loss", ax, GREEN, "restricted (all pairs)", linestyle="-.")
    draw_line(progress, "excluded_loss", ax, PURPLE, "excluded (train)", linestyle=":", linewidth=2)
    ax.set_yscale("log")
    ax.set_ylabel("cross-entropy (nats)")
    finish_over_steps(progress, ax)
    ax.legend(frameon=False, fontsize=FONT_SIZE, ncols=2, loc="lower left")
    return ax


def plot_excluded_losses(progress: Series, *, ax: Axes) -> Axes:
    """Draw the train loss as it is and without each key frequency."""
    losses, chosen = progress["excluded_loss_by_frequency"], progress["key_frequencies"]
    gaps = {"gaps": progress["gaps"]} if "gaps" in progress else {}
    by_frequency = Series("progress", progress.steps, {str(k): losses[:, i] for i, k in enumerate(chosen)}, gaps)
    draw_line(progress, "train_loss", ax, "black", "train", linewidth=1)
    for i, k in enumerate(chosen):
        # Seven colours and four styles: no two of the first 28 look alike, and neighbours differ in both.
        colour, style = PALETTE[i % len(PALETTE)], _STYLES[i % len(_STYLES)]
        draw_line(by_frequency, str(k), ax, colour, f"k = {k}", linestyle=style)
    ax.set_yscale("log")
    ax.set_ylabel("train loss, without k (nats)")
    finish_over_steps(progress, ax)
    ax.legend(frameon=False, fontsize=FONT_SIZE, ncols=2, loc="lower left")
    return ax


def plot_gini(spectra: Series, *, ax: Axes) -> Axes:
    """Draw the Gini coefficients of W_E and W_L's Fourier components (measure `fourier`), with their controls."""
    for name, colour, style in (("W_E", BLUE, "-"), ("W_L", VERMILLION, "--")):
        draw_line(spectra, f"{name}_gini", ax, colour, _NAMES[name], linestyle=style)
        draw_line(
            spectra, f"{name}_gini_shuffled", ax, colour, f"{name}, shuffled tokens", linestyle=":", linewidth=1
        )
    ax.set_ylim(-0.03, 1.03)
    ax.set_ylabel("Gini coefficient")
    return finish_over_steps(spectra, ax)


def plot_logit_variance(progress: Series, *, ax: Axes) -> Axes:
    """Draw the share of the logits' variance that the key frequencies' cosines explain, in percent."""
    draw_line(progress, "logit_variance_share", ax, BLUE, "cosines of the key frequencies", scale=100.0)
    shuffled = "logit_variance_share_shuffled"
    draw_line(progress, shuffled, ax, BLUE, "shuffled tokens", linestyle=":", linewidth=1, scale=100.0)
    ax.set_ylim(-3, 103)
    ax.set_ylabel("logit variance (%)")
    return finish_over_steps(progress, ax)


def plot_spectrum(spectra: Series, *, ax: Axes, step: int, name: str = "W_E") -> Axes:
    """Draw the Fourier norms of "W_E", "W_U" or "W_L" at the checkpoint nearest to `step`, key frequencies marked.

    Key are those that the logits use at the end (`grokscope.key_frequencies`): a rule names them, and the loss rises
    without them. The line is a quarter of the largest norm: what stands above it is large in this matrix at this
    step, whether it is used or not.
    """
    row = int(np.abs(spectra.steps - step).argmin())
    norms, frequencies = spectra[f"{name}_norms"][row], spectra["frequencies"]
    is_key = np.isin(frequencies, spectra["key_frequencies"])
    ax.bar(frequencies[~is_key], norms[~is_key], color=GREY, width=0.8, label="other")
    key, large = "key: used by the logits at the end", "¼ of the largest; above it: large here, used or not"
    ax.bar(frequencies[is_key], norms[is_key], color=VERMILLION, width=0.8, label=key, hatch="////")
    ax.axhline(norms.max() / 4, color="black", linewidth=0.7, linestyle=":", label=large)
    ax.set_xlim(0, len(norms) + 1)
    ax.set_xlabel("frequency k")
    ax.set_ylabel(f"norm in {name}")
    ax.set_title(f"step {int(spectra.steps[row]):,}", fontsize=FONT_SIZE)
    return finish(ax)


def figure_progress(log: Series, progress: Series, spectra: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return losses, losses without each frequency, logit variance and Gini coefficients on one step axis.

    `spectra` is the measure `fourier`. Shaded are Nanda et al.'s phases (`phases.nanda_stages`), or the stages that
    accuracy tells where none of these has ended.
    """
    figure, axes = stack_over_steps([1.5, 1.2, 1, 1], width)
    plot_progress_losses(log, progress, ax=axes[0])
    plot_excluded_losses(progress, ax=axes[1])
    plot_logit_variance(progress, ax=axes[2])
    plot_gini(spectra, ax=axes[3])
    return with_stages(figure, log, axes, phases.nanda_stages(progress) or None)


def figure_gini(log: Series, spectra: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the Gini coefficients of the measure `fourier` under the accuracies."""
    figure, axes = stack_over_steps([1, 1.5], width)
    plot_accuracies(log, ax=axes[0])
    plot_gini(spectra, ax=axes[1])
    return with_stages(figure, log, axes)


def figure_spectra(spectra: Series, steps: Sequence[int], *, width: float = PAGE_WIDTH) -> Figure:
    """Return small multiples of the measure `fourier`: a column a step, the norms of W_E above those of W_L."""
    figure = new_figure(width, 3.2)
    axes = figure.subplots(2, len(steps), squeeze=False, sharex=True, sharey="row")
    for row, name in enumerate(("W_E", "W_L")):
        for column, step in enumerate(steps):
            ax = plot_spectrum(spectra, ax=axes[row, column], step=step, name=name)
            if (legend := ax.get_legend()) is not None:
                legend.remove()
            if row == 0:
                ax.set_xlabel("")
            else:
                ax.set_title("")
            if column:
                ax.set_ylabel("")
    _legend_below(figure, axes[0, 0])
    return figure


def figure_spectrum(spectra: Series, step: int, *, width: float = COLUMN_WIDTH) -> Figure:
    """Return the Fourier norms of W_E at one step, those of W_L below."""
    figure = new_figure(width, 3.4)
    for ax, name in zip(figure.subplots(2, 1, sharex=True), ("W_E", "W_L"), strict=True):
        plot_spectrum(spectra, ax=ax, step=step, name=name)
        ax.set_title("")
        ax.set_xlabel("" if name == "W_E" else "frequency k")
        ax.get_legend().remove()
    _legend_below(figure, figure.axes[0])
    figure.suptitle(caption(int(spectra.steps[np.abs(spectra.steps - step).argmin()]), None), fontsize=FONT_SIZE + 1)
    return figure


def animation_of_spectrum(
    spectra: Series, log: Series | None, n_frames: int = 80, *, width: float = COLUMN_WIDTH, kind: str = "webp"
) -> bytes:
    """Return an animated WebP, or GIF, of the key frequencies growing out of the rest: `figure_spectrum` by step."""
    figure = figure_spectrum(spectra, 0, width=width)

    def frame(row: int) -> str:
        for ax, name in zip(figure.axes, ("W_E", "W_L"), strict=True):
            label = ax.get_xlabel()
            ax.clear()
            plot_spectrum(spectra, ax=ax, step=int(spectra.steps[row]), name=name)
            ax.set_title("")
            ax.set_xlabel(label)
            ax.get_legend().remove()  # pyright: ignore[reportOptionalMemberAccess]
            ax.set_ylim(0, 1.05 * float(spectra[f"{name}_norms"].max()) or 1.0)
        return caption(int(spectra.steps[row]), log)

    return animate(figure, frame, spread_by_log_step(spectra.steps, n_frames).tolist(), kind)


def _legend_below(figure: Figure, ax: Axes) -> None:
    """Say below the panels what the bars and the line of all of them are."""
    handles, labels = ax.get_legend_handles_labels()
    n_columns = len(labels) if figure.get_figwidth() >= PAGE_WIDTH else 1
    size = FONT_SIZE - 1
    figure.legend(
        handles, labels, loc="outside lower center", ncols=n_columns, frameon=False, fontsize=size, columnspacing=1.2
    )


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
