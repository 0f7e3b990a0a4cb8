"""A figure as a file: PDF, SVG or PNG with the fonts in it, and the numbers that it draws as CSV."""

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

STILL = ("pdf", "svg", "png")
"""The formats that do not move."""
COLUMNS = ("panel", "title", "x_label", "y_label", "name", "index", "x", "y", "value")
"""The columns of `data`."""
_NO_NAME = re.compile(r"_(child|collection|container|image)\d*|_nolegend_")
_FONTS: dict[Any, Any] = {
    # TrueType outlines: text stays text, which type 3 fonts, refused by many journals, do not promise.
    "pdf.fonttype": 42,
    # Outlines, since an SVG cannot hold a font that every viewer reads: it looks the same everywhere.
    "svg.fonttype": "path",
    "svg.hashsalt": "grokscope",
}


def encoded(figure: Figure, kind: str, dpi: int = 300) -> bytes:
    """Return a figure as the bytes of a "pdf", "svg" or "png" file; the same figure has the same bytes."""
    data = io.BytesIO()
    # No date in the file.
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    with rc_context(_FONTS):
        figure.savefig(data, format=kind, dpi=dpi, metadata=metadata)
    return data.getvalue()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF beside each other, fonts embedded; return both paths."""
    atomic.make_folder(path.parent)
    written, layout = [], figure.get_layout_engine()
    for kind in ("png", "pdf"):
        written.append(path.with_suffix(f".{kind}"))
        atomic.write_atomic(written[-1], encoded(figure, kind, dpi=200))
        # Both are laid out alike, and it is half of the work.
        figure.set_layout_engine("none")
    figure.set_layout_engine(layout)
    return written


def png(figure: Figure, dpi: int = 160) -> bytes:
    """Return a figure as PNG bytes."""
    return encoded(figure, "png", dpi)


def data(figure: Figure) -> str:
    """Return the numbers that a figure draws as CSV, a row a point, with the header `COLUMNS`.

    `panel` counts the Axes from 1; `title` is the figure's and the panel's. What stands over a column of panels, or
    beside a row, is said of each of them. `name` is what the legend calls the line, or what it is where no legend
    shows it, or nothing; `index` counts the points of a line, and tells the token of a point on a circle. A break in
    a line, where checkpoints are lost, is left out. A level across the panel has no `x`, a landmark up and down it no
    `y`; a cell of a map has its column and row as `x` and `y` and its number as `value`. A shaded band is given by
    its outline.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    for panel, ax in enumerate(panels, 1):
        # Panels that share an axis of steps have its label below the last one alone.
        sharing = [ax, *ax.get_shared_x_axes().get_siblings(ax)]
        title = _first([ax, *_beside(ax, panels, "colspan")], Axes.get_title)
        about = [
            panel,
            " · ".join(one for one in (figure.get_suptitle(), title) if one),
            _said(_first(sharing, Axes.get_xlabel)),
            _said(_first([ax, *_beside(ax, panels, "rowspan")], Axes.get_ylabel)),
        ]
        writer.writerows([*about, *row] for row in _rows(ax))
    return text.getvalue()


def _beside(ax: Axes, panels: list[Axes], span: str) -> list[Axes]:
    """Return the panels in the column ("colspan") or row ("rowspan") of a panel's grid, from its top or its left."""
    spec = ax.get_subplotspec()
    places = [(one, one.get_subplotspec()) for one in panels]
    return [
        one
        for one, place in places
        if spec
        and place
        and place.get_gridspec() is spec.get_gridspec()
        and getattr(place, span) == getattr(spec, span)
    ]


def _first(panels: list[Axes], text_of: Callable[[Axes], str]) -> str:
    return next((text for ax in panels if (text := text_of(ax))), "")


def _rows(ax: Axes) -> Iterator[tuple[str, int, object, object, object]]:
    """Yield name, index, x, y and value of everything that an Axes draws."""
    for line in ax.lines:
        transform = line.get_transform()
        x, y = (np.asarray(one, float) for one in line.get_data())
        if transform == ax.transData:
            yield from _points(line.get_label(), x, y)
        # A level across the panel, and a landmark up and down it.
        elif transform == ax.get_yaxis_transform("grid"):
            yield _said(line.get_label()), 0, "", repr(float(y[0])), ""
        elif transform == ax.get_xaxis_transform("grid"):
            yield _said(line.get_label()), 0, repr(float(x[0])), "", ""
    for bars in ax.containers:
        if isinstance(bars, BarContainer):
            middles = np.array([bar.get_x() + bar.get_width() / 2 for bar in bars])
            yield from _points(bars.get_label(), middles, np.array([bar.get_height() for bar in bars]))
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
            yield _said(ax.get_title()), index, column, row, repr(float(values[row, column]))


def _points(label: object, x: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, int, object, object, object]]:
    for index, (one, other) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        if np.isfinite(other):
            yield _said(label), index, repr(one), repr(other), ""


def _said(label: object) -> str:
    """Return a label without the underscore that keeps it out of the legend; matplotlib's own names are none."""
    text = str(label)
    return "" if _NO_NAME.fullmatch(text) else text.removeprefix("_")


MOVING = ("webp", "gif")
"""The formats that move. A GIF has 256 colours and is the larger file; everything shows it."""
_MILLISECONDS, _LAST_MILLISECONDS = 80, 2000


def caption(step: int, log: Series | None) -> str:
    """Return a frame's caption: the step, and the test accuracy there if there is a log."""
    said = f"step {step:,}"
    if log is not None:
        said += f" · test accuracy {log['test_accuracy'][np.abs(log.steps - step).argmin()]:.0%}"
    return said


def animate(figure: Figure, frame: Callable[[int], str], rows: Sequence[int], kind: str = "webp") -> bytes:
    """Return the frames of a figure as a file of `kind`, "webp" or "gif"; the last one stays for two seconds.

    `frame(row)` changes what the figure shows and returns the frame's caption.
    """
    canvas, frames = FigureCanvasAgg(figure), []
    for row in rows:
        figure.suptitle(frame(int(row)), fontsize=FONT_SIZE + 1)
        canvas.draw()
        # Only what is drawn and words move from frame to frame: the first one's layout is everyone's.
        figure.set_layout_engine("none")
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    durations = [_MILLISECONDS] * (len(frames) - 1) + [_LAST_MILLISECONDS]
    if kind == "gif":
        # One palette for all frames, the last one's, which has every colour: else they would flicker.
        palette = frames[-1].quantize(256)
        frames = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in frames]
    data, quality = io.BytesIO(), {"quality": 80} if kind == "webp" else {"optimize": False}
    frames[0].save(data, kind, save_all=True, append_images=frames[1:], duration=durations, loop=0, **quality)
    return data.getvalue()
