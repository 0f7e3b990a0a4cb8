"""What all figures share: size, fonts, colours."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#6B6B6B",
)  # fmt: skip
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY)
"""The colours of lines that are told apart by their place alone."""
PAGE_WIDTH = 7.0
"""The width in inches of a figure that spans a page; fonts are legible at this size."""
COLUMN_WIDTH = 3.35
"""The width in inches of a figure in one of a page's two columns; fonts are as large as on the page."""
FONT_SIZE = 8


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches, laid out so that nothing overlaps."""
    return Figure(figsize=(width, height), layout="constrained")


def finish(ax: Axes) -> Axes:
    """Give an Axes the common look: small labels, no frame above and right, a plain legend if there are names."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(FONT_SIZE)
    ax.tick_params(labelsize=FONT_SIZE)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, fontsize=FONT_SIZE)
    return ax
