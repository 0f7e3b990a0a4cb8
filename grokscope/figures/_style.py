"""The look of every figure: sizes, colours and line styles, and which curve gets which.

To see why a curve has its colour, search this file for the name of its array:

- `LOOKS` names the curves with a fixed look. Train is solid blue and test is dashed vermillion in every figure.
- `numbered(i)` gives the look of the i-th of several like curves: heads, frequencies, components.
- `REPRESENTATION_LOOKS` and `RUN_LOOKS` do the same for representations of a group and for runs of a sweep.
- `STAGE_COLOURS` shades the stages of training. `PHASE_COLOURS` fills the cells of a phase diagram.
- The constants that end in `_MAP` name the colour maps.

The colours are Okabe and Ito's (2008), which colour-blind readers can tell apart. Curves also differ in line style.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from grokscope.series import LabelledArrays, Series

PAGE_WIDTH = 7.0
"""The width in inches of a figure that spans a page. Its fonts are legible at this size."""
COLUMN_WIDTH = 3.35
"""The width in inches of a figure in one of two columns. Its fonts are as large as on a full page."""
FONT_SIZE = 8
"""The size of axis labels, ticks and legends, in points."""

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
BLACK, DARK_GREY, GREY, LIGHT_GREY, FRAME_GREY = "#000000", "#404040", "#6B6B6B", "#B0B0B0", "#C8C8C8"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
"""The colours of like curves and classes, in order."""
LineStyle = str | tuple[float, tuple[float, ...]]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", "-.", ":")


class Look(NamedTuple):
    """The colour, line style and marker of a curve."""

    colour: str
    linestyle: LineStyle = "-"
    marker: str = ""


TRAIN, TEST = Look(BLUE, "-"), Look(VERMILLION, "--")
PARTS = {"train": TRAIN, "test": TEST}
"""The looks of the two parts of the data."""
WHOLE = Look(BLACK)
"""The look of a total among its parts, such as the norm of all weights among the norms of components."""
REFERENCE = Look(GREY)
"""The look of a curve for comparison, where colours have another meaning."""
OTHER = Look(LIGHT_GREY)
"""The look of the many curves that a figure does not name."""

_FIRST, _SECOND, _THIRD = Look(BLUE, "-"), Look(VERMILLION, "--"), Look(GREEN, "-.")
LOOKS = {
    # Losses and accuracies.
    **{f"{part}_{quantity}": look for part, look in PARTS.items() for quantity in ("loss", "accuracy", "margins")},
    "restricted_loss": Look(GREEN, "-."),
    "excluded_loss": Look(PURPLE, ":"),
    "loss": WHOLE,
    "accuracy": WHOLE,
    "loss_without_attention": Look(BLUE, "--"),
    "loss_without_mlp": Look(VERMILLION, "-."),
    "loss_with_polynomials": Look(GREEN, ":"),
    "loss_with_all_polynomials": Look(ORANGE, (0, (3, 1, 1, 1, 1, 1))),
    # Norms and updates.
    "weight_norm": _FIRST,
    "distance_from_initialization": _SECOND,
    "weight_norm.unembed.W_U": _FIRST,
    "update_size_per_step": _FIRST,
    "straightness": _SECOND,
    "update_weight_cosine": _FIRST,
    "update_cosine": _SECOND,
    # The structure of the embedding and of the circuit.
    "circularity": _FIRST,
    "key_frequency_share": _SECOND,
    "rqi": _FIRST,
    "whole_number_rqi": _SECOND,
    "percentile_distance": _SECOND,
    "W_E_gini": _FIRST,
    "W_L_gini": _SECOND,
    "logit_variance_share": _FIRST,
    "gradient_symmetricity": _FIRST,
    "distance_irrelevance": _SECOND,
    "mean_neuron_share": Look(BLUE),
    "mean_head_share": Look(VERMILLION),
    # Curvature and sharpness.
    "sharpness": Look(BLUE, "-", "o"),
    "hessian_trace": Look(VERMILLION, "--", "s"),
    "eigenvalues": Look(BLUE),
    "eigenvalues_below": Look(GREY),
    "bottom_eigenvalue": Look(VERMILLION, "--", "s"),
    "gauss_newton_trace": Look(BLUE, "--"),
    "trace": Look(VERMILLION, "-"),
    "frobenius_norm": _THIRD,
    "gauss_newton_share": Look(BLUE, "-", "o"),
    "gradient_overlap": _FIRST,
    "update_overlap": _SECOND,
    "eigenspace_overlap": _THIRD,
    "chance_overlap": Look(GREY, ":"),
    "effective_sharpness": Look(BLUE, "-", "o"),
    "threshold": _SECOND,
    "keskar_sharpness": Look(BLUE, "-", "o"),
    "keskar_sharpness_by_start": Look(BLUE, "none", "_"),
    "keskar_sharpness_residual": Look(GREY, ":"),
}
"""Array name → the look of its curve."""
SPIKE = Look(VERMILLION, ":")
"""The peak of a slingshot's loss spike. The fast growth of the norm is shaded in the same colour."""
RUN_PATH = Look(VERMILLION)
"""The path of a run through a landscape, and its end point."""
MARKED_POINT = ORANGE
"""The fill of the points of interest on a path in a plane."""
KEY_BAR, OTHER_BAR = VERMILLION, GREY
"""The bars of a Fourier spectrum: key frequencies, and the others."""
INTERVAL, LANDMARK = BLUE, VERMILLION
"""The interval in which a measure leaves its control, and the landmarks of training."""
UNRESOLVED_EDGE, UNRESOLVED_VEIL = VERMILLION, "#FFFFFF60"
"""The range of a spectral density below its resolution: the hatch, and the transparent veil under it."""
TOKENS = BLUE
"""Points of tokens that have no circular order."""

REPRESENTATION_LOOKS = tuple(
    Look(colour, linestyle)
    for colour, linestyle in zip(
        (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, "#202020"),
        # No dots: a dotted line is a shuffled control.
        ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), "-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), "-"),
        strict=True,
    )
)
"""The looks of representations, and of classes of subgroups, in order of importance."""
RUN_LOOKS = tuple(
    Look(colour, linestyle, marker)
    for linestyle, marker in (("-", "o"), ("--", "s"), (":", "^"))
    for colour in (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY)
)
"""21 different looks for the runs of a sweep."""

STAGE_COLOURS = {
    # By accuracy (`phases.stages`).
    "before memorization": "#F4F4F4",
    "memorized": "#FBEBD9",
    "generalised": "#DFF1EA",
    # By progress measures (`phases.nanda_stages`).
    "memorization": "#F4F4F4",
    "circuit formation": "#FBEBD9",
    "cleanup": "#E3EDF9",
    "after cleanup": "#DFF1EA",
}
PHASE_COLOURS = {"comprehension": GREEN, "grokking": ORANGE, "memorization": SKY, "confusion": "#BBBBBB"}
"""Liu et al.'s phases of a whole run."""
RESIDUE_MAP = "twilight_shifted"
"""Cyclic, because the residues are."""
LOSS_MAP, DENSITY_MAP, STEP_MAP, SETTING_MAP = "cividis", "viridis", "viridis", "cividis"
"""Losses over a plane or a grid, spectral density, training steps, and a numeric setting of runs."""


def numbered(i: int) -> Look:
    """Return the i-th of 28 looks for like curves. Neighbours differ in colour and in line style.

    A colour cycle that the user has set in rcParams replaces the palette.
    """
    cycle = user_setting("axes.prop_cycle", None)
    palette = cycle.by_key().get("color", PALETTE) if cycle is not None else PALETTE
    return Look(palette[i % len(palette)], LINE_STYLES[i % len(LINE_STYLES)])


def user_setting(name: str, default: Any) -> Any:
    """Return a value of matplotlib's rcParams if the user has changed it, otherwise `default`."""
    user = cast(Mapping[str, Any], matplotlib.rcParams)
    initial = cast(Mapping[str, Any], matplotlib.rcParamsDefault)
    return default if user[name] == initial[name] else user[name]


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure whose layout keeps labels from overlapping.

    Args:
        width: Width in inches, such as `PAGE_WIDTH` or `COLUMN_WIDTH`.
        height: Height in inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def finish_axes(ax: Axes) -> Axes:
    """Set labels in the sizes of rcParams, remove the frame above and on the right, and add a legend if needed."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(user_setting("axes.labelsize", user_setting("font.size", FONT_SIZE)))
    for axis in ("x", "y"):
        size = user_setting(f"{axis}tick.labelsize", user_setting("font.size", FONT_SIZE))
        ax.tick_params(axis, which="both", labelsize=size)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=user_setting("legend.fontsize", user_setting("font.size", FONT_SIZE)))
    return ax


def is_wide(ax: Axes) -> bool:
    """Return whether the figure of an Axes is wider than a column."""
    # The width comes from pixels, hence 1% of tolerance.
    return bool(ax.figure.bbox.width / ax.figure.dpi > 1.01 * COLUMN_WIDTH)


def add_legend_below(figure: FigureBase, ax: Axes, n_columns: int, size: float = FONT_SIZE) -> None:
    """Add one legend below all panels, with the labels of the curves in `ax`."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=n_columns,
        frameon=False,
        fontsize=size,
        columnspacing=1.2,
    )


def loss_name(*sources: Series | LabelledArrays, name: str = "loss") -> str:
    """Return the name of a loss with the loss function of every source, such as "softmax train loss".

    Args:
        *sources: What is drawn, at least one. Runs with different loss functions give "softmax or stablemax loss".
        name: The name of the loss.
    """
    functions = " or ".join(sorted({source.loss for source in sources} - {""}))
    return f"{functions} {name}".lstrip()


def loss_label(*sources: Series | LabelledArrays, name: str = "loss") -> str:
    """Return the label of an axis of losses: `loss_name` with the unit."""
    return f"{loss_name(*sources, name=name)} (nats)"
