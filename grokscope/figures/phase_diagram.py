"""The phase diagram of Liu et al. 2022 over two settings of a sweep."""

from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from grokscope.figures._style import FONT_SIZE, PHASE_COLOURS, finish_axes
from grokscope.figures.sweeps import Row, setting_label

_PHASE_LETTERS = {"comprehension": "C", "grokking": "G", "memorization": "M", "confusion": "–"}


def plot_phase_diagram(rows: Sequence[Row], *, ax: Axes, x: str, y: str) -> Axes:
    """Draw Liu et al.'s phase of each pair of settings: the colour and the letter of the most frequent phase.

    Where the seeds differ, the cell also gives the number of seeds in that phase. A run without a phase, because it
    diverged or is unfinished, is not counted; a cell of such runs alone has a cross.

    Args:
        rows: The table of a sweep, a row for each run, with the column "phase".
        x: The setting on the horizontal axis, such as "task.train_fraction".
        y: The setting on the vertical axis.

    References:
        Liu et al. 2022, "Towards understanding grokking: an effective theory", section 4.1.
    """
    xs, ys = (sorted({row[axis] for row in rows}) for axis in (x, y))
    has_cross = False
    for i, y_value in enumerate(ys):
        for j, x_value in enumerate(xs):
            cell = [row["phase"] for row in rows if (row[x], row[y]) == (x_value, y_value)]
            counts = Counter(phase for phase in cell if phase in _PHASE_LETTERS)
            if not counts:
                if cell:
                    ax.text(j, i, "×", ha="center", va="center", fontsize=FONT_SIZE)
                    has_cross = True
                continue
            phase, count = counts.most_common(1)[0]
            letter = _PHASE_LETTERS[phase]
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=PHASE_COLOURS[phase], edgecolor="white"))
            text = letter if count == counts.total() else f"{letter} {count}/{counts.total()}"
            ax.text(j, i, text, ha="center", va="center", fontsize=FONT_SIZE)
    ax.set_xticks(range(len(xs)), [f"{value:g}" for value in xs])
    ax.set_yticks(range(len(ys)), [f"{value:g}" for value in ys])
    ax.set_xlim(-0.5, len(xs) - 0.5)
    ax.set_ylim(-0.5, len(ys) - 0.5)
    ax.set_xlabel(setting_label(x))
    ax.set_ylabel(setting_label(y))
    finish_axes(ax)
    handles = [
        Patch(color=colour, label=f"{_PHASE_LETTERS[phase]}  {phase}") for phase, colour in PHASE_COLOURS.items()
    ]
    if has_cross:
        handles.append(Patch(color="none", label="×  diverged or unfinished"))
    ax.legend(handles=handles, frameon=False, fontsize=FONT_SIZE, loc="upper left", bbox_to_anchor=(1.01, 1))
    return ax
