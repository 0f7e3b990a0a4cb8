"""What all figures share: size, fonts, colours."""

from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#6B6B6B",
)  # fmt: skip
PAGE_WIDTH = 7.0
"""The width in inches of a figure that spans a page; fonts are legible at this size."""
FONT_SIZE = 8


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches, laid out so that nothing overlaps."""
    return Figure(figsize=(width, height), layout="constrained")
