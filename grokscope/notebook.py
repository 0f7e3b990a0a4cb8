"""HTML for notebooks: small tables with escaped text, and curves as inline SVG. It contains no scripts."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from jaxtyping import Float, Int, Shaped

_WIDTH, _HEIGHT, _MOST_POINTS = 120, 24, 120
_MOST_WHOLE, _MOST_REAL = 12, 6
"""The largest number of whole numbers, and of other numbers, in one cell of a table."""
LINEAR_BELOW_STEP = 10
"""The step below which the axis of a curve is linear, so that step 0 is on the axis. Above it is logarithmic."""


class Html(str):
    """Text that is already safe HTML. All other text is escaped."""


def html_table(title: object, header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table below a title. Every value is escaped unless it is `Html`."""
    head = f"<tr>{''.join(f'<th>{_cell(name)}</th>' for name in header)}</tr>" if header else ""
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<div><b>{_cell(title)}</b><table>{head}{body}</table></div>"


def format_number(value: object) -> str:
    """Return a number with four digits, the numbers of a short vector, or the shape of a larger array."""
    array = np.asarray(value)
    if array.ndim == 1 and 0 < array.size <= (_MOST_WHOLE if array.dtype.kind in "iub" else _MOST_REAL):
        return ", ".join(format_number(element) for element in array)
    if array.ndim:
        return format_shape(array.shape)
    if array.dtype.kind in "iub":
        return f"{array[()]:,}" if array.dtype.kind != "b" else str(bool(array))
    return f"{float(array):.4g}" if array.dtype.kind == "f" else str(array)


def format_shape(lengths: Sequence[int]) -> str:
    """Return the shape of an array as text: "59 × 3", "10 values" or "none"."""
    if 0 in lengths:
        return "none"
    return f"{lengths[0]:,} values" if len(lengths) == 1 else " × ".join(map(str, lengths))


def sparkline(steps: Int[np.ndarray, " steps"], values: Shaped[np.ndarray, " steps"]) -> Html:
    """Return a curve over the logarithm of the step as inline SVG.

    Positive values that span more than a factor of 100 get a logarithmic axis.

    Args:
        steps: The steps, from 0.
        values: The value at each step. Values that are not finite are skipped.

    Returns:
        The SVG with at most 120 points, or "" for fewer than two finite values.
    """
    finite = np.isfinite(values)
    x, y = np.log1p(steps[finite] / LINEAR_BELOW_STEP), values[finite].astype(float)
    if len(y) < 2:
        return Html("")
    if y.min() > 0 and y.max() > 100 * y.min():
        y = np.log(y)
    rows = np.unique(np.linspace(0, len(y) - 1, min(len(y), _MOST_POINTS)).round().astype(int))
    left, top = _unit(x)[rows] * (_WIDTH - 4) + 2, (1 - _unit(y)[rows]) * (_HEIGHT - 4) + 2
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(left, top, strict=True))
    return Html(
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="curve over the steps">'
        f'<polyline points="{points}" fill="none" stroke="#0072B2" stroke-width="1.2"/></svg>'
    )


def _unit(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return the values scaled to [0, 1]; constant values become 1/2."""
    span = float(np.ptp(values))
    return (values - values.min()) / span if span else np.full(len(values), 0.5)


def _cell(value: object) -> str:
    """Return a value as safe HTML."""
    return value if isinstance(value, Html) else escape(str(value))
