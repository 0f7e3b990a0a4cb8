"""Encode arrays for the page: base64 of little-endian numbers, with no more bits than a screen can show."""

import base64
from typing import Any

import numpy as np
from jaxtyping import Shaped

Packed = dict[str, Any]
"""An array as JSON values.

Keys:
    type: "f4", "u1", "u2" or "i4", the numbers' type.
    shape: The lengths of the axes.
    data: The numbers in base64, row by row.
    scale, offset: Only of a quantised array. A value is `offset` + `scale` · its whole number.
"""


def pack(array: Shaped[np.ndarray, "*shape"]) -> Packed:
    """Return an array for the page.

    Integers take 32 bits, bytes and booleans 8. All other numbers become float32.
    """
    kind = "u1" if array.dtype in (np.bool_, np.uint8) else "i4" if array.dtype.kind in "iu" else "f4"
    return {"type": kind, "shape": list(array.shape), "data": _base64(array.astype(f"<{kind}"))}


def quantise(array: Shaped[np.ndarray, "*shape"], n_bits: int = 16) -> Packed:
    """Return an array for the page in 8 or 16 bits per number, with an error of at most half of `scale`.

    Args:
        array: The numbers. The levels are spread evenly from the smallest to the largest.
        n_bits: 8 or 16. 16 bits by default, because a cloud of points is drawn on thousands of pixels.

    Returns:
        The quantised array, or float32 if the array is empty or not finite.
    """
    values = array.astype(np.float64)
    if not values.size or not np.isfinite(values).all():
        return pack(values)
    low, high = float(values.min()), float(values.max())
    scale = (high - low) / (2**n_bits - 1) or 1.0
    kind = f"u{n_bits // 8}"
    levels = np.rint((values - low) / scale).astype(f"<{kind}")
    return {"type": kind, "shape": list(array.shape), "data": _base64(levels), "scale": scale, "offset": low}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
