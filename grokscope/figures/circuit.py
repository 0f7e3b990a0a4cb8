"""The formation of the circuit: progress measures, Fourier spectra, and departures from controls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokscope import phases
from grokscope.figures._axes import (
    draw_controls,
    draw_line,
    draw_values,
    finish_stack,
    finish_step_axes,
    stack_panels,
)
from grokscope.figures._export import animate, caption
from grokscope.figures._style import (
    BLACK,
    COLUMN_WIDTH,
    FONT_SIZE,
    GREY,
    INTERVAL,
    KEY_BAR,
    LANDMARK,
    LINE_STYLES,
    OTHER_BAR,
    PAGE_WIDTH,
    WHOLE,
    add_legend_below,
    finish_axes,
    is_wide,
    new_figure,
    numbered,
)
from grokscope.figures.curves import plot_accuracies
from grokscope.phases import Crossing
from grokscope.series import Series
from grokscope.thinning import nearest_row, spread_by_log_step

_MATRICES = {"W_E": "embedding W_E", "W_L": "neuron–logit map W_L"}
_TEXT_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


def plot_progress_losses(log: Series, progress: Series, *, ax: Axes) -> Axes:
    """Draw train and test loss with the restricted and the excluded loss.

    All of them are softmax losses. The log of a run with another loss is not drawn; `progress` has its softmax losses
    at the checkpoints.

    Args:
        log: The run's log.
        progress: The measure `progress`.

    References:
        Nanda et al. 2023, figure 7.
    """
    source = log if log.loss in ("", "softmax") else progress
    draw_line(source, "train_loss", ax, "train")
    draw_line(source, "test_loss", ax, "test")
    draw_line(progress, "restricted_loss", ax, "restricted (all pairs)")
    draw_line(progress, "excluded_loss", ax, "excluded (train)", linewidth=2)
    ax.set_yscale("log")
    finish_step_axes(progress, ax, "softmax loss (nats)")
    ax.legend(frameon=False, fontsize=FONT_SIZE, ncols=2, loc="lower left")
    return ax


def plot_excluded_losses(progress: Series, *, ax: Axes) -> Axes:
    """Draw the train loss of the full logits, and without each key frequency.

    Args:
        progress: The measure `progress`.
    """
    losses = progress["excluded_loss_by_frequency"]
    draw_line(progress, "train_loss", ax, "train", WHOLE, linewidth=1)
    for i, frequency in enumerate(progress["key_frequencies"]):
        draw_values(progress, losses[:, i], ax, f"k = {frequency}", numbered(i))
    ax.set_yscale("log")
    finish_step_axes(progress, ax, "softmax train loss without k (nats)")
    ax.legend(frameon=False, fontsize=FONT_SIZE, ncols=2, loc="lower left")
    return ax


def plot_logit_variance(progress: Series, *, ax: Axes) -> Axes:
    """Draw the percentage of the logits' variance in cosines of the key frequencies, with its controls.

    Args:
        progress: The measure `progress`.
    """
    label = "key-frequency cosines"
    draw_line(progress, "logit_variance_share", ax, label, scale=100.0)
    draw_controls(progress, "logit_variance_share", ax, label, scale=100.0)
    ax.set_ylim(-3, 103)
    return finish_step_axes(progress, ax, "logit variance (%)")


def plot_gini(spectra: Series, *, ax: Axes) -> Axes:
    """Draw the Gini coefficients of the Fourier spectra of W_E and W_L, with their controls.

    Args:
        spectra: The measure `fourier`.
    """
    for matrix, label in _MATRICES.items():
        draw_line(spectra, f"{matrix}_gini", ax, label)
    for matrix in _MATRICES:
        draw_controls(spectra, f"{matrix}_gini", ax, matrix)
    ax.set_ylim(-0.03, 1.03)
    return finish_step_axes(spectra, ax, "Gini coefficient")


def figure_progress(log: Series, progress: Series, spectra: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return progress losses, losses without each frequency, explained logit variance and Gini coefficients.

    The shades are Nanda et al.'s phases (`phases.nanda_stages`), or the stages by accuracy if no phase has ended.

    Args:
        log: The run's log.
        progress: The measure `progress`.
        spectra: The measure `fourier`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1.5, 1.2, 1, 1], width)
    plot_progress_losses(log, progress, ax=axes[0])
    plot_excluded_losses(progress, ax=axes[1])
    plot_logit_variance(progress, ax=axes[2])
    plot_gini(spectra, ax=axes[3])
    return finish_stack(figure, log, axes, phases.nanda_stages(progress) or None)


def figure_gini(log: Series, spectra: Series, *, width: float = PAGE_WIDTH) -> Figure:
    """Return the accuracies above the Gini coefficients.

    Args:
        log: The run's log.
        spectra: The measure `fourier`.
        width: Width in inches.
    """
    figure, axes = stack_panels([1, 1.5], width)
    plot_accuracies(log, ax=axes[0])
    plot_gini(spectra, ax=axes[1])
    return finish_stack(figure, log, axes)


def plot_spectrum(spectra: Series, *, ax: Axes, step: int, name: str = "W_E") -> Axes:
    """Draw the Fourier norms of a matrix at one step, with the key frequencies marked.

    The key frequencies are those that the logits use at the last step: a rule names them, and the loss rises without
    them. A norm above the dotted line, a quarter of the largest, is large in this matrix, whether it is used or not.

    Args:
        spectra: The measure `fourier`.
        step: The checkpoint nearest to this step is drawn.
        name: "W_E", "W_U", or "W_L" for the map from neurons to logits.
    """
    row = nearest_row(spectra.steps, step)
    norms, frequencies = spectra[f"{name}_norms"][row], spectra["frequencies"]
    is_key = np.isin(frequencies, spectra["key_frequencies"])
    ax.bar(frequencies[~is_key], norms[~is_key], color=OTHER_BAR, width=0.8, label="other frequencies")
    if is_key.any():
        label = "key frequencies (used by the final logits)"
        ax.bar(frequencies[is_key], norms[is_key], color=KEY_BAR, width=0.8, label=label, hatch="////")
    ax.axhline(norms.max() / 4, color=BLACK, linewidth=0.7, linestyle=":", label="¼ of the largest norm")
    ax.set_xlim(0, len(norms) + 1)
    ax.set_xlabel("frequency k")
    ax.set_ylabel(f"norm in {name}")
    ax.set_title(f"step {int(spectra.steps[row]):,}", fontsize=FONT_SIZE)
    return finish_axes(ax)


def figure_spectra(spectra: Series, steps: Sequence[int], *, width: float = PAGE_WIDTH) -> Figure:
    """Return the Fourier norms of W_E above those of W_L, with a column for each step.

    Args:
        spectra: The measure `fourier`.
        steps: The checkpoints nearest to these steps are drawn (see `representative_steps`).
        width: Width in inches.
    """
    figure = new_figure(width, 3.2)
    axes = figure.subplots(2, len(steps), squeeze=False, sharex=True, sharey="row")
    for row, matrix in enumerate(_MATRICES):
        for column, step in enumerate(steps):
            ax = axes[row, column]
            _draw_bare_spectrum(spectra, ax, step, matrix)
            if row == 0:
                ax.set_title(f"step {int(spectra.steps[nearest_row(spectra.steps, step)]):,}", fontsize=FONT_SIZE)
            if column:
                ax.set_ylabel("")
    add_legend_below(figure, figure.axes[0], 3 if width >= PAGE_WIDTH else 1, FONT_SIZE - 1)
    return figure


def figure_spectrum(spectra: Series, step: int, *, width: float = COLUMN_WIDTH) -> Figure:
    """Return the Fourier norms of W_E above those of W_L at one step.

    Args:
        spectra: The measure `fourier`.
        step: The checkpoint nearest to this step is drawn.
        width: Width in inches.
    """
    figure = new_figure(width, 3.4)
    for ax, matrix in zip(figure.subplots(2, 1, sharex=True), _MATRICES, strict=True):
        _draw_bare_spectrum(spectra, ax, step, matrix)
    add_legend_below(figure, figure.axes[0], 3 if width >= PAGE_WIDTH else 1, FONT_SIZE - 1)
    figure.suptitle(caption(int(spectra.steps[nearest_row(spectra.steps, step)]), None), fontsize=FONT_SIZE + 1)
    return figure


def animation_of_spectrum(
    spectra: Series, log: Series | None, n_frames: int = 80, *, width: float = COLUMN_WIDTH, kind: str = "webp"
) -> bytes:
    """Return the key frequencies as they grow: `figure_spectrum` step by step, as the bytes of an animation.

    Args:
        spectra: The measure `fourier`.
        log: The run's log, which adds the test accuracy to the captions, or None.
        n_frames: The largest number of frames, at least 2. They are spread over the logarithm of the step.
        width: Width in inches.
        kind: "webp" or "gif".
    """
    figure = figure_spectrum(spectra, 0, width=width)

    def draw_frame(row: int) -> str:
        for ax, matrix in zip(figure.axes, _MATRICES, strict=True):
            ax.clear()
            _draw_bare_spectrum(spectra, ax, int(spectra.steps[row]), matrix)
            ax.set_ylim(0, 1.05 * float(spectra[f"{matrix}_norms"].max()) or 1.0)
        return caption(int(spectra.steps[row]), log)

    return animate(figure, draw_frame, spread_by_log_step(spectra.steps, n_frames).tolist(), kind)


def _draw_bare_spectrum(spectra: Series, ax: Axes, step: int, matrix: str) -> None:
    """Draw a spectrum without title and legend, and without a horizontal label above another spectrum."""
    plot_spectrum(spectra, ax=ax, step=step, name=matrix)
    ax.set_title("")
    ax.get_legend().remove()  # pyright: ignore[reportOptionalMemberAccess]
    if matrix == "W_E":
        ax.set_xlabel("")


def plot_departures(
    log: Series, departures: Mapping[str, Crossing | None], landmarks: Mapping[str, Crossing | None], *, ax: Axes
) -> Axes:
    """Draw when each measure leaves its control for good: an interval (after, step] for each, the earliest on top.

    Args:
        log: The run's log.
        departures: Label of a measure → its departure, or None if it is inside its control at the end.
        landmarks: Label → a step to mark with a vertical line, or None if the run never reached it.
    """
    last, has_room = int(log.steps[-1]), is_wide(ax)
    rows = sorted(departures.items(), key=lambda item: np.inf if item[1] is None else item[1].step, reverse=True)
    for row, (label, departure) in enumerate(rows):
        if departure is None:
            ax.text(last, row, "never ", ha="right", va="center", fontsize=FONT_SIZE - 1, color=GREY)
        else:
            # A narrow figure has no room on the right of a late departure.
            _draw_departure(ax, row, label, departure, is_left=not has_room and departure.step > last / 10)
    for i, (label, landmark) in enumerate(landmarks.items()):
        if landmark is not None:
            style = LINE_STYLES[i % len(LINE_STYLES)]
            ax.axvline(landmark.step, color=LANDMARK, linewidth=1, linestyle=style, label=label)
    finish_step_axes(log, ax, "")
    ax.set_yticks(range(len(rows)), [label if has_room else "" for label, _ in rows])
    for row, (label, _) in enumerate([] if has_room else rows):
        transform = ax.get_yaxis_transform()
        ax.text(0.01, row + 0.2, label, transform=transform, va="bottom", fontsize=FONT_SIZE - 1, bbox=_TEXT_BOX)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    if any(landmark is not None for landmark in landmarks.values()):
        n_columns = 4 if has_room else 2
        ax.legend(frameon=False, fontsize=FONT_SIZE - 1, ncols=n_columns, loc="lower left", bbox_to_anchor=(0, 1))
    return ax


def _draw_departure(ax: Axes, row: int, label: str, departure: Crossing, *, is_left: bool) -> None:
    """Draw the interval of a departure, and write it on the left or on the right."""
    ax.plot([max(departure.after, 0), departure.step], [row, row], color=INTERVAL, linewidth=3, label=f"_{label}")
    ax.plot(departure.step, row, marker="o", color=INTERVAL, markersize=5)
    side: dict[str, Any] = {"xytext": (-7, 0), "ha": "right"} if is_left else {"xytext": (7, 0)}
    side |= {"textcoords": "offset points", "va": "center", "fontsize": FONT_SIZE - 2, "bbox": _TEXT_BOX}
    ax.annotate(str(departure), (departure.step, row), **side)


def figure_departures(
    log: Series,
    departures: Mapping[str, Crossing | None],
    landmarks: Mapping[str, Crossing | None],
    *,
    width: float = PAGE_WIDTH,
) -> Figure:
    """Return the departures of all measures in one panel.

    Args:
        log, departures, landmarks: As in `plot_departures`.
        width: Width in inches.
    """
    figure = new_figure(width, 1 + (0.28 if width > COLUMN_WIDTH else 0.36) * len(departures))
    plot_departures(log, departures, landmarks, ax=figure.subplots())
    return figure
