"""Arrays on a page: base64 of little-endian numbers, in as few bits as the eye can tell."""

import base64
from typing import Any

import numpy as np
from jaxtyping import Shaped

Packed = dict[str, Any]
"""An array as JSON: `type` ("f4", "u1", "u2" or "i4"), `shape`, `data`, and of a quantised one `scale`, `offset`."""


def packed(array: Shaped[np.ndarray, "*shape"]) -> Packed:
    """Return an array for the page: whole numbers in 32 bits, bytes and truth values in 8, all else as float32."""
    kind = "u1" if array.dtype in (np.bool_, np.uint8) else "i4" if array.dtype.kind in "iu" else "f4"
    return {"type": kind, "shape": list(array.shape), "data": _base64(array.astype(f"<{kind}"))}


def quantised(array: Shaped[np.ndarray, "*shape"], n_bits: int = 16) -> Packed:
    """Return an array in 8 or 16 bits, evenly from its smallest to its largest; as float32 if it is not finite.

    A value is `offset` + `scale` times its whole number, wrong by at most half of `scale`.
    """
    values = array.astype(np.float64)
    if not values.size or not np.isfinite(values).all():
        return packed(values)
    low, high = float(values.min()), float(values.max())
    scale = (high - low) / (2**n_bits - 1) or 1.0
    kind = f"u{n_bits // 8}"
    whole = np.rint((values - low) / scale).astype(f"<{kind}")
    return {"type": kind, "shape": list(array.shape), "data": _base64(whole), "scale": scale, "offset": low}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
