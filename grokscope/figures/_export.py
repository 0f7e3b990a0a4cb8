"""Figures as files: PDF, SVG and PNG with their fonts, animated WebP and GIF, and the drawn numbers as CSV."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from PIL import Image

from grokscope.disk import atomic
from grokscope.figures._style import FONT_SIZE
from grokscope.series import Series
from grokscope.thinning import nearest_row

STILL = ("pdf", "svg", "png")
"""The formats of a still figure."""
MOVING = ("webp", "gif")
"""The formats of an animation. A GIF is larger and has only 256 colours, but every program shows it."""
COLUMNS = ("panel", "title", "x_label", "y_label", "name", "index", "x", "y", "value")
"""The columns of the table that `data` returns."""
_GENERATED_LABEL = re.compile(r"_(child|collection|container|image)\d*|_nolegend_")
_FONTS: dict[Any, Any] = {
    # TrueType keeps text as text. Many journals refuse type 3 fonts.
    "pdf.fonttype": 42,
    # Outlines look the same everywhere. An SVG cannot embed a font that every viewer reads.
    "svg.fonttype": "path",
    "svg.hashsalt": "grokscope",
}
_FRAME_MS, _LAST_FRAME_MS = 80, 2000

_Row = tuple[str, int, object, object, object]


def encoded(figure: Figure, kind: str, dpi: int = 300) -> bytes:
    """Return a figure as the bytes of a file. Equal figures give equal bytes.

    Args:
        figure: The figure to encode. Matplotlib's global settings stay as they are.
        kind: "pdf", "svg" or "png".
        dpi: Pixels per inch of a PNG, and of rasterized parts of the others. 300 is what journals ask for.
    """
    file = io.BytesIO()
    # Without the date, the bytes depend on the figure alone.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    with rc_context(_FONTS):
        figure.savefig(file, format=kind, dpi=dpi, metadata=metadata)
    return file.getvalue()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as a PNG of 200 dpi and as a PDF; return both paths.

    Args:
        figure: The figure to write.
        path: The path of either file. The suffix is replaced, and a missing folder is created.
    """
    atomic.make_folder(path.parent)
    paths, layout = [path.with_suffix(f".{kind}") for kind in ("png", "pdf")], figure.get_layout_engine()
    for target in paths:
        atomic.write_atomic(target, encoded(figure, target.suffix[1:], dpi=200))
        # The second file has the same layout. Computing it again would double the work.
        figure.set_layout_engine("none")
    figure.set_layout_engine(layout)
    return paths


def png(figure: Figure, dpi: int = 160) -> bytes:
    """Return a figure as the bytes of a PNG file with `dpi` pixels per inch."""
    return encoded(figure, "png", dpi)


def data(figure: Figure) -> str:
    """Return the numbers that a figure draws, as CSV with the header `COLUMNS` and a row for each point.

    The columns:

    - `panel`: the number of the Axes, from 1.
    - `title`, `x_label`, `y_label`: the labels of the panel. A label that is drawn once for a row or a column of
      panels applies to all of them. The title includes the figure's.
    - `name`: the label of the curve, also if the legend leaves it out.
    - `index`: the number of the point along its curve, from 0. For an embedding it is the token's position.
    - `x`, `y`: the coordinates. A horizontal level has no `x`, and a vertical line has no `y`. The cell of a map
      has its column and its row. A shaded band is given by its outline.
    - `value`: the value of a cell of a map, else empty.

    Points that are not finite, such as the breaks at lost checkpoints, are left out.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    for number, ax in enumerate(panels, 1):
        # Panels with a common step axis have its label below the last one only.
        same_x = [ax, *ax.get_shared_x_axes().get_siblings(ax)]
        title = _first_text([ax, *_aligned(ax, panels, "colspan")], Axes.get_title)
        labels = [
            number,
            " · ".join(part for part in (figure.get_suptitle(), title) if part),
            _curve_name(_first_text(same_x, Axes.get_xlabel)),
            _curve_name(_first_text([ax, *_aligned(ax, panels, "rowspan")], Axes.get_ylabel)),
        ]
        writer.writerows([*labels, *row] for row in _rows(ax))
    return text.getvalue()


def _aligned(ax: Axes, panels: list[Axes], span: str) -> list[Axes]:
    """Return the panels in the same column ("colspan") or row ("rowspan") of the same grid, in order."""
    spec = ax.get_subplotspec()
    specs = [(panel, panel.get_subplotspec()) for panel in panels]
    return [
        panel
        for panel, candidate in specs
        if spec
        and candidate
        and candidate.get_gridspec() is spec.get_gridspec()
        and getattr(candidate, span) == getattr(spec, span)
    ]


def _first_text(panels: list[Axes], text_of: Callable[[Axes], str]) -> str:
    return next((text for ax in panels if (text := text_of(ax))), "")


def _rows(ax: Axes) -> Iterator[_Row]:
    """Yield name, index, x, y and value of everything that an Axes draws."""
    for line in ax.lines:
        transform = line.get_transform()
        x, y = (np.asarray(coordinates, float) for coordinates in line.get_data())
        if transform == ax.transData:
            yield from _points(line.get_label(), x, y)
        # Lines across the whole panel: `axhline`, then `axvline`.
        elif transform == ax.get_yaxis_transform("grid"):
            yield _curve_name(line.get_label()), 0, "", repr(float(y[0])), ""
        elif transform == ax.get_xaxis_transform("grid"):
            yield _curve_name(line.get_label()), 0, repr(float(x[0])), "", ""
    for bars in ax.containers:
        if isinstance(bars, BarContainer):
            centres = np.array([bar.get_x() + bar.get_width() / 2 for bar in bars])
            yield from _points(bars.get_label(), centres, np.array([bar.get_height() for bar in bars]))
    for collection in ax.collections:
        if isinstance(collection, PathCollection):
            x, y = np.asarray(collection.get_offsets(), float).T
            yield from _points(collection.get_label(), x, y)
        elif isinstance(collection, PolyCollection) and not isinstance(collection, LineCollection):
            for path in collection.get_paths():
                yield from _points(collection.get_label(), *np.asarray(path.vertices, float).T)
    for image in ax.images:
        values = np.asarray(image.get_array(), float)
        for index, (row, column) in enumerate(np.ndindex(*values.shape)):
            yield _curve_name(ax.get_title()), index, column, row, repr(float(values[row, column]))


def _points(label: object, xs: np.ndarray, ys: np.ndarray) -> Iterator[_Row]:
    for index, (x, y) in enumerate(zip(xs.tolist(), ys.tolist(), strict=True)):
        if np.isfinite(y):
            yield _curve_name(label), index, repr(x), repr(y), ""


def _curve_name(label: object) -> str:
    """Return a label in one line, without the underscore that hides it from the legend; "" for Matplotlib's own."""
    text = str(label)
    return "" if _GENERATED_LABEL.fullmatch(text) else text.removeprefix("_").replace("\n", " ")


def caption(step: int, log: Series | None) -> str:
    """Return the caption of a frame: the step and, with a log of a known split, the test accuracy at that step."""
    text = f"step {step:,}"
    if log is not None and "test_accuracy" in log:
        text += f" · test accuracy {log['test_accuracy'][nearest_row(log.steps, step)]:.0%}"
    return text


def animate(figure: Figure, draw_frame: Callable[[int], str], rows: Sequence[int], kind: str = "webp") -> bytes:
    """Return an animation as the bytes of a file. A frame lasts 80 ms, and the last one 2 s.

    Args:
        figure: The figure that every frame shows.
        draw_frame: A function that redraws the figure for a row and returns the frame's caption.
        rows: The rows to draw, a frame each.
        kind: "webp" or "gif".
    """
    canvas, frames = FigureCanvasAgg(figure), []
    for row in rows:
        figure.suptitle(draw_frame(int(row)), fontsize=FONT_SIZE + 1)
        canvas.draw()
        # All frames share the layout of the first, so that the panels do not jitter.
        figure.set_layout_engine("none")
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    durations = [_FRAME_MS] * (len(frames) - 1) + [_LAST_FRAME_MS]
    if kind == "gif":
        # A palette for each frame would make the colours flicker. The last frame contains every colour.
        palette = frames[-1].quantize(256)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file, options = io.BytesIO(), {"quality": 80} if kind == "webp" else {"optimize": False}
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
    return file.getvalue()
