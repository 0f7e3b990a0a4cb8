"""How objects look in a notebook: small HTML tables with escaped text, and curves as inline SVG; nothing runs."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from jaxtyping import Float, Int, Shaped

_WIDTH, _HEIGHT, _MOST_POINTS = 120, 24, 120
_MOST_WHOLE, _MOST_REAL = 12, 6
"""How many whole numbers, and how many others, one cell of a table holds."""
LEVELS = 10
"""The step below which a curve's axis is not logarithmic, so that step 0 has a place."""


class Html(str):
    """HTML that is safe as it is: what is not of this type is escaped."""


def table(title: object, header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return an HTML table with a title above it; every cell but `Html` is escaped."""
    head = f"<tr>{''.join(f'<th>{_cell(one)}</th>' for one in header)}</tr>" if header else ""
    body = "".join(f"<tr>{''.join(f'<td>{_cell(one)}</td>' for one in row)}</tr>" for row in rows)
    return f"<div><b>{_cell(title)}</b><table>{head}{body}</table></div>"


def number(value: object) -> str:
    """Return a number in a few digits; of a short vector its numbers, of a larger array its shape."""
    array = np.asarray(value)
    if array.ndim == 1 and 0 < array.size <= (_MOST_WHOLE if array.dtype.kind in "iub" else _MOST_REAL):
        return ", ".join(number(one) for one in array)
    if array.ndim:
        return shape(array.shape)
    if array.dtype.kind in "iub":
        return f"{array[()]:,}" if array.dtype.kind != "b" else str(bool(array))
    return f"{float(array):.4g}" if array.dtype.kind == "f" else str(array)


def shape(lengths: Sequence[int]) -> str:
    """Return an array's shape in words: "59 × 3", "10 values", "none"."""
    if 0 in lengths:
        return "none"
    return f"{lengths[0]:,} values" if len(lengths) == 1 else " × ".join(map(str, lengths))


def sparkline(steps: Int[np.ndarray, " steps"], values: Shaped[np.ndarray, " steps"]) -> Html:
    """Return a curve over the logarithm of the step as inline SVG of some 120 points; empty for fewer than two.

    Positive values that span more than a factor 100 have a logarithmic axis. What is not finite is left out.
    """
    finite = np.isfinite(values)
    x, y = np.log1p(steps[finite] / LEVELS), values[finite].astype(float)
    if len(y) < 2:
        return Html("")
    if y.min() > 0 and y.max() > 100 * y.min():
        y = np.log(y)
    kept = np.unique(np.linspace(0, len(y) - 1, min(len(y), _MOST_POINTS)).round().astype(int))
    across, up = _unit(x)[kept] * (_WIDTH - 4) + 2, (1 - _unit(y)[kept]) * (_HEIGHT - 4) + 2
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
    return Html(
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="curve over the steps">'
        f'<polyline points="{points}" fill="none" stroke="#0072B2" stroke-width="1.2"/></svg>'
    )


def _unit(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    span = float(np.ptp(values))
    return (values - values.min()) / span if span else np.full(len(values), 0.5)


def _cell(value: object) -> str:
    return value if isinstance(value, Html) else escape(str(value))
