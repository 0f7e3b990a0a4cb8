"""Moving pictures: frames of one figure that is drawn anew at each step, as an animated WebP or GIF."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from grokscope.figures.style import FONT_SIZE
from grokscope.series import Series

MOVING = ("webp", "gif")
"""The formats that move. A GIF has 256 colours and is the larger file; everything shows it."""
_MILLISECONDS, _LAST_MILLISECONDS = 80, 2000


def spread_rows(steps: Int[np.ndarray, " steps"], n_frames: int) -> Int[np.ndarray, " frames"]:
    """Return at most `n_frames` rows of the steps, spread over the step's logarithm, where grokking has its pace.

    The first and the last are among them.
    """
    wanted = [0, *np.geomspace(1, max(steps[-1], 2), max(n_frames - 1, 1))]
    return np.unique([np.abs(steps - step).argmin() for step in wanted])


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
